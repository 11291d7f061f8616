import numpy as np
import pytest
import torch

from edgemin_hf import MiniLMConfig
from edgemin_hf.distillation.minilm import attention_kl
from edgemin_hf.modeling.attention import attention_scores
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.hooks import record
from tests.helpers.formulas import mask_of, reference, terms_of
from tests.helpers.models import FAMILIES, batch, tiny


def scores(seed, heads=4, lengths=(7, 4, 9)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), heads, max(lengths), max(lengths), generator=generator, dtype=torch.float64)


def attention_by_formula(student, teacher, mask):
    """Equation 6, one example, head and row at a time; padding is cut away first."""
    total, (examples, heads) = 0.0, student.shape[:2]
    for example in range(examples):
        real = np.flatnonzero(mask[example].numpy())
        for head in range(heads):
            for row in real:
                maps = [side[example, head, row].numpy()[real] for side in (student, teacher)]
                s, t = (np.exp(m - m.max()) / np.exp(m - m.max()).sum() for m in maps)
                total += (t * np.log(t / s)).sum() / (heads * len(real) * examples)
    return total


def test_attention_loss_equals_the_formula_and_ignores_padding():
    student, teacher, mask = scores(0), scores(1), mask_of().bool()
    loss = attention_kl(student, teacher, mask)
    assert loss.item() == pytest.approx(attention_by_formula(student, teacher, mask), rel=1e-12)
    assert abs(attention_kl(student, student + 3.0, mask).item()) < 1e-15, "softmax knows no constant"
    other = student.clone()
    other.masked_fill_(~mask[:, None, None], 100).masked_fill_(~mask[:, None, :, None], -50)
    assert attention_kl(other, teacher, mask).item() == pytest.approx(loss.item(), rel=1e-12)
    assert attention_kl(student.flip(0), teacher.flip(0), mask.flip(0)).item() == pytest.approx(loss.item(), rel=1e-12)


def test_attention_gradient():
    student = scores(0, 2, (3, 2)).requires_grad_()
    mask = mask_of((3, 2)).bool()
    assert torch.autograd.gradcheck(lambda s: attention_kl(s, scores(1, 2, (3, 2)), mask), student)


@pytest.mark.parametrize("family", FAMILIES)
def test_objective_is_the_formula_on_the_models_own_attention(family):
    # ModernBERT's second layer sees a window alone.
    depth = 3 if family == "modernbert" else 2
    student, teacher, inputs = tiny(family, seed=1, num_hidden_layers=depth), tiny(family), batch()
    terms = terms_of(MiniLMConfig(attention_weight=0.5, value_weight=2.0), student, teacher, inputs)
    maps, values = [], []
    for model, layer in ((student, depth - 1), (teacher, 2)):
        with torch.no_grad():
            found = record(model, [Activation(layer, name) for name in "qkv"], logits=False, inputs=inputs).activations
            scores = attention_scores(
                Encoder(model), layer, found[Activation(layer, "q")], found[Activation(layer, "k")]
            )
        maps.append(scores.double())
        values.append({"v": found[Activation(layer, "v")].double()})
    mask = inputs["attention_mask"]
    assert terms["minilm_attention"].item() == pytest.approx(0.5 * attention_by_formula(*maps, mask), rel=1e-4)
    assert terms["minilm_values"].item() == pytest.approx(2 * reference(*values, mask, 4, ("vv",)), rel=1e-4)


def test_families_may_differ_and_equal_models_have_no_loss():
    inputs = batch()
    terms = terms_of(MiniLMConfig(), tiny("distilbert"), tiny("mpnet"), inputs)
    assert all(term > 0 for term in terms.values())
    assert sum(terms_of(MiniLMConfig(), tiny("mpnet"), tiny("mpnet"), inputs).values()).abs() < 1e-6


def test_a_weight_of_zero_reads_no_tensor():
    objective = MiniLMConfig(attention_weight=0).objective(Encoder(tiny()), Encoder(tiny()))
    assert objective.student_activations == [Activation(2, "v")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention_weight": -1}, "attention_weight: -1"),
        ({"attention_weight": 0, "value_weight": 0}, "at least one above 0"),
        ({"value_weight": float("nan")}, "value_weight: nan"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MiniLMConfig(**settings)


def test_settings_are_checked_against_the_models():
    with pytest.raises(ValueError, match="num_attention_heads: 2; allowed: 4, the teacher's"):
        MiniLMConfig().check_shapes(Shape(3, 24, 2, 64), Shape(6, 48, 4, 64))
    with pytest.raises(ValueError, match="num_attention_heads: 2; allowed: 4"):
        MiniLMConfig().objective(Encoder(tiny(num_attention_heads=2)), Encoder(tiny()))
    with pytest.raises(ValueError, match="num_hidden_layers: 2, whose last layer sees 3 tokens"):
        MiniLMConfig().objective(Encoder(tiny("modernbert", num_hidden_layers=2)), Encoder(tiny("modernbert")))
    with pytest.raises(ValueError, match="teacher_model: None"):
        MiniLMConfig().objective(Encoder(tiny()), None)
