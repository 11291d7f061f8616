import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from edgemin_hf import PruningConfig, TaskDistillationConfig, TinyBERTConfig, create_student
from edgemin_hf.distillation.common import hidden_loss
from edgemin_hf.distillation.tinybert import attention_loss
from edgemin_hf.modeling.attention import FAR_AWAY, attention_scores
from edgemin_hf.modeling.encoder import EMBEDDINGS, Activation, Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.hooks import record
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.tasks.text_classification import TextClassification
from edgemin_hf.utils.compat import group_by_length
from tests.helpers.formulas import mask_of
from tests.helpers.models import FAMILIES, batch, spread, tiny
from tests.helpers.training import assert_same, dataset, make, weights

LENGTHS = (7, 4, 9)
PLACES = [0, 2, 3, 5, 6, 7, 9, 10, 12]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(ours, theirs, seed=0):
    projection = nn.Linear(ours, theirs).double()
    with torch.no_grad():
        projection.weight.copy_(random(theirs, ours, seed=seed))
        projection.bias.copy_(random(theirs, seed=seed + 1))
    return projection


def hidden_by_formula(student, teacher, projection, mask):
    """Equations 8 and 9 in float64, one token at a time; padding is cut away first."""
    weight, bias = (tensor.detach().double().numpy() for tensor in (projection.weight, projection.bias))
    examples = []
    for example in range(len(mask)):
        errors = []
        for place in np.flatnonzero(mask[example].numpy()):
            h_s, h_t = (side[example, place].detach().double().numpy() for side in (student, teacher))
            errors.append(np.mean((weight @ h_s + bias - h_t) ** 2))
        examples.append(np.mean(errors))
    return np.mean(examples)


def attention_by_formula(student, teacher, mask):
    """Equation 7 in float64, one head at a time; padding is cut away first."""
    examples = []
    for example in range(len(mask)):
        real = np.flatnonzero(mask[example].numpy())
        heads = []
        for head in range(student.shape[1]):
            a_s, a_t = (side[example, head].detach().double().numpy()[real][:, real] for side in (student, teacher))
            far = (a_s < -5000) | (a_t < -5000)
            heads.append(np.mean((np.where(far, 0, a_s) - np.where(far, 0, a_t)) ** 2))
        examples.append(np.mean(heads))
    return np.mean(examples)


def test_hidden_loss_equals_the_formula_whatever_padding_and_order():
    student, teacher, mask, projection = (
        random(3, 9, 6),
        random(3, 9, 10, seed=1),
        mask_of(LENGTHS).bool(),
        linear(6, 10),
    )
    loss = hidden_loss(student, teacher, projection, mask).item()
    assert loss == pytest.approx(hidden_by_formula(student, teacher, projection, mask), rel=1e-12)
    wide_mask = torch.zeros(3, 14, dtype=torch.bool)
    wide_mask[:, PLACES] = mask
    wide = hidden_loss(spread(student, PLACES, 14), spread(teacher, PLACES, 14), projection, wide_mask).item()
    assert wide == pytest.approx(loss, rel=1e-12)
    assert hidden_loss(student.flip(0), teacher.flip(0), projection, mask.flip(0)).item() == pytest.approx(loss)
    exact = projection(student).detach()
    assert hidden_loss(student, exact, projection, mask).item() == 0


def test_attention_loss_equals_the_formula_whatever_padding_and_order():
    student, teacher, mask = random(3, 2, 9, 9), random(3, 2, 9, 9, seed=1), mask_of(LENGTHS).bool()
    student[:, :, 1, 3] = teacher[:, 0, 5, 2] = FAR_AWAY
    loss = attention_loss(student, teacher, mask).item()
    assert loss == pytest.approx(attention_by_formula(student, teacher, mask), rel=1e-12)
    wide_mask = torch.zeros(3, 14, dtype=torch.bool)
    wide_mask[:, PLACES] = mask
    wide = [
        spread(spread(side.flatten(0, 1), PLACES, 14).transpose(1, 2), PLACES, 14).transpose(1, 2).unflatten(0, (3, 2))
        for side in (student, teacher)
    ]
    assert attention_loss(*wide, wide_mask).item() == pytest.approx(loss, rel=1e-12)
    assert attention_loss(student.flip(0), teacher.flip(0), mask.flip(0)).item() == pytest.approx(loss, rel=1e-12)
    assert attention_loss(student, student, mask).item() == 0
    with pytest.raises(ValueError, match=r"scores of shape \[3, 1, 9, 9\]; allowed: \[3, 2, 9, 9\]"):
        attention_loss(student[:, :1], teacher, mask)


