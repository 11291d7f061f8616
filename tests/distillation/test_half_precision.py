"""Losses of what fp16 mixed precision records: far values, small gradients that a scale keeps above zero."""

import pytest
import torch
from torch import nn

from edgemin_hf import MiniLMConfig, TinyBERTConfig
from edgemin_hf.distillation.common import hidden_loss
from edgemin_hf.distillation.distilbert import masked_lm_loss, token_kl
from edgemin_hf.distillation.minilm import attention_kl
from edgemin_hf.distillation.mlkd import sample_contrast, sample_similarity_kl
from edgemin_hf.distillation.pkd import patience_loss
from edgemin_hf.distillation.tinybert import attention_loss
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.tasks.multi_label import MultiLabel
from edgemin_hf.tasks.regression import Regression
from edgemin_hf.tasks.text_classification import TextClassification
from tests.helpers.models import tiny

MASK = torch.arange(6) < torch.tensor([6, 4])[:, None]
LABELS = torch.tensor([[1, -100, 3, -100, -100, 2], [-100, 4, -100, 0, -100, -100]])


def far(*shape, seed):
    """Values of up to some hundreds, whose squares and products fp16 can't hold."""
    return 150 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def projection(dtype):
    one = nn.Linear(8, 8)
    nn.init.eye_(one.weight)
    nn.init.zeros_(one.bias)
    return one.to(torch.float64 if dtype == torch.float64 else torch.float32)


def single(logits):
    """The student's logits as task distillation's objective gives them to a task; the teacher's stay halves."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


LOSSES = {
    "hidden": ((2, 6, 8), lambda s, t: hidden_loss(s, t, projection(s.dtype), MASK)),
    "attention scores": ((2, 4, 6, 6), lambda s, t: attention_loss(s, t, MASK)),
    "attention distributions": ((2, 4, 6, 6), lambda s, t: attention_kl(s, t, MASK)),
    "patience": ((2, 3, 8), patience_loss),
    "similarity": ((5, 8), lambda s, t: sample_similarity_kl(s / 128, t / 128)),
    "contrast": ((4, 8), lambda s, t: sample_contrast(s, t, torch.tensor([0, 1, 0, 2]), 0.07)),
    "words": ((2, 6, 9), lambda s, t: token_kl(s, t, MASK, 2.0)),
    "masked words": ((2, 6, 9), lambda s, t: masked_lm_loss(s, LABELS)),
    "classes": ((4, 3), lambda s, t: TextClassification.soft_loss(single(s), t, 2.0)),
    "labels": ((4, 3), lambda s, t: MultiLabel.soft_loss(single(s), t, 2.0)),
    "score": ((4, 1), lambda s, t: Regression.soft_loss(single(s), t, 1.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_halves_and_its_gradient_are_those_of_doubles(name):
    shape, loss_of = LOSSES[name]
    student, teacher = far(*shape, seed=1).half(), far(*shape, seed=2).half()
    weight, scale = 2.0**-14, 2.0**14  # a small share of a step, scaled as a GradScaler does
    found = []
    for dtype in (torch.float16, torch.float64):
        leaf = student.detach().clone().to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.float16, enabled=dtype == torch.float16):
            loss = loss_of(leaf, teacher.to(dtype))
        (loss * weight * scale).backward()
        found.append((loss.double(), leaf.grad.double()))
    (ours, gradient), (exact, exact_gradient) = found
    assert ours.item() == pytest.approx(exact.item(), rel=1e-5)
    assert (gradient - exact_gradient).norm() <= 2e-3 * exact_gradient.norm()


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta-v2", "modernbert"])
def test_attention_scores_of_halves_do_not_overflow(family):
    model = tiny(family)
    objectives = [MiniLMConfig(value_weight=0), TinyBERTConfig(embedding_weight=0, hidden_weight=0)]
    mask = torch.ones(2, 6, dtype=torch.long)
    for config in objectives:
        objective = config.objective(Encoder(model), Encoder(model))
        tensors = {one: far(2, 6, 32, seed=index) for index, one in enumerate(objective.student_activations)}
        found = []
        for dtype in (torch.float16, torch.float32):
            ours = Recording({one: tensor.half().to(dtype) for one, tensor in tensors.items()})
            theirs = Recording({one: tensor.half().to(dtype).flip(0) for one, tensor in tensors.items()})
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16, enabled=dtype == torch.float16):
                found.append(sum(objective(ours, theirs, {"attention_mask": mask}).values()))
        assert torch.isfinite(found[0])
        assert found[0].item() == pytest.approx(found[1].item(), rel=1e-3)
