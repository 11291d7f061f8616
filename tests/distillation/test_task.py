import numpy as np
import pytest
import torch
from transformers import BertConfig

from edgemin_hf import TaskDistillationConfig
from edgemin_hf.distillation.task import TaskDistillationObjective
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.tasks import TASKS

NAN = float("nan")
LOGITS = np.random.default_rng(0).normal(size=(4, 3))
TEACHER = np.random.default_rng(1).normal(size=(4, 3))


def entropies(logits, label):
    return -np.log(np.exp(logits[label]) / np.exp(logits).sum())


def binary(logits, answers):
    yes = 1 / (1 + np.exp(-logits))
    return -(answers * np.log(yes) + (1 - answers) * np.log(1 - yes)).mean()


HALF = {
    "text_classification": ([2, -100, 0, -100], entropies(LOGITS[0], 2) + entropies(LOGITS[2], 0), 3),
    "multi_label": (
        [[1.0, 0, 1], [NAN] * 3, [0.0, 1, 1], [NAN] * 3],
        binary(LOGITS[0], np.array([1, 0, 1])) + binary(LOGITS[2], np.array([0, 1, 1])), 3,
    ),
    "regression": ([2.0, NAN, -1.0, NAN], (LOGITS[0, 0] - 2) ** 2 + (LOGITS[2, 0] + 1) ** 2, 1),
}  # fmt: skip


def terms(task, rows, labels, outputs):
    settings = TaskDistillationConfig(soft_weight=0.25, hard_weight=2.0)
    objective = TaskDistillationObjective(settings, TASKS[task], BertConfig())
    logits, teacher = (torch.tensor(array[rows, :outputs], dtype=torch.float64) for array in (LOGITS, TEACHER))
    logits.requires_grad_()
    inputs = {"labels": torch.tensor(labels)[rows], "teacher_logits": teacher}
    return logits, objective(Recording(logits=logits), Recording(), inputs)


@pytest.mark.parametrize("task", HALF)
def test_the_hard_loss_is_a_mean_over_all_examples_in_which_those_without_labels_are_0(task):
    labels, total, outputs = HALF[task]
    logits, found = terms(task, range(4), labels, outputs)
    np.testing.assert_allclose(found["hard_labels"].item(), 2.0 * total / 4, rtol=1e-6)
    found["hard_labels"].backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[[1, 3]].any()
    # The same however the examples are divided into batches, one of them without any label.
    for parts in ([[0, 1], [2, 3]], [[0, 2], [1, 3]]):
        halves = [terms(task, part, labels, outputs)[1] for part in parts]
        for name in ("hard_labels", "soft_labels"):
            mean = sum(half[name].item() for half in halves) / 2
            np.testing.assert_allclose(mean, found[name].item(), rtol=1e-6)


def test_a_batch_without_labels_gives_a_gradient_of_0():
    logits, found = terms("text_classification", [1, 3], HALF["text_classification"][0], 3)
    found["hard_labels"].backward()
    assert (found["hard_labels"].item(), logits.grad.abs().max().item()) == (0, 0)
