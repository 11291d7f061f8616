"""Class weights, label smoothing, stratified splits, and rows that are cut."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from sklearn.utils.class_weight import compute_class_weight

from edgemin_hf import TaskDistillationConfig
from edgemin_hf.cli import main
from edgemin_hf.data.tokenization import count_cut, encode
from edgemin_hf.distillation.known import describe_method
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.tasks import TASKS, MultiLabel, TextClassification, TokenClassification
from edgemin_hf.tasks.class_weights import balanced_weights
from edgemin_hf.tasks.splits import held_out, why_not_stratified
from tests.helpers.models import tiny
from tests.helpers.recipes import finetuning, record, weights

LABELS = [0] * 6 + [1] * 3 + [2]


def test_balanced_weights_are_scikit_learns():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(balanced_weights("label", LABELS, 3), expected, rtol=1e-6)
    assert balanced_weights("label", LABELS, 3)[LABELS].mean() == pytest.approx(1)
    assert balanced_weights("label", LABELS, 4)[3] == 0  # no row has it
    assert torch.equal(balanced_weights("label", [*LABELS, -100], 3), balanced_weights("label", LABELS, 3))
    rows = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    found = balanced_weights("label set", rows.tolist(), 2)
    for label in range(2):
        expected = compute_class_weight("balanced", classes=np.arange(2), y=rows[:, label])
        np.testing.assert_allclose(found[label], expected, rtol=1e-6)
    sentences = [[0, 0, 1], [2], [0, 1, 0]]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.concatenate(sentences))
    np.testing.assert_allclose(balanced_weights("tags", sentences, 3), expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_loss_of_labels_is_the_formula(weighed, smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(10, 3, dtype=torch.float64, requires_grad=True), torch.tensor(LABELS)
    weights = torch.tensor([0.5, 1.5, 3.0]) if weighed else torch.ones(3)
    settings = {"class_weights": weights if weighed else None, "label_smoothing": smoothing}
    found = TextClassification.hard_loss(logits, labels, **settings)
    # By hand: each label's log probability by its share of the target, weighed; a mean over examples.
    target = (1 - smoothing) * F.one_hot(labels, 3) + smoothing / 3
    expected = -(target * weights.double() * logits.log_softmax(-1)).sum(dim=-1).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (found, expected)))
    # PyTorch's own mean is over weights instead of examples.
    theirs = F.cross_entropy(logits, labels, weights.double(), label_smoothing=smoothing, reduction="sum") / 10
    torch.testing.assert_close(found, theirs)
    halves = [TextClassification.hard_loss(logits[rows], labels[rows], **settings) for rows in (slice(5), slice(5, 10))]
    torch.testing.assert_close(sum(halves) / 2, found)
    # Words of sentences are weighed likewise, each sentence counting once.
    tags = labels.view(2, 5).clone()
    tags[1, 3:] = -100
    given = TokenClassification.hard_loss(logits.view(2, 5, 3), tags, **settings)
    own = [TextClassification.hard_loss(logits[rows], labels[rows], **settings) for rows in (slice(5), slice(5, 8))]
    torch.testing.assert_close(given, sum(own) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_loss_of_label_sets_is_the_formula(weighed, smoothing):
    torch.manual_seed(1)
    logits = torch.randn(6, 2, dtype=torch.float64)
    labels = torch.tensor([[1, 0], [1, 1], [0, 0], [1, 0], [0, 0], [0, 1]])
    weights = torch.tensor([[0.5, 2.0], [0.75, 1.5]]) if weighed else None
    found = MultiLabel.hard_loss(logits, labels, class_weights=weights, label_smoothing=smoothing)
    expected = 0.0
    for row in range(6):
        for label in range(2):
            truth, p = float(labels[row, label]), logits[row, label].sigmoid()
            yes = (1 - smoothing) * truth + smoothing / 2
            weight = 1.0 if weights is None else float(weights[label, int(truth)])
            expected -= weight * (yes * p.log() + (1 - yes) * (1 - p).log()) / 12
    torch.testing.assert_close(found, torch.as_tensor(expected))


def test_settings_are_refused_where_there_are_no_labels():
    files = ("train.tsv", "test.tsv")
    for kind, settings, message in (
        (
            "regression",
            {"class_weights": "balanced"},
            "class_weights: balanced for regression; allowed: ",
        ),
        (
            "regression",
            {"label_smoothing": 0.1},
            "label_smoothing: 0.1 for regression; allowed: ",
        ),
        ("text_classification", {"label_smoothing": 1.0}, "label_smoothing: 1.0; allowed: 0 to below 1"),
        ("multi_label", {"stratify": True}, "stratify: true for multi_label; allowed: for one label a row"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            TASKS[kind](*files, **settings)


def test_a_task_whose_loss_takes_no_settings_refuses_them():
    class Ordinal(TextClassification):
        @staticmethod
        def hard_loss(logits, labels):
            return logits.sum()

    with pytest.raises(
        ValueError, match=r"^label_smoothing: 0.1 for text_classification; allowed: where its hard_loss"
    ):
        Ordinal("train.tsv", "test.tsv", label_smoothing=0.1)


def test_an_objective_takes_the_loss_that_it_is_given():
    loss = partial(TextClassification.hard_loss, label_smoothing=0.3)
    config = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)
    given = config.with_label_loss(loss)
    assert describe_method(given) == describe_method(config)
    assert given.to_dict() == config.to_dict()
    student = Encoder(tiny("bert", num_labels=3))
    logits, inputs = torch.randn(10, 3), {"labels": torch.tensor(LABELS)}
    for settings, expected in ((config, TextClassification.hard_loss), (given, loss), (replace(given), loss)):
        terms = settings.objective(student, None)(Recording(logits=logits), Recording(), inputs)
        torch.testing.assert_close(terms["hard_labels"], expected(logits, inputs["labels"]))


def table_of(labels):
    return Dataset.from_dict({"text": [f"row {i}" for i in range(len(labels))], "label": [f"l{n}" for n in labels]})


def test_a_stratified_split_gives_each_label_its_share_and_is_repeatable():
    labels = [0] * 60 + [1] * 30 + [2] * 10
    table = table_of(labels)
    train, validation = held_out(table, 0.2, 3, labels)
    assert [list(validation["label"]).count(f"l{n}") for n in range(3)] == [12, 6, 2]
    assert train.column_names == table.column_names
    assert sorted([*train["text"], *validation["text"]]) == sorted(table["text"])
    assert held_out(table, 0.2, 3, labels)[1]["text"][:] == validation["text"][:]
    assert held_out(table, 0.2, 4, labels)[1]["text"][:] != validation["text"][:]


def test_what_can_not_be_stratified_is_drawn_from_all_alike():
    for labels, share, why in (
        ([0] * 9 + [1], 0.2, "a label has one row"),
        ([0, 0, 1, 1, 2, 2] * 2, 0.1, "2 rows can't have 3 labels"),
    ):
        assert why_not_stratified(labels, share) == why
        table = table_of(labels)
        plain = table.train_test_split(test_size=share, seed=0)
        assert held_out(table, share, 0, labels)[1]["text"][:] == plain["test"]["text"][:]
        assert held_out(table, share, 0)[1]["text"][:] == plain["test"]["text"][:]


def test_rows_that_are_cut_are_counted(tokenizer):
    texts = ["card " * count for count in range(1, 12)]
    for max_length in (4, 8, 12):
        cut = sum(
            len(tokenizer(text)["input_ids"]) > len(ids)
            for text, ids in zip(texts, encode(tokenizer, texts, max_length)["input_ids"], strict=True)
        )
        assert count_cut(texts, tokenizer, max_length) == cut > 0
    pairs = [(text, "card phone") for text in texts]
    assert count_cut(pairs, tokenizer, 8) == sum(len(tokenizer(*pair)["input_ids"]) > 8 for pair in pairs)


@pytest.mark.long
def test_a_recipe_heeds_them_and_tells_what_is_cut(workplace, tmp_path, capsys):
    for path in workplace.iterdir():
        (tmp_path / path.name).symlink_to(path)
    settings = [
        "--set",
        "task.class_weights=balanced",
        "--set",
        "task.label_smoothing=0.2",
        "--set",
        "task.max_length=4",
    ]
    for output, more in (("plain", []), ("other", settings)):
        recipe = finetuning(tmp_path, output, max_steps=3)
        assert main(["run", recipe, "--dry-run", *more]) == 0
        assert ("row(s) cut at 4 tokens" in capsys.readouterr().out) == bool(more)
        assert main(["run", recipe, *more]) == 0
    plain, other = record(tmp_path, "plain"), record(tmp_path, "other")
    assert "cut_rows" not in plain
    assert other["cut_rows"]["train_file"] > 0
    assert other["inputs"]["task"]["class_weights"] == "balanced"
    assert "class_weights" not in plain["inputs"]["task"]  # what earlier versions did not know changes nothing
    assert weights(tmp_path, "plain") != weights(tmp_path, "other")
