import pytest
import torch

from edgemin_hf import MiniLMConfig, MiniLMv2Config, Weighted
from tests.helpers.formulas import terms_of
from tests.helpers.models import batch, tiny


@pytest.mark.parametrize("config", [MiniLMConfig(), MiniLMv2Config(relation_heads=8)])
def test_a_weight_multiplies_every_term_and_nothing_else(config):
    student, teacher, inputs = tiny(seed=1), tiny(), batch()
    plain, weighted = (terms_of(c, student, teacher, inputs) for c in (config, Weighted(config, 0.25)))
    assert plain.keys() == weighted.keys()
    for name, term in plain.items():
        torch.testing.assert_close(weighted[name], 0.25 * term)


def test_weights_are_above_zero():
    with pytest.raises(ValueError, match="weight: 0; allowed: above 0"):
        Weighted(MiniLMConfig(), 0)
