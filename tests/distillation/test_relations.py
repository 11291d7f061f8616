import pytest
import torch

from edgemin_hf.distillation.relations import relation_kl
from tests.helpers.formulas import mask_of, projections, reference


def keys_and_values(width=16, seed=0):
    found = projections(width, seed=seed)
    return found["k"], found["v"]


@pytest.mark.parametrize("heads", [1, 4])
def test_equals_the_formula(heads):
    sides = keys_and_values(), keys_and_values(32, seed=1)
    loss = relation_kl(*sides[0], *sides[1], mask_of().bool(), heads)
    named = [dict(zip("kv", side, strict=True)) for side in sides]
    assert loss.item() == pytest.approx(reference(*named, mask_of(), heads, ("kv",)), rel=1e-12)


def dense_kl(student, teacher, lengths, heads):
    """The formula with all maps of an example in one tensor."""
    total = 0.0
    for example, length in enumerate(lengths):
        logs = []
        for side in (student, teacher):
            rows, columns = (tensor[example, :length].unflatten(-1, (heads, -1)).transpose(0, 1) for tensor in side)
            logs.append(torch.log_softmax(rows @ columns.mT / rows.shape[-1] ** 0.5, dim=-1))
        kl = torch.nn.functional.kl_div(*logs, reduction="sum", log_target=True)
        total = total + kl / (heads * length * len(lengths))
    return total


# 2**19 elements of the maps are computed together: those of one head, or of several in two examples.
@pytest.mark.parametrize(("lengths", "heads"), [((800, 790), 2), ((300, 40, 299), 8)])
def test_chunks_change_nothing(lengths, heads):
    student, teacher = ([projections(16, lengths, seed)[name] for name in "kv"] for seed in (0, 1))
    found = []
    for loss_of in (
        lambda leaves: relation_kl(*leaves, *teacher, mask_of(lengths).bool(), heads),
        lambda leaves: dense_kl(leaves, teacher, lengths, heads),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in student]
        loss = loss_of(leaves)
        loss.backward()
        found.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scale", [1, 20])
def test_float32_has_the_gradients_of_float64(scale):
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = (scale * projections(16, dtype=torch.float32)["q"]).to(dtype).requires_grad_()
        teacher = (scale * projections(48, seed=1, dtype=torch.float32)["q"]).to(dtype)
        relation_kl(leaf, leaf, teacher, teacher, mask_of().bool(), 4).backward()
        found.append(leaf.grad.double())
    assert (found[0] - found[1]).norm() < 1e-6 * found[1].norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("columns", ["q", "k"])
def test_a_gradient_is_scaled_before_it_is_rounded_to_half_precision(dtype, columns):
    scale = 2.0**16
    sides = [projections(width, (40, 37), seed, torch.float32) for seed, width in ((0, 16), (1, 48))]
    # Relations that are nearly equal everywhere, and so gradients that are small.
    student, teacher = ({name: (one / 32).to(dtype) for name, one in side.items()} for side in sides)
    found = []
    for precision in (dtype, torch.float64):
        leaves = {name: student[name].detach().to(precision).requires_grad_() for name in ("q", columns)}
        others = (teacher[name].to(precision) for name in ("q", columns))
        loss = relation_kl(leaves["q"], leaves[columns], *others, mask_of((40, 37)).bool(), 4)
        (loss * scale).backward()
        assert all(leaf.grad.dtype == precision for leaf in leaves.values())
        found.append(torch.cat([leaf.grad.double() for leaf in leaves.values()]) / scale)
    assert found[1].abs().mean() < 1e-7
    assert (found[0] - found[1]).norm() < 2 * torch.finfo(dtype).eps * found[1].norm()


def test_gradient_where_rows_are_columns():
    student, teacher, mask = projections(8, (4, 3))["q"], projections(16, (4, 3), seed=1)["q"], mask_of((4, 3)).bool()
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: relation_kl(s, s, teacher, teacher, mask, 2), student)
    relation_kl(student, student, teacher.requires_grad_(), teacher, mask, 2).backward()
    assert teacher.grad is None


def test_what_does_not_fit_is_refused():
    student, teacher, mask = projections(16)["q"], projections(32)["q"], mask_of().bool()
    with pytest.raises(ValueError, match="no real token"):
        relation_kl(student, student, teacher, teacher, torch.zeros_like(mask), 4)
    with pytest.raises(ValueError, match="of shape"):
        relation_kl(student, student[:, 1:], teacher, teacher, mask, 4)
    with pytest.raises(ValueError, match="divisor of the width 32"):
        relation_kl(projections(15)["q"], projections(15)["q"], teacher, teacher, mask, 5)
