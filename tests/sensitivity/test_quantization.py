import copy
from itertools import product

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.native import prepare_qat
from edgemin_hf.sensitivity import outputs
from edgemin_hf.sensitivity.quantization import module_bytes, quantization_sensitivity
from edgemin_hf.tasks import MaskedLM
from tests.helpers.models import FAMILIES, batch, tiny

CALIBRATION = [batch((8, 6), seed=5)]
BATCHES = [batch(), batch((5, 12), seed=1)]


def logits(model, inputs=BATCHES):
    with torch.no_grad():
        return np.concatenate([model(**one).logits.numpy() for one in inputs])


def on_int8_rows(weight, most=127):
    scale = np.maximum(np.abs(weight).max(-1, keepdims=True) / most, 1e-30)
    return np.round(weight / scale) * scale


def on_int4_groups(weight, size=32):
    result = weight.copy()
    for row, start in product(range(len(weight)), range(0, weight.shape[1], size)):
        group = result[row, start : start + size]
        scale = group[np.abs(group).argmax()] / -8 or 1.0
        group[:] = np.clip(np.round(group / scale), -8, 7) * scale
    return result


def quantized_alone(model, name, precision):
    """A copy in which one module's weight lies on its grid, and its input too where that is INT8."""
    changed = copy.deepcopy(model)
    module = changed.get_submodule(name)
    weight = module.weight.detach().double().numpy()
    linear = isinstance(module, torch.nn.Linear)
    grid = on_int8_rows(weight, most=64 if linear else 127) if precision == "int8" else on_int4_groups(weight)
    if precision == "int8" and linear:
        seen = []
        handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0].double().numpy()))
        logits(changed, CALIBRATION)
        handle.remove()
        low = min(0.0, *(values.min() for values in seen))
        high = max(0.0, *(values.max() for values in seen))
        scale = (high - low) / 255
        zero = np.round(-low / scale)

        def on_grid(_module, args):
            values = np.clip(np.round(args[0].double().numpy() / scale) + zero, 0, 255)
            return torch.from_numpy((values - zero) * scale).float()

        module.register_forward_pre_hook(on_grid)
    module.weight.data = torch.from_numpy(grid).float()
    return changed


def divergence(ours, whole):
    ours, whole = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(-1, keepdims=True) for x in (ours, whole))
    return (whole * np.log(whole / ours)).sum(-1).mean()


