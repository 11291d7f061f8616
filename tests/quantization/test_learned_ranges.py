import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_model
from torch import nn
from transformers import TrainerCallback

from edgemin_hf import PruningConfig, QuantizationConfig, TaskDistillationConfig, create_student, export_onnx
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.quantization.integer import integer_copy
from edgemin_hf.quantization.native import FakeQuantLinear, fake_quantized_linears, prepare_qat
from edgemin_hf.quantization.range_training import learned_ranges
from tests.helpers.models import batch, tiny
from tests.helpers.training import dataset, make, without_dropout

LEARNED = QuantizationConfig(ranges="learned", range_learning_rate=0.02, calibration_examples=16)


def ranges(model):
    return torch.stack([torch.stack(layer.input_range()) for layer in fake_quantized_linears(model)]).detach()


def trained(tmp_path, tokenizer, settings=LEARNED, callbacks=(), **arguments):
    trainer = make(tmp_path, tokenizer, config=TaskDistillationConfig(), quantization_config=settings, **arguments)
    trainer.prepare()
    before = ranges(trainer.model)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train()
    return trainer, before


def test_factors_get_the_gradient_of_the_layer_with_its_roundings_held_fixed():
    torch.manual_seed(1)
    layer = FakeQuantLinear(nn.Linear(24, 6), momentum=0.1).train()
    x = torch.randn(40, 24)
    layer.widen_range(0.6 * x)  # so that values lie outside too
    low, high = layer.input_low.item(), layer.input_high.item()
    with learned_ranges([layer]) as (factors,):
        layer(x).square().sum().backward()
        assert layer.input_low.item() == low, "training moves no buffer"
    weight, values = layer.weight.detach().double(), x.numpy().astype(np.float64)
    weight = weight.numpy()
    row_scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    weight, bias = np.round(weight / row_scale) * row_scale, layer.bias.detach().numpy().astype(np.float64)
    scale = (high - low) / 255
    rounding, zero_rounding = np.round(values / scale) - values / scale, np.round(-low / scale) + low / scale
    unclipped = np.round(values / scale) + np.round(-low / scale)
    assert (unclipped < 0).any()
    assert (unclipped > 255).any()

    def loss(low_factor, high_factor):  # LSQ and LSQ+: what rounding adds is a constant, what is clipped stays so
        lower, upper = low * low_factor, high * high_factor
        step = (upper - lower) / 255
        zero = -lower / step + zero_rounding
        integers = np.where(unclipped < 0, 0, np.where(unclipped > 255, 255, values / step + rounding + zero))
        grid = (integers - zero) * step
        return ((grid @ weight.T + bias) ** 2).sum()

    tiny_step = 1e-6
    expected = [
        (loss(*(1 + tiny_step * direction)) - loss(*(1 - tiny_step * direction))) / (2 * tiny_step)
        for direction in np.eye(2)
    ]
    np.testing.assert_allclose(factors.grad.numpy(), expected, rtol=1e-3)


@pytest.mark.long
def test_ranges_that_are_too_wide_are_drawn_in_and_the_loss_falls(tmp_path, tokenizer):
    teacher = without_dropout(tiny())
    trainer = make(
        tmp_path, tokenizer, copy.deepcopy(teacher), teacher, TaskDistillationConfig(1.0, 0.0), max_steps=60,
        quantization_config=QuantizationConfig(embeddings="fp32", ranges="learned", range_learning_rate=0.05),
        learning_rate=0.0, eval_data=dataset(),
    )  # fmt: skip
    trainer.prepare()
    for layer in fake_quantized_linears(trainer.model):
        layer.widen_range(20 * torch.stack([layer.input_low, layer.input_high]))
    before, first = trainer.evaluate()["eval_loss"], ranges(trainer.model)
    weights = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert all(map(torch.equal, trainer.model.parameters(), weights)), "the ranges have a rate of their own"
    assert trainer.evaluate()["eval_loss"] < 0.7 * before
    assert (ranges(trainer.model)[:, 1] < first[:, 1]).float().mean() > 0.8


