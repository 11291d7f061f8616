"""The masked-LM task: losses, what is kept of logits, and both metrics, against references in NumPy."""

from functools import partial
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, BertConfig, EvalPrediction, TrainingArguments

from edgemin_hf import DistillationTrainer, TaskDistillationConfig, create_student
from edgemin_hf.data.masked_rows import IN_TURN
from edgemin_hf.data.padding import PaddingCollator
from edgemin_hf.report.example_text import example_text
from edgemin_hf.runtime.artefact import NO_READING
from edgemin_hf.tasks import MaskedLM, measure, task_of
from edgemin_hf.tasks.metrics import Metric
from edgemin_hf.tasks.metrics.known import local_module
from tests.helpers.masked_words import HEAD, log_probabilities_in_turn, ordered_texts, write_texts
from tests.helpers.models import FAMILIES, tiny
from tests.helpers.training import without_dropout

TASK = partial(MaskedLM, "train.txt", "test.txt", max_length=24)


def log_softmax(rows):
    rows = np.asarray(rows, dtype=np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (3 * torch.randn(3, 5, 11, generator=generator) for _ in range(2))
    labels = torch.tensor([[-100, 4, -100, 0, 10], [-100] * 5, [2, -100, -100, -100, -100]])
    return ours, theirs, labels


def test_hard_loss_is_a_mean_over_a_texts_own_tokens_then_over_texts(logits):
    ours, _, labels = logits
    expected = []
    for row, own in zip(log_softmax(ours), labels.numpy(), strict=True):
        at = np.flatnonzero(own != -100)
        expected.append(-np.mean([row[place, own[place]] for place in at]) if len(at) else 0.0)
    assert MaskedLM.hard_loss(ours, labels).item() == pytest.approx(np.mean(expected), rel=1e-6)
    alone = torch.stack(
        [cross_entropy(ours[row][labels[row] != -100], labels[row][labels[row] != -100]) for row in (0, 2)]
    )
    assert MaskedLM.hard_loss(ours, labels).item() == pytest.approx(alone.sum().item() / 3, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_soft_loss_and_divergence_are_of_the_masked_tokens_alone(logits, temperature):
    ours, theirs, labels = logits
    student, teacher = log_softmax(ours / temperature), log_softmax(theirs / temperature)
    divergences = (np.exp(teacher) * (teacher - student)).sum(axis=-1)
    counted = labels.numpy() != -100
    expected = np.mean([own[at].mean() if at.any() else 0.0 for own, at in zip(divergences, counted, strict=True)])
    found = MaskedLM.soft_loss(ours, theirs, temperature, labels != -100)
    assert found.item() == pytest.approx(temperature**2 * expected, rel=1e-5)
    if temperature == 1:
        assert MaskedLM.divergence(ours, theirs, labels != -100).item() == pytest.approx(expected, rel=1e-5)
        assert MaskedLM.divergence(ours, ours, labels != -100).item() == 0
    noise = torch.where((labels != -100)[..., None], ours, 7 * torch.ones(()))
    assert MaskedLM.soft_loss(noise, theirs, temperature, labels != -100).item() == found.item()


def test_a_batch_without_masked_tokens_has_losses_with_gradients(logits):
    ours, theirs, _ = logits
    ours = ours.requires_grad_()
    none = torch.full((3, 5), -100)
    loss = MaskedLM.hard_loss(ours, none) + MaskedLM.soft_loss(ours, theirs, 2.0, none != -100)
    loss.backward()
    assert (loss.item(), ours.grad.abs().sum().item()) == (0, 0)


def test_what_is_kept_of_logits_is_hit_and_log_probability(logits):
    ours, _, labels = logits
    kept = MaskedLM.condensed(ours, labels)
    reference = log_softmax(ours)
    for row, place in zip(*np.nonzero(labels.numpy() != -100), strict=True):
        label = labels[row, place]
        assert kept[row, place, 0] == (reference[row, place].argmax() == label)
        assert kept[row, place, 1].item() == pytest.approx(reference[row, place, label], rel=1e-5)
    assert kept[labels == -100].abs().sum() == 0


def test_logits_and_what_is_kept_of_them_say_the_same_in_any_order(tokenizer):
    task, model = TASK(), tiny(head=HEAD)
    table = Dataset.from_dict({"text": ordered_texts(4), IN_TURN: [True, True, False, False]})
    rows = task.tokenized(table, tokenizer, {})
    batch = PaddingCollator(tokenizer)(list(rows))
    with torch.no_grad():
        output = model(batch["input_ids"], batch["attention_mask"]).logits
    whole = [one[: len(row)].numpy() for one, row in zip(output, rows["labels"], strict=True)]
    kept = MaskedLM.condensed(output, batch["labels"])
    short = [one[: len(row)].numpy() for one, row in zip(kept, rows["labels"], strict=True)]
    said = task.predictions(whole, rows)
    assert said == task.predictions(short, rows)
    assert [len(tokens) for tokens in said] == [len(tokens) for tokens in task.references(rows)]
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = task.predictions([whole[i] for i in order], rows.select(order))
    assert [sorted(tokens) for tokens in shuffled] == [sorted(tokens) for tokens in said]
    for metric in task.metrics:
        assert measure(metric, said, shuffled)["value"] == pytest.approx(measure(metric, said, said)["value"])


@pytest.mark.parametrize("family", FAMILIES)
def test_pseudo_perplexity_is_what_a_pass_a_token_gives(family, tokenizer):
    """Against a loop that masks each token of each text by itself, batch 1, in float64 from the logits on."""
    task, model, texts = TASK(), tiny(family, head=HEAD), ordered_texts(3)
    rows = task.tokenized(Dataset.from_dict({"text": texts, IN_TURN: [True, True, False]}), tokenizer, {})
    batch = PaddingCollator(tokenizer)(list(rows))
    with torch.no_grad():
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    lengths = [len(row) for row in rows["labels"]]
    said = task.predictions([one[:length].numpy() for one, length in zip(output, lengths, strict=True)], rows)
    found = task.measure(task.references(rows), said)["others"][0]
    encoded = tokenizer(texts[:2], truncation=True, max_length=24)["input_ids"]
    special = tokenizer.all_special_ids
    alone = [log_probabilities_in_turn(model, ids, special, tokenizer.mask_token_id) for ids in encoded]
    assert found["n"] == 2
    assert found["value"] == pytest.approx(np.exp(-np.mean(np.concatenate(alone))), rel=1e-4)


def test_metrics_count_texts_as_often_as_a_bootstrap_draws_them():
    said = [[[1, -0.5, 0], [0, -2.0, 1]], [[0, -1.0, 0], [1, -0.1, 1], [1, -0.3, 1]], [[1, -0.2, 0]]]
    weights = np.array([[1.0, 1, 1], [2, 0, 1], [0, 3, 0]])
    accuracy = local_module("masked_accuracy").statistic([], said)(weights)["masked_accuracy"]
    np.testing.assert_allclose(accuracy, [2 / 3, 1, 0])
    perplexity = local_module("pseudo_perplexity").statistic([], said)(weights)["pseudo_perplexity"]
    np.testing.assert_allclose(perplexity, np.exp([2.4 / 3, 2.0, 0.4 / 2]))


def test_they_are_modules_of_evaluate():
    said, true = [[[1, -0.5, 0], [0, -2.0, 1]], [[0, -1.0, 0]]], [[7, 9], [8]]
    for name, value in (("masked_accuracy", 0.5), ("pseudo_perplexity", np.exp(2.0))):
        module = local_module(name)()
        assert isinstance(module, evaluate.Metric)
        assert module.compute(predictions=said, references=true)[name] == pytest.approx(value)
    assert Metric("pseudo_perplexity", greater_is_better=False).axis == "pseudo-perplexity"


def test_texts_to_train_on_have_no_masks_and_those_to_measure_always_the_same(tmp_path, tokenizer):
    write_texts(tmp_path / "train.txt", 30)
    write_texts(tmp_path / "test.txt", 12, seed=1)
    task = TASK(pseudo_perplexity_texts=3)
    train, validation = task.train_and_validation(tmp_path, tokenizer, {}, seed=0)
    assert "labels" not in train.column_names
    assert len(train) + len(validation) == 30
    assert not any(validation[IN_TURN])
    first, again = (task.test(tmp_path, tokenizer, {}) for _ in range(2))
    assert first["input_ids"][:] == again["input_ids"][:]
    assert {row["example"] for row in first if row[IN_TURN]} == {0, 1, 2}
    without = TASK(metric="masked_accuracy").test(tmp_path, tokenizer, {})
    assert not any(without[IN_TURN])


def test_validation_tells_the_accuracy_alone(tmp_path, tokenizer):
    write_texts(tmp_path / "train.txt", 30)
    _, rows = TASK().train_and_validation(tmp_path, tokenizer, {}, seed=0)
    longest = max(map(len, rows["labels"]))
    outputs = np.zeros((len(rows), longest, 2), dtype=np.float32)
    outputs[::2, :, 0] = 1
    found = TASK().compute_metrics(EvalPrediction(outputs, None), rows)
    hits = [sum(row) for row in rows["counted"]]
    assert found == {"masked_accuracy": pytest.approx(sum(hits[::2]) / sum(hits))}


def test_a_run_that_goes_on_ends_with_the_same_weights(tmp_path, tokenizer):
    """Masks follow the epoch: the checkpoint of step 5 lies within the second."""
    rows = TASK().tokenized(Dataset.from_dict({"text": ordered_texts(12)}), tokenizer, {})

    def trained(folder, checkpoint=None):
        collator, callbacks = TASK().collation(tokenizer, seed=3)
        arguments = {"max_steps": 9, "save_steps": 5, "per_device_train_batch_size": 3, "learning_rate": 1e-2}
        trainer = DistillationTrainer(
            without_dropout(tiny(head=HEAD, num_hidden_layers=1)),
            tiny(head=HEAD, seed=1),
            TrainingArguments(str(tmp_path / folder), use_cpu=True, report_to=[], disable_tqdm=True, **arguments),
            distillation_config=TaskDistillationConfig(),
            train_dataset=rows,
            processing_class=tokenizer,
            data_collator=collator,
            callbacks=callbacks,
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.model.state_dict()

    whole = trained("whole")
    resumed = trained("again", str(tmp_path / "whole/checkpoint-5"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_model_tells_its_task_by_its_head():
    assert task_of(tiny(head=AutoModelForMaskedLM)) is MaskedLM
    assert task_of(BertConfig(num_labels=3)) is not MaskedLM


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", [32, 16])
def test_a_students_head_is_tied_and_the_teachers_where_widths_agree(family, width):
    teacher = tiny(family, head=HEAD)
    student = create_student(teacher, num_hidden_layers=2, hidden_size=width)
    decoder = student.get_output_embeddings()
    assert decoder.weight is student.get_input_embeddings().weight
    theirs = teacher.state_dict()
    if width == 32:
        for name, value in student.state_dict().items():
            if not name.startswith(teacher.base_model_prefix):
                assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("max_length", [8, 512])
def test_a_card_shows_a_text_whose_mask_is_not_cut_off(max_length):
    task = SimpleNamespace(type="masked_lm", max_length=max_length, reading=NO_READING)
    words = example_text(task, "word " * 4000, "[MASK]").split()
    assert words.count("[MASK]") == 1
    assert len(words) <= max_length // 4