def test_what_answers_for_each_token_is_compared_a_row_at_a_time():
    seen = []

    class Spied(MaskedLM):
        @staticmethod
        def divergence(logits, reference, counted=None):
            seen.append(tuple(logits.shape))
            return MaskedLM.divergence(logits, reference, counted)

    ours, theirs = torch.randn(2, 3, 5, 11, generator=torch.Generator().manual_seed(0))
    counted = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    batch = {"input_ids": counted, "attention_mask": torch.ones_like(counted), "counted": counted}
    found = outputs.divergence(Spied, ours, theirs, batch)
    assert found == pytest.approx(3 * float(MaskedLM.divergence(ours.double(), theirs.double(), counted)))
    assert seen == [(1, 5, 11)] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_each_module_alone_against_a_copy_on_numpys_grids(family):
    model = tiny(family)
    whole, modules = quantization_sensitivity(model, CALIBRATION, BATCHES)
    np.testing.assert_allclose(whole, logits(model), atol=1e-5)
    names = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    tables = {f"embeddings.{name}" for _, name, table in Encoder(model).embeddings() if table.num_embeddings > 16}
    found = {row.name for row in modules if row.kind == "embedding"}
    assert {row.name for row in modules if row.kind == "linear"} == set(names)
    assert {name.partition(".")[2] for name in found} == tables
    assert len(modules) == 2 * (len(names) + len(tables))
    assert [row.loss for row in modules] == sorted((row.loss for row in modules), reverse=True)
    for row in modules[:: max(1, len(modules) // 12)]:
        expected = logits(quantized_alone(model, row.name, row.precision))
        # A value at the edge between two steps may fall to either side.
        moved = np.abs(expected - whole).max()
        np.testing.assert_allclose(row.logits, expected, atol=max(1e-4, 0.1 * moved), err_msg=f"{row}")
        assert row.loss == pytest.approx(divergence(row.logits, whole), rel=1e-3, abs=1e-9)
    of = {(row.name, row.precision): row.loss for row in modules}
    assert sum(of[name, "int4"] for name in names) > sum(of[name, "int8"] for name in names)


@pytest.mark.parametrize("reduce_range", [True, False])
def test_a_table_tied_to_a_decoder_lies_on_the_decoders_grid(reduce_range):
    model = tiny(head=AutoModelForMaskedLM)
    config = QuantizationConfig(reduce_range=reduce_range)
    _, modules = quantization_sensitivity(model, CALIBRATION, [batch((9,))], config)
    (row,) = (row for row in modules if row.name.endswith("word_embeddings") and row.precision == "int8")
    changed = copy.deepcopy(model)
    changed.cls.predictions.decoder.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    table = changed.get_input_embeddings().weight
    table.data = torch.from_numpy(on_int8_rows(table.detach().numpy(), 64 if reduce_range else 127))
    np.testing.assert_allclose(row.logits[0], logits(changed, [batch((9,))])[0], atol=1e-4)


def test_the_model_stays_as_it_was():
    model = tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = dict(model.named_modules())
    quantization_sensitivity(model, CALIBRATION, BATCHES)
    assert dict(model.named_modules()) == modules
    assert model.training
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    prepare_qat(model, QuantizationConfig())
    with pytest.raises(ValueError, match=r"^model: a quantised BertForSequenceClassification; allowed: "):
        quantization_sensitivity(model, CALIBRATION, BATCHES)


def test_batches_their_order_and_padding_change_nothing():
    model = tiny()
    _, together = quantization_sensitivity(model, CALIBRATION, [batch((7, 4, 9), pad_to=14)])
    rows = [{name: value[i : i + 1] for name, value in batch((7, 4, 9)).items()} for i in (2, 0, 1)]
    _, alone = quantization_sensitivity(model, CALIBRATION, rows)
    alone = {(row.name, row.precision): row.loss for row in alone}
    for row in together:
        assert row.loss == pytest.approx(alone[row.name, row.precision], rel=0.02, abs=1e-8)


def test_a_model_on_the_grids_loses_nothing_by_int4_and_one_score_is_compared_by_squares():
    model = tiny(id2label={0: "score"}, label2id={"score": 0})
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name.endswith("key"):
                module.weight.copy_(torch.from_numpy(on_int4_groups(module.weight.double().numpy())).float())
    whole, modules = quantization_sensitivity(model, CALIBRATION, BATCHES)
    for row in modules:
        assert row.loss == pytest.approx(np.square(row.logits - whole).mean(), rel=1e-4, abs=1e-12)
        if row.name.endswith("key") and row.precision == "int4":
            assert row.loss < 1e-9


def test_layers_below_a_module_run_once_a_batch():
    model = tiny()
    calls = [0, 0, 0]
    for number, block in enumerate(Encoder(model).blocks):

        def count(_module, _args, number=number):
            calls[number] += 1

        # Not of the layer, which is called but gives back what was kept.
        block.module.intermediate.register_forward_pre_hook(count)
    quantization_sensitivity(model, CALIBRATION, [batch()])
    # Calibration, the unquantised model's pass; then 2 tables and 6 linear layers a layer.
    assert calls == [2 + 2 * 2 + 2 * 6 * layers for layers in (1, 2, 3)]


def test_sizes_are_those_of_weights_and_scales():
    linear, table = torch.nn.Linear(80, 6), torch.nn.Embedding(50, 48)
    assert [module_bytes(linear, precision, 32) for precision in ("fp32", "int8", "int4")] == [1920, 510, 6 * (48 + 12)]
    assert [module_bytes(table, precision, 32) for precision in ("fp32", "int8", "int4")] == [9600, 2600, 50 * (24 + 8)]
    model = tiny()
    _, modules = quantization_sensitivity(model, CALIBRATION, [batch()])
    for row in modules:
        module = model.get_submodule(row.name)
        for other, saved in row.saved_bytes.items():
            assert row.size_bytes + saved == module_bytes(module, other, 32)
        assert row.saved_bytes.keys() == {"fp32", "int8", "int4"} - {row.precision}


def test_of_a_head_for_tokens_each_sentence_counts_as_much_whatever_the_batches():
    model = tiny(head=AutoModelForTokenClassification)
    counted = torch.rand(3, 14, generator=torch.Generator().manual_seed(0)) > 0.5
    together = {**batch((7, 4, 9), pad_to=14), "counted": counted}
    whole, modules = quantization_sensitivity(model, CALIBRATION, [together])
    apart = [
        {name: value[row : row + 1, :length] for name, value in together.items()}
        for row, length in enumerate((7, 4, 9))
    ]
    alone, others = quantization_sensitivity(model, CALIBRATION, apart)
    assert [len(outputs) for outputs in whole] == [7, 4, 9]
    for ours, theirs in zip(whole, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    losses = {(row.name, row.precision): row.loss for row in others}
    for row in modules:
        assert row.loss == pytest.approx(losses[row.name, row.precision], rel=0.1, abs=1e-6)
    worst = modules[0]
    own = [counted[row, :length].numpy() for row, length in enumerate((7, 4, 9))]
    expected = []
    for ours, base, at in zip(worst.logits, whole, own, strict=True):
        p, q = (np.exp(side.astype(float)) / np.exp(side.astype(float)).sum(-1, keepdims=True) for side in (base, ours))
        expected.append((p * np.log(p / q)).sum(-1)[at].mean())
    assert worst.loss == pytest.approx(np.mean(expected), rel=1e-4)
