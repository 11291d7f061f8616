import pytest
import torch
from helpers.formulas import mask_of, projections, reference

from edgemin_hf.distillation.relations import relation_kl


def keys_and_values(width=16, seed=0):
    found = projections(width, seed=seed)
    return found["k"], found["v"]


@pytest.mark.parametrize("heads", [1, 4])
def test_equals_the_formula(heads):
    sides = keys_and_values(), keys_and_values(32, seed=1)
    loss = relation_kl(*sides[0], *sides[1], mask_of().bool(), heads)
    named = [dict(zip("kv", side, strict=True)) for side in sides]
    assert loss.item() == pytest.approx(reference(*named, mask_of(), heads, ("kv",)), rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 2 * 81])
def test_chunks_change_nothing(monkeypatch, chunk):
    student, teacher, mask = keys_and_values(), keys_and_values(seed=1), mask_of().bool()

    def loss_and_gradients():
        leaves = [tensor.clone().requires_grad_() for tensor in student]
        loss = relation_kl(*leaves, *teacher, mask, 8)
        loss.backward()
        return [loss.detach(), *(leaf.grad for leaf in leaves)]

    whole = loss_and_gradients()
    monkeypatch.setattr("edgemin_hf.distillation.relations._CPU_CHUNK", chunk)
    for found, expected in zip(loss_and_gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scale", [1, 20])
def test_float32_has_the_gradients_of_float64(scale):
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = (scale * projections(16, dtype=torch.float32)["q"]).to(dtype).requires_grad_()
        teacher = (scale * projections(48, seed=1, dtype=torch.float32)["q"]).to(dtype)
        relation_kl(leaf, leaf, teacher, teacher, mask_of().bool(), 4).backward()
        found.append(leaf.grad.double())
    assert (found[0] - found[1]).norm() < 1e-6 * found[1].norm()


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
