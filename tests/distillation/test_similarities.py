import numpy as np
import pytest
import torch

from edgemin_hf import SimilaritiesConfig, create_student
from edgemin_hf.distillation.principal import cached_principal_outputs, on_directions, principal_directions
from edgemin_hf.distillation.similarities import similarity_loss
from edgemin_hf.distillation.token_outputs import TokenOutputs
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Recording
from tests.helpers.models import tiny
from tests.modeling.test_embedder import embedder


def random(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_formula(student, teacher, comparison, temperature):
    """One text and one other at a time."""
    total, count = 0.0, len(student)
    for i in range(count):
        sides = []
        for vectors in (student.numpy(), teacher.numpy()):
            lengths = np.linalg.norm(vectors, axis=1)
            sides.append(np.array([vectors[i] @ vectors[j] / lengths[i] / lengths[j] for j in range(count) if j != i]))
        if comparison == "mse":
            total += ((sides[0] - sides[1]) ** 2).mean() / count
        else:
            s, t = (np.exp(side / temperature) / np.exp(side / temperature).sum() for side in sides)
            total += (t * np.log(t / s)).sum() / count
    return total


@pytest.mark.parametrize("comparison", ["kl", "mse"])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_loss_equals_the_formula(comparison, temperature):
    student, teacher = random(0, 5, 8), random(1, 5, 12)
    loss = similarity_loss(student, teacher, comparison, temperature)
    assert loss.item() == pytest.approx(by_formula(student, teacher, comparison, temperature), rel=1e-10)
    assert abs(similarity_loss(teacher, 3 * teacher, comparison, temperature).item()) < 1e-14
    turned = teacher @ torch.linalg.qr(random(2, 12, 12)).Q
    assert abs(similarity_loss(turned, teacher, comparison, temperature).item()) < 1e-14
    order = torch.tensor([3, 1, 4, 0, 2])
    again = similarity_loss(student[order], teacher[order], comparison, temperature)
    assert again.item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("comparison", ["kl", "mse"])
def test_a_text_alone_is_like_nothing_and_gradients_are_right(comparison):
    student = random(0, 1, 8).requires_grad_()
    loss = similarity_loss(student, random(1, 1, 12), comparison)
    assert loss.item() == 0
    loss.backward()
    student, teacher = random(0, 4, 6).requires_grad_(), random(1, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: similarity_loss(s, teacher.detach(), comparison, 0.5), (student,))
    similarity_loss(student, teacher, comparison).backward()
    assert teacher.grad is None


def test_prefixes_are_compared_with_the_whole_teacher():
    teacher = embedder()
    student = create_student(teacher, 1, hidden_size=16, num_attention_heads=2, embedding_width=16)
    student.config.sentence_embedding["dimensions"] = [8, 4]
    objective = SimilaritiesConfig("mse").objective(Encoder(student), Encoder(teacher))
    ours, theirs = random(0, 5, 16), random(1, 5, 32)
    found = objective(Recording(logits=ours), Recording(logits=theirs), {})["similarities"]
    expected = sum(similarity_loss(ours[:, :width], theirs, "mse") for width in (16, 8, 4))
    torch.testing.assert_close(found, expected)
    beforehand = objective(Recording(logits=ours), Recording(), {"teacher_logits": theirs})["similarities"]
    assert torch.equal(beforehand, found)


def test_bad_settings_and_models_are_named():
    with pytest.raises(ValueError, match="comparison: l1; allowed: kl, mse"):
        SimilaritiesConfig("l1")
    with pytest.raises(ValueError, match="similarity_temperature: 0; allowed: above 0"):
        SimilaritiesConfig(similarity_temperature=0)
    with pytest.raises(ValueError, match="head for regression; allowed: for sentence embedding"):
        SimilaritiesConfig().check_task("regression")
    with pytest.raises(ValueError, match=r"model: BertForSequenceClassification, which gives no vectors; allowed: a"):
        SimilaritiesConfig().objective(Encoder(tiny()), None)
    objective = SimilaritiesConfig().objective(Encoder(embedder()), None)
    with pytest.raises(ValueError, match="similarities without a teacher"):
        objective(Recording(logits=random(0, 2, 4)), Recording(), {})
    with torch.no_grad():
        assert objective(Recording(logits=random(0, 2, 4)), Recording(), {}) == {"similarities": None}


def test_principal_directions_are_those_of_a_singular_value_decomposition():
    vectors = random(0, 200, 12) * torch.linspace(3, 0.1, 12, dtype=torch.float64)
    directions = principal_directions(vectors, 5)
    _, values, rows = np.linalg.svd(vectors.numpy(), full_matrices=False)
    np.testing.assert_allclose(np.abs(directions.numpy().T @ rows[:5].T), np.eye(5), atol=1e-5)
    kept = (vectors @ directions.double()).square().sum() / vectors.square().sum()
    assert kept.item() == pytest.approx((values[:5] ** 2).sum() / (values**2).sum(), rel=1e-5)
    assert (directions.gather(0, directions.abs().argmax(0, keepdim=True)) > 0).all()
    torch.testing.assert_close(principal_directions(vectors, 12)[:, :5], directions)


def test_all_directions_keep_every_cosine_and_fewer_keep_unit_length():
    vectors = torch.nn.functional.normalize(random(0, 50, 12), dim=1)
    whole = on_directions(vectors, principal_directions(vectors, 12), normalized=True)
    torch.testing.assert_close(whole @ whole.T, vectors @ vectors.T, rtol=1e-5, atol=1e-6)
    short = on_directions(vectors.half(), principal_directions(vectors, 4), normalized=True)
    torch.testing.assert_close(short.norm(dim=1), torch.ones(50, dtype=torch.float64))
    with pytest.raises(ValueError, match="directions: 13; allowed: 1 to 12"):
        principal_directions(vectors, 13)


def test_vectors_on_principal_directions_are_kept_on_disk(tmp_path):
    vectors = torch.nn.functional.normalize(random(0, 30, 12), dim=1)
    np.save(tmp_path / "vectors.npy", vectors.half().numpy())
    outputs = TokenOutputs([tmp_path / "vectors.npy"], [1] * 30)

    def kept(count, key):
        return cached_principal_outputs(outputs, 20, count, tmp_path / "principal.npy", key, normalized=True)

    found = kept(4, "a")
    directions = principal_directions(vectors[:20], 4)  # of the rows that are learned from
    expected = on_directions(vectors, directions, normalized=True)
    np.testing.assert_allclose(np.concatenate(found[:]), expected.numpy(), atol=2e-3)
    written = (tmp_path / "principal.npy").stat().st_mtime_ns
    assert kept(4, "a")[7].shape == (1, 4)
    assert (tmp_path / "principal.npy").stat().st_mtime_ns == written
    assert kept(5, "a")[7].shape == (1, 5)
