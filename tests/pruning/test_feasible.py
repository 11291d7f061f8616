import pytest
import torch

from edgemin_hf import PruningConfig, prune
from edgemin_hf.pruning.feasible import check_removal, check_rounds
from edgemin_hf.pruning.saliency import Saliency
from edgemin_hf.pruning.selection import Parameters, select
from tests.helpers.models import PRUNABLE, tiny

NOTHING = [
    ({}, "head_sparsity: 0, as ffn_sparsity and layer_sparsity, without a target"),
    ({"head_sparsity": 0.12}, "head_sparsity: 0.12, .* none of 4 heads.*; allowed: 0, or above 0.125"),
    (
        {"head_sparsity": 0.5, "ffn_sparsity": 0.24},
        "ffn_sparsity: 0.24, .* none of 64 neurons.*; allowed: 0, or above 0",
    ),
    ({"layer_sparsity": 0.1}, "layer_sparsity: 0.1, .* none of 3 layers.*; allowed: 0, or above 0.166"),
    ({"target_parameters": 10**6}, r"target_parameters: 1000000; allowed: \d+ to below \d+"),
    ({"target_parameters": 10}, r"target_parameters: 10; allowed: \d+ to below \d+"),
]


@pytest.mark.parametrize(("settings", "line"), NOTHING, ids=[line.split(",")[0] for _, line in NOTHING])
def test_what_would_remove_nothing_is_refused_before_any_batch_is_read(settings, line):
    with pytest.raises(ValueError, match=line):
        prune(tiny(), PruningConfig(**settings), iter(lambda: pytest.fail("a batch was read"), None))


@pytest.mark.parametrize("family", PRUNABLE)
def test_the_least_that_is_allowed_removes_something(family):
    model = tiny(family)
    config = PruningConfig(head_sparsity=0.13, ffn_sparsity=0.26)
    check_removal(model, config)
    chosen = select(model, Saliency([torch.rand(4)] * 3, [torch.rand(64)] * 3), config)
    assert {(len(heads), len(neurons)) for heads, neurons in zip(chosen.heads, chosen.neurons, strict=True)} == {
        (3, 32)
    }
    with torch.device("meta"):
        bare = type(model)(model.config)
    check_removal(bare, PruningConfig(target_parameters=model.num_parameters() - 1))


def test_a_layer_of_one_head_can_not_lose_it():
    with pytest.raises(ValueError, match=r"head_sparsity: 0\.9, .*; allowed: 0$"):
        check_removal(tiny(num_attention_heads=1), PruningConfig(0.9))


def test_it_is_said_where_less_goes_than_the_share(caplog):
    check_removal(tiny(), PruningConfig(0.99, 0.99))
    assert "head_sparsity: 0.99 of 4 heads would leave none; 1 stay" in caplog.text
    assert "ffn_sparsity: 0.99 of 64 neurons would leave none; 32 stay" in caplog.text
    caplog.clear()
    check_removal(tiny(), PruningConfig(0.75, 0.5))
    assert not caplog.text


def test_it_is_said_where_a_measured_budget_is_met_already(caplog):
    model = tiny()
    saliency = Saliency([torch.rand(4)] * 3, [torch.rand(64)] * 3)
    chosen = select(model, saliency, PruningConfig(target_parameters=10**6), Parameters(model))
    assert [len(heads) for heads in chosen.heads] == [4, 4, 4]
    assert "nothing does" in caplog.text


def test_a_schedule_without_steps_is_refused_and_one_with_few_is_told(caplog):
    with pytest.raises(ValueError, match=r"schedule: cubic, and 0 of 1 steps lie between .*; allowed: more steps"):
        check_rounds(PruningConfig(0.5, schedule="cubic"), 1)
    check_rounds(PruningConfig(0.5, schedule="cubic"), 4)
    assert "rounds: 10, but 2 of 4 steps lie between start 0 and end 0.5" in caplog.text
    caplog.clear()
    check_rounds(PruningConfig(0.5, schedule="cubic"), 20)
    check_rounds(PruningConfig(0.5), 0)
    assert not caplog.text