def test_ranges_learn_in_a_group_of_their_own_and_then_stay(tmp_path, tokenizer):
    seen, groups = [], []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model, optimizer, **kwargs):
            seen.append(ranges(model))
            groups.append(
                [(group["weight_decay"], len(group["params"]), group["lr"]) for group in optimizer.param_groups]
            )

    trainer, before = trained(
        tmp_path, tokenizer, callbacks=[Look()], max_steps=9, weight_decay=0.1, lr_scheduler_type="constant"
    )
    moved = [not torch.equal(*pair) for pair in zip([before, *seen], seen, strict=False)]
    assert moved == [True] * 7 + [False] * 2, "the last third, 0.33 of nine steps, leaves them as they are"
    layers = len(fake_quantized_linears(trainer.model))
    assert [decay for decay, *_ in groups[0]] == [0.1, 0.0, 0.0]
    assert groups[0][2][1:] == (layers, 0.02)
    assert groups[0][0][2] == 1e-3
    assert sum(count for _, count, _ in groups[0]) == layers + len(list(trainer.model.parameters()))
    torch.testing.assert_close(ranges(trainer.model), seen[-1], rtol=0, atol=0)


@pytest.mark.long
@pytest.mark.parametrize("schedule", ["one_shot", "cubic"])
def test_what_is_saved_and_exported_is_as_with_observed_ranges(tmp_path, tokenizer, schedule):
    pruning = PruningConfig(0.5, 0.5, schedule=schedule, rounds=2)
    trainer, before = trained(tmp_path / "work", tokenizer, pruning_config=pruning, max_steps=6)
    assert (ranges(trainer.model) - before).abs().max() > 0.01
    trainer.save_model(str(tmp_path / "model"))
    loaded = load_pruned(tmp_path / "model")
    prepare_qat(loaded, QuantizationConfig())
    assert load_model(loaded, tmp_path / "model/model.safetensors") == (set(), [])
    trainer.model.eval()
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch()).logits, trainer.model(**batch()).logits)
    assert export_onnx(trainer.model, tokenizer, tmp_path / "onnx").int8 is not None


def test_the_integer_form_knows_ranges_that_are_still_being_learned():
    model = tiny()
    prepare_qat(model, QuantizationConfig())
    for layer in fake_quantized_linears(model):
        layer.widen_range(torch.tensor([-4.0, 4.0]))
    with learned_ranges([model]) as factors, torch.no_grad():
        for own in factors:
            own.copy_(torch.tensor([0.3, 0.7]))
        integer = integer_copy(model)
        torch.testing.assert_close(integer(**batch()).logits, model(**batch()).logits, rtol=1e-3, atol=1e-3)
    assert ranges(model).eq(torch.tensor([-4.0, 4.0]) * torch.tensor([0.3, 0.7])).all()


def test_training_again_learns_on(tmp_path, tokenizer):
    trainer, _ = trained(tmp_path, tokenizer)
    before = ranges(trainer.model)
    trainer.train()
    assert not torch.equal(ranges(trainer.model), before)
    assert not any("range_factors" in name for name, _ in trainer.model.named_parameters())


def test_what_can_not_be_learned_is_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="ranges: learned with provider inc; allowed: observed"):
        QuantizationConfig(provider="inc", ranges="learned")
    with pytest.raises(ValueError, match="ranges: guessed; allowed: observed, learned"):
        QuantizationConfig(ranges="guessed")
    with pytest.raises(ValueError, match="range_learning_rate: -1"):
        QuantizationConfig(range_learning_rate=-1)
    student = create_student(tiny(), 2)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="optimizers: given beside ranges: learned"):
        make(tmp_path, tokenizer, student, quantization_config=LEARNED, optimizers=(optimizer, None))


@pytest.mark.parametrize("family", ["albert", "mpnet", "deberta", "modernbert"])
def test_ranges_of_other_families_learn(tmp_path, tokenizer, family):
    student = create_student(tiny(family), 2)
    trainer, before = trained(
        tmp_path, tokenizer, model=student, teacher=tiny(family), max_steps=3,
        gradient_checkpointing=family == "modernbert",
    )  # fmt: skip
    assert (ranges(trainer.model) != before).any(dim=1).all()
