import pytest
import torch
from transformers import AutoModelForMaskedLM

from edgemin_hf import create_student, load_pruned
from edgemin_hf.data.masked_lm import load_masked_lm
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.utils.weight_files import WeightsError
from tests.helpers.models import FAMILIES, batch, tiny

LABELS = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}


def pruned(family):
    """A model whose layers all lost two of their heads, and half of their neurons."""
    model = tiny(family)
    blocks = len(Encoder(model).blocks)
    remove(model, Selection([[0, 3]] * blocks, [range(32)] * blocks))
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_for_other_labels_leaves_a_pruned_encoder_alone(family, tmp_path):
    """transformers 5 would take random attention, complete, under `ignore_mismatched_sizes`."""
    model = pruned(family)
    model.save_pretrained(tmp_path)
    loaded = load_pruned(tmp_path, ignore_mismatched_sizes=True, **LABELS).eval()
    assert loaded.config.num_labels == 2
    ours, theirs = loaded.base_model.state_dict(), model.base_model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(loaded.base_model(**batch())[0], model.base_model(**batch())[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("uneven", [False, True])
def test_half_precision_becomes_float32(dtype, uneven, tmp_path):
    """transformers 5 would leave a checkpoint in its own precision."""
    model = pruned("bert") if uneven else tiny()
    model.to(dtype).save_pretrained(tmp_path)
    loaded = load_pruned(tmp_path)
    assert {tensor.dtype for tensor in loaded.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    assert create_student(loaded, 2).dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, tmp_path):
    model = tiny()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"NaN or infinite: bert\.encoder\.layer\.0\.output\.dense\.weight"):
        load_pruned(tmp_path)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(("asked", "got"), [("auto", torch.bfloat16), (torch.float16, torch.float16)])
def test_a_dtype_that_is_asked_for_is_given(name, asked, got, tmp_path):
    tiny().bfloat16().save_pretrained(tmp_path)
    assert load_pruned(tmp_path, **{name: asked}).dtype == got


def test_a_masked_language_model_is_in_float32(tmp_path):
    tiny(head=AutoModelForMaskedLM).half().save_pretrained(tmp_path)
    assert load_masked_lm(tmp_path).dtype == torch.float32