def test_gradients_reach_the_student_and_the_projection_alone():
    mask, projection = mask_of((3, 2)).bool(), linear(3, 4)
    states, targets = random(2, 3, 3).requires_grad_(), random(2, 3, 4, seed=1).requires_grad_()

    def hidden(states, weight, bias):
        return torch.func.functional_call(
            Hidden(projection), {"m.weight": weight, "m.bias": bias}, (states, targets, mask)
        )

    assert torch.autograd.gradcheck(hidden, (states, projection.weight, projection.bias))
    scores, wanted = random(2, 2, 3, 3).requires_grad_(), random(2, 2, 3, 3, seed=1).requires_grad_()
    with torch.no_grad():
        scores[0, 0, 0, 2] = FAR_AWAY
    assert torch.autograd.gradcheck(lambda scores: attention_loss(scores, wanted, mask), scores)
    (hidden_loss(states, targets, projection, mask) + attention_loss(scores, wanted, mask)).backward()
    assert targets.grad is None
    assert wanted.grad is None
    assert scores.grad[1, :, 2].abs().max() == 0, "padding gets no gradient"
    assert states.grad[1, 2].abs().max() == 0


class Hidden(nn.Module):
    """`hidden_loss` as a module, so that its projection's parameters can be arguments."""

    def __init__(self, projection):
        super().__init__()
        self.m = projection

    def forward(self, states, targets, mask):
        return hidden_loss(states, targets, self.m, mask)


def terms_of(config, student, teacher, inputs):
    objective = config.objective(Encoder(student), Encoder(teacher))
    recordings = [
        record(model, activations, logits=False, inputs=inputs)
        for model, activations in ((student, objective.student_activations), (teacher, objective.teacher_activations))
    ]
    return objective(*recordings, inputs), objective


def states(model, inputs):
    """Embeddings and the output of each layer, as the model itself gives them."""
    with torch.no_grad():
        output = model.base_model(**inputs, output_hidden_states=True)
    return [*output.hidden_states[:-1], output.last_hidden_state]


def scores(model, inputs, layer):
    with torch.no_grad():
        found = record(model, [Activation(layer, "q"), Activation(layer, "k")], logits=False, inputs=inputs).activations
        return attention_scores(Encoder(model), layer, found[Activation(layer, "q")], found[Activation(layer, "k")])


