import pytest
import torch

from edgemin_hf import MiniLMv2Config, minilmv2_loss
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.hooks import record
from tests.helpers.formulas import mask_of, projections, reference
from tests.helpers.models import batch, tiny

PAIRS = ("qq", "kk", "vv", "qk", "kq", "qv")


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize(("relations", "weights"), [(("qq", "kk", "vv"), None), (PAIRS, [1, 0.5, 2, 0, 3, 0.1])])
def test_equals_the_formula(heads, relations, weights):
    student, teacher, mask = projections(16), projections(48, seed=1), mask_of()
    loss = minilmv2_loss(student, teacher, mask, heads, relations, weights)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(reference(student, teacher, mask, heads, relations, weights), rel=1e-12)


def test_equals_the_formula_in_float32_and_with_large_scores():
    student, teacher = ({k: 20 * v for k, v in projections(16, seed=s).items()} for s in (0, 1))
    expected = reference(student, teacher, mask_of(), 4)
    single = [{name: value.float() for name, value in side.items()} for side in (student, teacher)]
    assert minilmv2_loss(*single, mask_of(), 4).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype):
    student, teacher = projections(16, dtype=dtype), projections(16, seed=1, dtype=dtype)
    loss = minilmv2_loss(student, teacher, mask_of(), 4)
    exact = [{name: value.double() for name, value in side.items()} for side in (student, teacher)]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference(*exact, mask_of(), 4), rel=1e-6)


def test_autocast_changes_nothing():
    student, teacher = projections(16, dtype=torch.float32), projections(16, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = minilmv2_loss(student, teacher, mask_of(), 4)
    assert inside.item() == minilmv2_loss(student, teacher, mask_of(), 4).item()


def test_padding_anywhere_changes_nothing():
    lengths = (7, 4, 9)
    student, teacher, mask = projections(16), projections(32, seed=1), mask_of(lengths)
    expected = minilmv2_loss(student, teacher, mask, 4)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(3)).sort().values
    places = order[torch.randperm(15, generator=torch.Generator().manual_seed(4))[:9].sort().values]

    def scatter(tensor):
        wide = torch.full((3, 15, tensor.shape[2]), 1e3, dtype=tensor.dtype)
        wide[:, places] = tensor
        return wide

    wide_mask = torch.zeros(3, 15, dtype=torch.long)
    wide_mask[:, places] = mask
    wide = [{name: scatter(value) for name, value in side.items()} for side in (student, teacher)]
    assert minilmv2_loss(*wide, wide_mask, 4).item() == pytest.approx(expected.item(), rel=1e-12)


def test_zero_for_identical_inputs_positive_otherwise_and_free_of_order():
    student, teacher, mask = projections(16), projections(16, seed=1), mask_of()
    assert abs(minilmv2_loss(student, student, mask, 4).item()) < 1e-15
    loss = minilmv2_loss(student, teacher, mask, 4)
    assert loss > 0
    flipped = [{name: value.flip(0) for name, value in side.items()} for side in (student, teacher)]
    assert minilmv2_loss(*flipped, mask.flip(0), 4).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("relations", [("qq", "kk", "vv"), ("qk", "vq")])
def test_gradient(relations):
    student, teacher, mask = projections(8, (4, 3)), projections(16, (4, 3), seed=1), mask_of((4, 3))
    leaves = [student[name].requires_grad_() for name in "qkv"]

    def loss(q, k, v):
        return minilmv2_loss({"q": q, "k": k, "v": v}, teacher, mask, 2, relations, [1.0, 0.5, 2.0][: len(relations)])

    assert torch.autograd.gradcheck(loss, leaves)
    minilmv2_loss(dict(zip("qkv", leaves, strict=True)), teacher, mask, 2, relations).backward()
    for leaf in leaves:
        assert leaf.grad[1, 3].abs().max() == 0, "padding gets no gradient"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_mask": torch.zeros(3, 9)}, "no real token"),
        ({"attention_mask": torch.ones(3, 8)}, "projection of shape"),
        ({"relation_heads": 5}, "divisor of the width"),
        ({"relation_heads": 0}, "divisor of the width"),
        ({"relations": ("qx",)}, "relations"),
        ({"relations": ()}, "relations"),
        ({"weights": (1.0,)}, "weights"),
        ({"weights": (1.0, -1.0, 1.0)}, "weights"),
    ],
)
def test_impossible_arguments(change, message):
    arguments = {"student": projections(16), "teacher": projections(32, seed=1), "attention_mask": mask_of()}
    with pytest.raises(ValueError, match=message):
        minilmv2_loss(**{**arguments, "relation_heads": 4, **change})


def test_objective_compares_the_projections_that_the_models_compute():
    teacher, student = tiny(), tiny(seed=1, num_hidden_layers=2)
    inputs = batch()
    config = MiniLMv2Config(teacher_layer=2, relation_heads=8, weights=(1.0, 2.0, 3.0))
    objective = config.objective(Encoder(student), Encoder(teacher))
    recordings = [
        record(model, activations, logits=False, inputs=inputs)
        for model, activations in ((student, objective.student_activations), (teacher, objective.teacher_activations))
    ]
    terms = objective(*recordings, inputs)
    assert list(terms) == ["minilmv2_qq", "minilmv2_kk", "minilmv2_vv"]

    def by_hand(model, layer):
        hidden = model(**inputs, output_hidden_states=True).hidden_states[layer - 1]
        attention = model.bert.encoder.layer[layer - 1].attention.self
        names = {"q": attention.query, "k": attention.key, "v": attention.value}
        return {name: module(hidden).detach() for name, module in names.items()}

    expected = reference(by_hand(student, 2), by_hand(teacher, 2), inputs["attention_mask"], 8, weights=[1, 2, 3])
    assert sum(terms.values()).item() == pytest.approx(expected, rel=1e-5)


def test_settings_are_checked_against_the_models():
    student, teacher = Shape(3, 24, 4, 64), Shape(6, 48, 4, 64)
    MiniLMv2Config(teacher_layer=6, relation_heads=12).check_shapes(student, teacher)
    with pytest.raises(ValueError, match="teacher_layer: 7; allowed: 1 to 6"):
        MiniLMv2Config(teacher_layer=7, relation_heads=12).check_shapes(student, teacher)
    with pytest.raises(ValueError, match=r"relation_heads: 48; allowed: .* 24"):
        MiniLMv2Config(relation_heads=48).check_shapes(student, teacher)
    with pytest.raises(ValueError, match="teacher_model"):
        MiniLMv2Config().objective(Encoder(tiny()), None)
