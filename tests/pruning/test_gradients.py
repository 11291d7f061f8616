"""Saliencies against a reference of their own: float64, one example at a time, explicit masks."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from transformers import TrainerCallback

from edgemin_hf import PruningConfig, QuantizationConfig, TaskDistillationConfig, prune, quantize
from edgemin_hf.modeling import Activation
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.length_groups import record_by_length
from edgemin_hf.pruning.gradual import GradualPruner
from edgemin_hf.pruning.saliency import MEASURES, fisher_saliency, taylor_saliency, weight_saliency
from tests.helpers.models import batch, tiny
from tests.helpers.training import RELATIONS, dataset, make, without_dropout

LABELS_ALONE = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)
ROWS = {**batch((7, 4, 9, 12, 3, 8)), "labels": torch.tensor([0, 2, 1, 1, 0, 2])}


def task_loss(model, rows):
    return F.cross_entropy(model(rows["input_ids"], attention_mask=rows["attention_mask"]).logits, rows["labels"])


def hidden_loss(model, rows):
    """A loss as of methods without logits: a mean over examples of means over their tokens."""
    inputs = {name: rows[name] for name in ("input_ids", "attention_mask")}
    last = Activation(model.config.num_hidden_layers - 1, "output")
    hidden, mask = record_by_length(model, [last], inputs).activations[last], rows["attention_mask"]
    return ((hidden**3).mean(-1) * mask).sum(1).div(mask.sum(1)).mean()


def cut(rows, start, end):
    return {name: tensor[start:end] for name, tensor in rows.items()}


def exact(model, rows, loss, saliency):
    """Scores of heads and neurons of each layer."""
    model = copy.deepcopy(model).double().eval()
    blocks = Encoder(model).blocks
    scores = [(torch.zeros(b.num_heads).double(), torch.zeros(b.num_neurons).double()) for b in blocks]
    for example in range(len(rows["input_ids"])):
        masks = [tuple(torch.ones(len(units)).double().requires_grad_() for units in layer) for layer in scores]
        hooks = [
            linear.register_forward_pre_hook(
                lambda _, args, m=m: (args[0] * m.repeat_interleave(args[0].shape[-1] // len(m)),)
            )
            for block, pair in zip(blocks, masks, strict=True)
            for linear, m in zip((block.attention_output, block.ffn_out), pair, strict=True)
        ]
        loss(model, cut(rows, example, example + 1)).backward()
        for (heads, neurons), pair, block in zip(scores, masks, blocks, strict=True):
            if saliency != "taylor_weights":
                power = 1 if saliency == "taylor" else 2
                heads += pair[0].grad.abs() ** power
                neurons += pair[1].grad.abs() ** power
                continue
            found = [
                (linear.weight * linear.weight.grad).detach().abs()
                for linear in (block.attention_output, block.ffn_in, block.ffn_out)
            ]
            size = found[0].shape[1] // len(heads)
            heads += torch.stack([found[0][:, size * head : size * (head + 1)].sum() for head in range(len(heads))])
            neurons += torch.stack(
                [found[1][n :: len(neurons)].sum() + found[2][:, n].sum() for n in range(len(neurons))]
            )
        model.zero_grad()
        for hook in hooks:
            hook.remove()
    return scores


def assert_scores(measured, expected, rtol=2e-4):
    for ours, theirs in zip(zip(measured.heads, measured.neurons, strict=True), expected, strict=True):
        for units, others in zip(ours, theirs, strict=True):
            torch.testing.assert_close(units, others, rtol=rtol, atol=rtol * float(others.max()))


@pytest.mark.parametrize("saliency", MEASURES)
@pytest.mark.parametrize("family", ["bert", "albert", "deberta", "modernbert"])
def test_saliency_is_exact_however_rows_are_divided(family, saliency):
    model = tiny(family)
    expected = exact(model, ROWS, task_loss, saliency)
    for bounds in ((0, 6), (0, 3, 6), (0, 1, 2, 6)):
        batches = [cut(ROWS, *pair) for pair in pairwise(bounds)]
        assert_scores(MEASURES[saliency](model, batches, lambda rows: task_loss(model, rows)), expected)


@pytest.mark.parametrize("saliency", MEASURES)
def test_a_batch_that_goes_through_in_parts_scores_as_one(saliency):
    model = tiny()
    rows = batch((60, 5, 55, 6, 58, 7, 4, 5))
    calls = []
    hook = model.bert.embeddings.register_forward_hook(lambda *_: calls.append(None))
    measured = MEASURES[saliency](model, [rows], lambda rows: hidden_loss(model, rows))
    hook.remove()
    assert len(calls) > 1  # parts
    assert_scores(measured, exact(model, rows, hidden_loss, saliency))


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_the_gradients_that_fisher_keeps_are_of_the_same_rows(family):
    model = tiny(family)
    found = fisher_saliency(model, [cut(ROWS, 0, 4), cut(ROWS, 4, 6)], lambda rows: task_loss(model, rows))
    for (heads, neurons), *scores in zip(found.gradients, found.heads, found.neurons, strict=True):
        assert (len(heads), len(neurons)) == (6, 6)
        torch.testing.assert_close([heads.double().square().sum(0), neurons.double().square().sum(0)], scores)


@pytest.mark.parametrize("saliency", MEASURES)
def test_half_precision_neither_overflows_nor_loses_small_products(saliency):
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    half = copy.deepcopy(model).half()
    for scale in (2.0**-12, 2.0**12):

        def loss(model, rows, scale=scale):
            return scale * task_loss(model, rows).float()

        measured = MEASURES[saliency](half, [ROWS], lambda rows: loss(half, rows))
        assert_scores(measured, exact(model, ROWS, loss, saliency), rtol=0.1)


@pytest.mark.parametrize("measure", MEASURES.values())
def test_gradients_that_are_not_finite_are_refused(measure):
    model = tiny()
    with pytest.raises(ValueError, match="gradients are not finite"):
        measure(model, [ROWS], lambda rows: torch.inf * task_loss(model, rows))


def test_weights_of_a_quantised_layer_get_the_products_of_its_gradients():
    model = quantize(tiny(), QuantizationConfig(), [ROWS])
    measured = weight_saliency(model, [cut(ROWS, 2, 3)], lambda rows: task_loss(model, rows))
    task_loss(model, cut(ROWS, 2, 3)).backward()
    block = Encoder(model).blocks[1]
    first, second = ((linear.weight * linear.weight.grad).abs() for linear in (block.ffn_in, block.ffn_out))
    torch.testing.assert_close(measured.neurons[1].float(), first.sum(1) + second.sum(0))


@pytest.mark.parametrize("saliency", MEASURES)
def test_prune_removes_the_same_whatever_the_batches_of_its_loader(saliency):
    config = PruningConfig(0.5, 0.5, saliency=saliency, saliency_examples=5)
    shapes = []
    for size in (1, 2, 5, 6):
        model = tiny()
        prune(model, config, [cut(ROWS, start, start + size) for start in range(0, 6, size)])
        shapes.append(model.state_dict())
    for other in shapes[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in shapes[0].items())


class Scores(TrainerCallback):
    """Keeps what a gradual pruner has scored by the last step."""

    def __init__(self, pruner):
        self.pruner, self.found = pruner, None

    def on_step_end(self, *args, **kwargs):
        self.found = copy.deepcopy(self.pruner())


def train(tmp_path, tokenizer, saliency, config=LABELS_ALONE, model=None, **arguments):
    """A training in which weights stay as they are and one round comes at the end: returns its trainer and scores."""
    pruning = PruningConfig(0.5, 0.5, saliency=saliency, schedule="iterative", start=0.4, end=1.0, rounds=1)
    model = without_dropout(tiny()) if model is None else model
    arguments = {"learning_rate": 0.0, "weight_decay": 0.0, "max_steps": 2, **arguments}
    trainer = make(tmp_path, tokenizer, model, config=config, pruning_config=pruning, **arguments)
    seen = Scores(lambda: trainer.callback_handler.callbacks[0].scores)
    trainer.add_callback(seen)
    trainer.train()
    return seen.found


@pytest.mark.parametrize("saliency", MEASURES)
@pytest.mark.parametrize(
    "arguments",
    [
        {"per_device_train_batch_size": 8},
        {"per_device_train_batch_size": 8, "max_grad_norm": 1e-3},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_grad_norm": 0.0},
        {"per_device_train_batch_size": 8, "gradient_checkpointing": True},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "max_steps": 3},
    ],
    ids=["plain", "clipped", "accumulated", "checkpointed", "uneven"],
)
def test_scores_of_a_gradual_schedule_are_exact(saliency, arguments, tmp_path, tokenizer):
    found = train(tmp_path, tokenizer, saliency, **arguments)
    rows = tokenizer.pad(dataset()[:], return_tensors="pt")
    assert_scores(found, exact(tiny(), rows, task_loss, saliency))


def test_a_step_that_overflowed_is_passed_over():
    model = tiny()
    pruner = GradualPruner(PruningConfig(0.5, schedule="cubic", end=1.0, rounds=1), model, None)
    with pruner._terms.collected():
        for scale in (torch.inf, 65536.0, 0.0, torch.nan):
            loss = task_loss(model, ROWS)
            pruner.watch(loss, 6)
            (scale * loss).backward()
            pruner.after_backward(complete=True)
    assert_scores(pruner.scores, exact(model, ROWS, task_loss, "taylor"))


def test_a_loss_that_reaches_no_layer_ends_a_gradual_schedule_at_its_first_step(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="saliency: taylor, but the loss does not reach layer 3"):
        train(tmp_path, tokenizer, "taylor", config=RELATIONS)


def test_taylor_of_a_chunked_feed_forward_is_that_of_the_layer():
    plain, chunked = tiny(), tiny(chunk_size_feed_forward=4)
    rows = {**batch((8, 8)), "labels": torch.tensor([0, 1])}
    ours, theirs = (taylor_saliency(m, [rows], lambda rows, m=m: task_loss(m, rows)) for m in (chunked, plain))
    for units, others in zip(ours.neurons, theirs.neurons, strict=True):
        torch.testing.assert_close(units, others, rtol=1e-4, atol=1e-6)