@pytest.mark.parametrize("family", FAMILIES)
def test_terms_are_the_formulas_on_the_models_own_tensors(family):
    narrow = {"dim": 16} if family == "distilbert" else {"hidden_size": 16}
    student, teacher, inputs = tiny(family, 1, num_hidden_layers=2, **narrow), tiny(family), batch((20, 13, 7))
    config = TinyBERTConfig(embedding_weight=0.5, hidden_weight=2.0, attention_weight=0.1, layers=(3, 1))
    terms, objective = terms_of(config, student, teacher, inputs)
    ours, theirs, mask = states(student, inputs), states(teacher, inputs), inputs["attention_mask"]
    pairs = [(1, 3), (2, 1)]
    hidden = sum(hidden_by_formula(ours[a], theirs[b], objective.projections, mask) for a, b in pairs)
    maps = [(scores(student, inputs, a - 1), scores(teacher, inputs, b - 1)) for a, b in pairs]
    expected = {
        "tinybert_embedding": 0.5 * hidden_by_formula(ours[0], theirs[0], objective.projections, mask),
        "tinybert_hidden": 2.0 * hidden,
        "tinybert_attention": 0.1 * sum(attention_by_formula(*pair, mask) for pair in maps),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_attention_scores_are_those_of_queries_and_keys_by_hand():
    student, teacher, inputs = tiny(seed=1), tiny(), batch()
    terms, _ = terms_of(TinyBERTConfig(0, 0, 1.0), student, teacher, inputs)
    maps = []
    for model in (student, teacher):
        maps.append([])
        for hidden, layer in zip(states(model, inputs), model.bert.encoder.layer, strict=False):
            attention = layer.attention.self
            q, k = (part(hidden).view(3, 9, 4, 8).transpose(1, 2) for part in (attention.query, attention.key))
            maps[-1].append(q @ k.transpose(2, 3) / 8**0.5)
    expected = sum(attention_by_formula(s, t, inputs["attention_mask"]) for s, t in zip(*maps, strict=True))
    assert terms["tinybert_attention"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("families", [("bert", "modernbert"), ("modernbert", "bert"), ("albert", "mpnet")])
def test_families_may_differ(families):
    student, teacher, inputs = tiny(families[0], 1, num_hidden_layers=2), tiny(families[1]), batch((20, 13, 7))
    terms, objective = terms_of(TinyBERTConfig(), student, teacher, inputs)
    maps = [(scores(student, inputs, a), scores(teacher, inputs, b)) for a, b in enumerate(objective.layers)]
    expected = sum(attention_by_formula(*pair, inputs["attention_mask"]) for pair in maps)
    assert terms["tinybert_attention"].item() == pytest.approx(expected, rel=1e-4)
    assert terms["tinybert_attention"] < 1e4, "a window costs nothing"
    sum(terms.values()).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_layers_are_evenly_spaced_unless_named():
    def layers(depth, **settings):
        objective = TinyBERTConfig(**settings).objective(Encoder(tiny(num_hidden_layers=depth)), Encoder(deep))
        return objective.layers

    deep = tiny(num_hidden_layers=12)
    assert layers(4) == [2, 5, 8, 11]
    assert layers(6) == [1, 3, 5, 7, 9, 11]
    assert layers(2, layers=[1, 6]) == [0, 5]


def test_equal_models_have_no_loss_and_a_batch_may_be_cut():
    inputs = batch()
    terms, objective = terms_of(TinyBERTConfig(), tiny(), tiny(), inputs)
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    student = tiny(seed=1)
    whole, _ = terms_of(TinyBERTConfig(), student, tiny(), inputs)
    parts = [
        terms_of(TinyBERTConfig(), student, tiny(), {k: v[i : i + 1] for k, v in inputs.items()})[0] for i in range(3)
    ]
    for name, term in whole.items():
        assert np.mean([part[name].item() for part in parts]) == pytest.approx(term.item(), rel=1e-5)
    assert isinstance(objective.projections, nn.Linear)


def test_a_projection_follows_the_seed_and_the_widths():
    def projection(seed, **changes):
        torch.manual_seed(seed)
        return TinyBERTConfig(**changes).objective(student, teacher).projections

    student, teacher = Encoder(tiny(hidden_size=16)), Encoder(tiny())
    assert projection(0).weight.shape == (32, 16)
    assert torch.equal(projection(0).weight, projection(0).weight)
    assert not torch.equal(projection(0).weight, projection(1).weight)
    assert projection(0, embedding_weight=0, hidden_weight=0) is None


def test_a_weight_of_zero_reads_no_tensor():
    def names(**settings):
        objective = TinyBERTConfig(**settings).objective(Encoder(tiny(num_hidden_layers=1)), Encoder(tiny()))
        return objective.student_activations, objective.teacher_activations

    embeddings = Activation(EMBEDDINGS, "output")
    assert names(hidden_weight=0, attention_weight=0) == ([embeddings], [embeddings])
    assert names(embedding_weight=0, attention_weight=0) == ([Activation(0, "output")], [Activation(2, "output")])
    assert names(embedding_weight=0, hidden_weight=0) == (
        [Activation(0, "q"), Activation(0, "k")],
        [Activation(2, "q"), Activation(2, "k")],
    )
    terms, _ = terms_of(TinyBERTConfig(embedding_weight=0, attention_weight=0), tiny(seed=1), tiny(), batch())
    assert list(terms) == ["tinybert_hidden"]


def test_lower_precision_of_the_models_is_not_that_of_the_loss():
    student, teacher, inputs = tiny(seed=1), tiny(), batch()
    exact, _ = terms_of(TinyBERTConfig(), student, teacher, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = terms_of(TinyBERTConfig(), student, teacher, inputs)
    half, _ = terms_of(TinyBERTConfig(), student.bfloat16(), teacher.bfloat16(), inputs)
    for name, term in exact.items():
        for other in (rough, half):
            assert other[name].dtype == torch.float32
            assert other[name].item() == pytest.approx(term.item(), rel=0.1)


@pytest.mark.long
@pytest.mark.parametrize("pair", [("bert", "bert"), ("albert", "albert"), ("distilbert", "deberta-v2")])
def test_training_lowers_every_term(tmp_path, tokenizer, pair):
    narrow = {"dim": 16} if pair[0] == "distilbert" else {"hidden_size": 16}
    student, teacher = tiny(pair[0], 1, num_hidden_layers=2, **narrow), tiny(pair[1])
    rows = dataset(8, labels=False)
    trainer = make(
        tmp_path, tokenizer, student, teacher, TinyBERTConfig(), rows, rows, max_steps=40, learning_rate=1e-2
    )  # fmt: skip
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.8 * before["eval_loss"]
    names = [f"eval_tinybert_{kind}" for kind in ("embedding", "hidden", "attention")]
    assert sum(after[name] for name in names) == pytest.approx(after["eval_loss"], rel=1e-4)
    for name in names:
        assert after[name] < before[name]


def test_the_projection_is_trained_and_no_part_of_the_student(tmp_path, tokenizer):
    student = tiny(hidden_size=16)
    trainer = make(tmp_path, tokenizer, student, config=TinyBERTConfig(), data=dataset(labels=False))
    before = trainer.objectives[0].projections.weight.clone()
    names = set(student.state_dict())
    trainer.train()
    assert not torch.equal(trainer.objectives[0].projections.weight, before)
    assert set(student.state_dict()) == names
    trainer.save_model(tmp_path / "saved")
    _, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]


def test_resumed_equals_uninterrupted(tmp_path, tokenizer):
    def trainer(folder):
        model = tiny(hidden_size=16)
        return make(
            folder, tokenizer, model, config=TinyBERTConfig(), max_steps=8, save_strategy="steps", save_steps=3,
            **group_by_length(), data=dataset(labels=False),
        )  # fmt: skip

    whole, resumed = trainer(tmp_path / "whole"), trainer(tmp_path / "resumed")
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert_same(weights(resumed), weights(whole))
    assert_same(*(trainer.objectives[0].projections.state_dict() for trainer in (resumed, whole)))


def test_the_prediction_layer_is_task_distillation(tmp_path, tokenizer):
    logits, target = random(5, 4).requires_grad_(), random(5, 4, seed=1)
    (ours,) = torch.autograd.grad(TextClassification.soft_loss(logits, target, 1.0), logits)
    (paper,) = torch.autograd.grad(F.cross_entropy(logits, target.softmax(dim=-1)), logits)
    torch.testing.assert_close(ours, paper)
    config = [TinyBERTConfig(), TaskDistillationConfig(soft_weight=1, hard_weight=0, temperature=1)]
    trainer = make(tmp_path, tokenizer, config=config, data=dataset(labels=False))
    trainer.train()
    assert {"tinybert_hidden", "soft_labels"} <= set(trainer.state.log_history[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_weight": -1}, "hidden_weight: -1; allowed: 0 or more"),
        ({"attention_weight": float("nan")}, "attention_weight: nan"),
        ({"embedding_weight": 0, "hidden_weight": 0, "attention_weight": 0}, "at least one above 0"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TinyBERTConfig(**settings)


def test_settings_are_checked_against_the_models(tmp_path, tokenizer):
    student, teacher = Shape(2, 24, 2, 64), Shape(6, 48, 4, 64)
    with pytest.raises(ValueError, match="num_attention_heads: 2; allowed: 4, "):
        TinyBERTConfig().check_shapes(student, teacher)
    TinyBERTConfig(attention_weight=0, layers=(2, 6)).check_shapes(student, teacher)
    for layers in ((2,), (0, 6), (2, 7)):
        with pytest.raises(ValueError, match=r"layers: \[.*\]; allowed: 2 numbers, .* from 1 to 6"):
            TinyBERTConfig(attention_weight=0, layers=layers).check_shapes(student, teacher)
    with pytest.raises(ValueError, match="num_attention_heads: 2; allowed: 4"):
        TinyBERTConfig().objective(Encoder(tiny(num_attention_heads=2)), Encoder(tiny()))
    relative = BertModel(BertConfig(**{**tiny().config.to_dict(), "position_embedding_type": "relative_key"}))
    with pytest.raises(ValueError, match="position_embedding_type"):
        TinyBERTConfig().objective(Encoder(tiny()), Encoder(relative))
    TinyBERTConfig(attention_weight=0).objective(Encoder(tiny()), Encoder(relative))
    with pytest.raises(ValueError, match="teacher_model: None"):
        TinyBERTConfig().objective(Encoder(tiny()), None)
    pruned = make(tmp_path, tokenizer, config=TinyBERTConfig(), pruning_config=PruningConfig(0.5))
    with pytest.raises(ValueError, match="scores of shape"):
        pruned.train()


def test_heads_that_are_left_are_compared():
    student, teacher = create_student(tiny(), 2), tiny()
    remove(student, Selection([[1, 2, 3]] * 2, [range(64)] * 2))
    with pytest.raises(ValueError, match="num_attention_heads: 3; allowed: 4"):
        TinyBERTConfig().objective(Encoder(student), Encoder(teacher))
    remove(teacher, Selection([range(4), [0, 1, 3], [0, 1, 2]], [range(64)] * 3))
    terms, _ = terms_of(TinyBERTConfig(), student, teacher, batch())
    assert terms["tinybert_attention"] > 0
