import numpy as np
import pytest
import torch

from edgemin_hf.modeling.factorization import factorize, mean_free_axes


def normalised(sums):
    return (sums - sums.mean(1, keepdims=True)) / sums.std(1, keepdims=True)


def rows_of(tables, ids):
    return sum(tables[name].numpy()[index] for name, index in ids.items())


@pytest.fixture
def tables():
    generator = torch.Generator().manual_seed(0)
    return {
        "word_embeddings": torch.randn(40, 12, generator=generator) * torch.linspace(0.1, 2, 12) + 0.3,
        "position_embeddings": 0.3 * torch.randn(9, 12, generator=generator),
    }


@pytest.fixture
def ids():
    draw = np.random.default_rng(0)
    return {"word_embeddings": draw.integers(40, size=500), "position_embeddings": draw.integers(9, size=500)}


def test_at_full_width_nothing_is_lost(tables, ids):
    new, back = factorize(tables, 12, {})
    expected = normalised(rows_of({name: table.double() for name, table in tables.items()}, ids))
    np.testing.assert_allclose(normalised(rows_of(new, ids)) @ back.numpy().T, expected, atol=1e-9)


def test_narrow_sums_have_mean_0_and_the_directions_of_an_svd_of_all_sums(tables):
    new, back = factorize(tables, 5, {})
    for table in new.values():
        assert table.shape[1] == 5
        assert table.mean(1).abs().max() < 1e-12
    # NumPy's SVD of every sum that there is, each without its mean.
    words, positions = (table.double().numpy() for table in tables.values())
    sums = (words[:, None] + positions[None]).reshape(-1, 12)
    axes = np.linalg.svd(sums - sums.mean(1, keepdims=True), full_matrices=False)[2][:4].T
    ours = back.numpy() @ np.linalg.pinv(back.numpy())
    np.testing.assert_allclose(ours, axes @ axes.T, atol=1e-9)


def test_what_is_counted_is_held_best(tables, ids):
    counts = torch.zeros(40)
    counts[:6] = 1
    ids["word_embeddings"] %= 6
    expected = normalised(rows_of({name: table.double() for name, table in tables.items()}, ids))

    def error(counts):
        new, back = factorize(tables, 7, counts)
        return np.square(normalised(rows_of(new, ids)) @ back.numpy().T - expected).mean()

    known = error({"word_embeddings": counts})
    assert known < 0.8 * error({})
    assert known == error({"word_embeddings": 7 * counts})
    assert error({"word_embeddings": torch.zeros(40)}) == error({})


@pytest.mark.parametrize("width", [1, 2, 7])
def test_axes_of_mean_0(width):
    axes = mean_free_axes(width)
    torch.testing.assert_close(axes.T @ axes, torch.eye(width - 1, dtype=torch.double))
    assert axes.sum(0).abs().max() < 1e-12 if width > 1 else axes.shape == (1, 0)
