import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, DataCollatorForLanguageModeling

from edgemin_hf import DistilBERTConfig, create_student
from edgemin_hf.distillation.distilbert import masked_lm_loss, token_kl
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.hooks import record
from tests.helpers.models import FAMILIES, batch, spread, tiny
from tests.helpers.training import dataset, make


def masked_lm(family="bert", seed=0, **changes):
    return tiny(family, seed, head=AutoModelForMaskedLM, **changes)


def inputs_with_labels():
    inputs = batch()
    labels = torch.full_like(inputs["input_ids"], -100)
    for row, column in ((0, 1), (0, 5), (1, 2), (2, 8)):
        labels[row, column] = inputs["input_ids"][row, column]
    return {**inputs, "labels": labels}


def log_softmax(row):
    row = row - row.max()
    return row - np.log(np.exp(row).sum())


def formula(student, teacher, hidden, inputs, config):
    """The three losses in float64, token by token."""
    mask, labels = inputs["attention_mask"].numpy(), inputs["labels"].numpy()
    soft, mlm, cosine = [], [], []
    for example in range(len(mask)):
        tokens = {"soft": [], "mlm": [], "cosine": []}
        for place in np.flatnonzero(mask[example]):
            s, t = (side[example, place].double().numpy() for side in (student, teacher))
            if not config.masked_only or labels[example, place] != -100:
                log_s, log_t = log_softmax(s / config.temperature), log_softmax(t / config.temperature)
                tokens["soft"].append(config.temperature**2 * (np.exp(log_t) * (log_t - log_s)).sum())
            if labels[example, place] != -100:
                tokens["mlm"].append(-log_softmax(s)[labels[example, place]])
            a, b = (side[example, place].double().numpy() for side in hidden)
            tokens["cosine"].append(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for found, name in ((soft, "soft"), (mlm, "mlm"), (cosine, "cosine")):
            found.append(np.mean(tokens[name]) if tokens[name] else 0.0)
    weights = (config.soft_weight, config.mlm_weight, config.cosine_weight)
    return [weight * np.mean(found) for weight, found in zip(weights, (soft, mlm, cosine), strict=True)]


def terms_of(config, student, teacher, inputs):
    objective = config.objective(Encoder(student), Encoder(teacher))
    arguments = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        ours = record(student, objective.student_activations, objective.needs_student_logits, arguments)
        theirs = record(teacher, objective.teacher_activations, objective.needs_teacher_logits, arguments)
        return objective(ours, theirs, inputs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("masked_only", [False, True])
def test_terms_equal_the_formulas(family, masked_only):
    student, teacher, inputs = masked_lm(family, 1, num_hidden_layers=2), masked_lm(family), inputs_with_labels()
    config = DistilBERTConfig(temperature=3.0, masked_only=masked_only)
    terms = terms_of(config, student, teacher, inputs)
    logits, hidden = [], []
    with torch.no_grad():
        for model in (student, teacher):
            arguments = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            logits.append(model(**arguments).logits)
            hidden.append(model.base_model(**arguments)[0])
    expected = formula(*logits, hidden, inputs, config)
    assert list(terms) == ["distilbert_soft", "distilbert_mlm", "distilbert_cosine"]
    assert [term.item() for term in terms.values()] == pytest.approx(expected, rel=3e-4)


def test_padding_anywhere_changes_nothing_and_identical_logits_have_no_loss():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, 9, 100, generator=generator) for _ in range(2))
    inputs = inputs_with_labels()
    mask, labels, places = inputs["attention_mask"].bool(), inputs["labels"], [0, 2, 3, 5, 6, 7, 9, 10, 12]
    wide_mask = spread(mask, places, 14) & torch.zeros(14, dtype=torch.bool).index_fill(0, torch.tensor(places), True)
    wide_labels = torch.full((3, 14), -100)
    wide_labels[:, places] = labels
    wide = spread(student, places, 14)
    expected = token_kl(student, teacher, mask, 2.0).item()
    assert token_kl(wide, spread(teacher, places, 14), wide_mask, 2.0).item() == pytest.approx(expected, rel=1e-6)
    assert masked_lm_loss(wide, wide_labels).item() == pytest.approx(masked_lm_loss(student, labels).item(), rel=1e-6)
    assert abs(token_kl(student, student, mask, 2.0).item()) < 1e-7
    assert masked_lm_loss(student, torch.full_like(labels, -100)).item() == 0


def test_terms_of_no_weight_are_left_out_and_nothing_is_read_for_them():
    student, teacher = masked_lm(hidden_size=16), masked_lm()
    config = DistilBERTConfig(cosine_weight=0, soft_weight=0)
    assert list(terms_of(config, student, teacher, inputs_with_labels())) == ["distilbert_mlm"]
    objective = DistilBERTConfig(soft_weight=0, mlm_weight=0).objective(Encoder(teacher), Encoder(masked_lm()))
    assert not objective.needs_student_logits
    assert not objective.needs_teacher_logits


def test_training_lowers_the_loss_and_needs_masked_tokens(tmp_path, tokenizer):
    teacher = masked_lm(pad_token_id=0)
    student = create_student(teacher, 2)
    assert type(student) is type(teacher)
    trainer = make(tmp_path, tokenizer, student, teacher, DistilBERTConfig(), dataset(labels=False), max_steps=30)
    trainer.data_collator = DataCollatorForLanguageModeling(tokenizer, seed=0)
    trainer.train()
    distances = [entry["distilbert_cosine"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(distances[-5:]) < 0.6 * sum(distances[:5])
    without = make(tmp_path, tokenizer, create_student(teacher, 2), teacher, DistilBERTConfig(), dataset(labels=False))
    with pytest.raises(ValueError, match=r"mlm_weight: 2\.0 without labels"):
        without.train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"soft_weight": -1}, "soft_weight: -1"),
        ({"soft_weight": 0, "mlm_weight": 0, "cosine_weight": 0}, "at least one above 0"),
        ({"temperature": 0}, "temperature: 0; allowed: above 0"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DistilBERTConfig(**settings)


def test_settings_are_checked_against_the_models():
    headless = AutoModel.from_config(tiny().config)
    with pytest.raises(ValueError, match="teacher_model: BertModel, which has no masked-LM head"):
        DistilBERTConfig().objective(Encoder(masked_lm()), Encoder(headless))
    with pytest.raises(ValueError, match="model: BertForSequenceClassification, "):
        DistilBERTConfig().objective(Encoder(tiny()), Encoder(masked_lm()))
    with pytest.raises(ValueError, match="hidden_size: 24; allowed: 48"):
        DistilBERTConfig().check_shapes(Shape(3, 24, 4, 64), Shape(6, 48, 4, 64))
    with pytest.raises(ValueError, match="teacher_model: None"):
        DistilBERTConfig().objective(Encoder(masked_lm()), None)
