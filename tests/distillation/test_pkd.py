import numpy as np
import pytest
import torch

from edgemin_hf import PKDConfig, TaskDistillationConfig, create_student
from edgemin_hf.distillation.pkd import patience_loss
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.pooling import first_tokens
from tests.helpers.formulas import terms_of
from tests.helpers.models import FAMILIES, batch, tiny
from tests.helpers.training import make


def states(seed, shape=(5, 3, 8)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def formula(student, teacher):
    """Equation 7, one example and layer at a time, as a mean over examples."""
    total = 0.0
    for ours, theirs in zip(student.numpy(), teacher.numpy(), strict=True):
        for s, t in zip(ours.astype(np.float64), theirs.astype(np.float64), strict=True):
            total += ((s / np.linalg.norm(s) - t / np.linalg.norm(t)) ** 2).sum() / len(student)
    return total


def test_loss_equals_the_formula_and_knows_directions_alone():
    student, teacher = states(0), states(1)
    loss = patience_loss(student, teacher)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(formula(student, teacher), rel=1e-12)
    assert patience_loss(student.flip(0), teacher.flip(0)).item() == pytest.approx(loss.item(), rel=1e-12)
    assert patience_loss(7 * student, 0.1 * teacher).item() == pytest.approx(loss.item(), rel=1e-12)
    assert abs(patience_loss(student, 3 * student).item()) < 1e-15
    assert patience_loss(student, -student).item() == pytest.approx(4 * 3, rel=1e-12), "the farthest, in three layers"
    half = patience_loss(student.bfloat16(), teacher.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(formula(student.bfloat16().double(), teacher.bfloat16().double()), rel=1e-5)


def test_gradient_of_the_student_alone():
    student, teacher = states(0).requires_grad_(), states(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: patience_loss(s, teacher.detach()), student)
    patience_loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_cls_is_the_first_real_token(side):
    mask = batch(side=side)["attention_mask"].bool()
    found = first_tokens(mask.cumsum(1)[..., None].float() * mask[..., None], mask)
    assert found.tolist() == [[1.0], [1.0], [1.0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_objective_is_the_formula_on_hidden_states(family):
    student, teacher, inputs = tiny(family, seed=1), tiny(family), batch()
    with torch.no_grad():
        terms = terms_of(PKDConfig(beta=2.0, layers=(3, 1)), student, teacher, inputs)
        ours, theirs = (m.base_model(**inputs, output_hidden_states=True) for m in (student, teacher))
    taken = [ours.hidden_states[layer][:, 0] for layer in (1, 2)]
    learnt = [theirs.last_hidden_state[:, 0], theirs.hidden_states[1][:, 0]]
    expected = 2 * formula(torch.stack(taken, dim=1), torch.stack(learnt, dim=1))
    assert list(terms) == ["pkd_patience"]
    assert terms["pkd_patience"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("student", "teacher", "strategy", "expected"),
    [
        (6, 12, "skip", [2, 4, 6, 8, 10]),
        (6, 12, "last", [7, 8, 9, 10, 11]),
        (3, 12, "skip", [4, 8]),
        (3, 12, "last", [10, 11]),
        (6, 24, "skip", [4, 8, 12, 16, 20]),
        (4, 6, "skip", [2, 3, 5]),
        (4, 6, "last", [3, 4, 5]),
        (3, 3, "skip", [1, 2]),
        (3, 3, "last", [1, 2]),
    ],
)
def test_layers_of_the_strategies(student, teacher, strategy, expected):
    models = [Encoder(tiny(num_hidden_layers=depth)) for depth in (student, teacher)]
    objective = PKDConfig(strategy=strategy).objective(*models)
    assert objective.teacher_activations == [Activation(layer - 1, "output") for layer in expected]
    assert objective.student_activations == [Activation(layer, "output") for layer in range(student - 1)]


def test_padding_anywhere_changes_nothing():
    found = []
    for side, width in (("right", 9), ("right", 13), ("left", 12)):
        inputs = batch(side=side, pad_to=width)
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        found.append(terms_of(PKDConfig(), tiny(seed=1), tiny(), inputs)["pkd_patience"].item())
    assert found == pytest.approx([found[0]] * 3, rel=1e-4)


def test_families_may_differ_and_equal_models_have_no_loss():
    assert terms_of(PKDConfig(), tiny("distilbert"), tiny("mpnet"), batch())["pkd_patience"] > 0
    assert terms_of(PKDConfig(), tiny("albert"), tiny("albert"), batch())["pkd_patience"] < 1e-10


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_training_beside_task_distillation_lowers_the_loss(tmp_path, tokenizer, family):
    teacher = tiny(family)
    config = [TaskDistillationConfig(soft_weight=0.7, hard_weight=0.3, temperature=10.0), PKDConfig(beta=1.0)]
    trainer = make(tmp_path, tokenizer, create_student(teacher, 2), teacher, config, max_steps=30)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert {"soft_labels", "hard_labels", "pkd_patience"} <= set(steps[0])
    terms = [entry["pkd_patience"] for entry in steps]
    assert sum(terms[-5:]) < 0.5 * sum(terms[:5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0}, "beta: 0; allowed: above 0"),
        ({"beta": float("inf")}, "beta: inf"),
        ({"strategy": "first"}, "strategy: first; allowed: skip, last"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        PKDConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "student", "message"),
    [
        ({}, Shape(3, 24, 4, 64), "hidden_size: 24; allowed: 48, the teacher's"),
        ({}, Shape(1, 48, 4, 64), "num_hidden_layers: 1; allowed: 2 or more"),
        ({}, Shape(7, 48, 4, 64), "num_hidden_layers: 7; allowed: up to 6"),
        ({"layers": (1,)}, Shape(3, 48, 4, 64), r"layers: \[1\]; allowed: 2 numbers from 1 to 6"),
        ({"layers": (0, 6)}, Shape(3, 48, 4, 64), r"layers: \[0, 6\]; allowed: 2 numbers from 1 to 6"),
    ],
)
def test_settings_are_checked_against_the_models(settings, student, message):
    with pytest.raises(ValueError, match=message):
        PKDConfig(**settings).check_shapes(student, Shape(6, 48, 4, 64))


def test_the_objective_is_checked_too():
    with pytest.raises(ValueError, match="hidden_size: 16; allowed: 32"):
        PKDConfig().objective(Encoder(tiny(hidden_size=16)), Encoder(tiny()))
    with pytest.raises(ValueError, match="teacher_model: None"):
        PKDConfig().objective(Encoder(tiny()), None)
