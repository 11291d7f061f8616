import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.testing import assert_allclose
from transformers import AutoModelForQuestionAnswering

from edgemin_hf.data import sources
from edgemin_hf.data.padding import PaddingCollator
from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.recipe import analysis
from edgemin_hf.tasks import QuestionAnswering, task_of
from tests.helpers.models import tiny
from tests.helpers.questions import TEXTS, asked, span_of, tokenizer_of, write_jsonl

COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels", "counted")


def task(**settings):
    return QuestionAnswering("train.jsonl", "test.jsonl", **settings)


def model(family="bert", **changes):
    return tiny(family, head=AutoModelForQuestionAnswering, id2label={0: "start", 1: "end"}, **changes)


def random_logits(shape, seed=0, scale=3.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * scale)


def log_softmax(values):
    return values - values.max() - np.log(np.exp(values - values.max()).sum())


def batch_of(side="right", seed=0, max_length=384, stride=128):
    """Windows of several lengths, with the positions that the loss is about, and logits for each token."""
    rows = [asked(TEXTS[0], "São Paulo"), asked(TEXTS[3], "😀"), asked(" ".join(TEXTS), "北京"), asked(TEXTS[1])]
    windows = QuestionAnswering("a", "b", max_length=max_length, stride=stride).tokenized(
        Dataset.from_list(rows), tokenizer_of("word_pieces", side), {}
    )
    return windows, [random_logits((len(window["input_ids"]), 2), seed + n) for n, window in enumerate(windows)]


def padded(parts, width, side):
    """The same logits in a wide batch, with nonsense where the padding is."""
    wide = torch.full((len(parts), width, 2), 50.0, dtype=torch.float64)
    for row, part in zip(wide, parts, strict=True):
        row[slice(len(part)) if side == "right" else slice(width - len(part), None)] = part
    return wide


def collated(windows, side, width):
    tokenizer = tokenizer_of("word_pieces", side)
    kept = [{name: window[name] for name in COLUMNS} for window in windows]
    return PaddingCollator(tokenizer, padding="max_length", max_length=width)(kept)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("extra", [0, 40])
def test_losses_by_hand_whatever_the_padding(side, extra):
    windows, ours = batch_of()
    _, theirs = batch_of(seed=50)
    width = max(map(len, ours)) + extra
    hard, soft, moved = [], [], []
    for window, student, teacher in zip(windows, ours, theirs, strict=True):
        at = np.flatnonzero(window["counted"])
        for part, position in enumerate(span_of(window)):
            student_log = log_softmax(student[at, part].numpy())
            hard.append(-student_log[list(at).index(position)])
            s, t = log_softmax(student[at, part].numpy() / 3), log_softmax(teacher[at, part].numpy() / 3)
            soft.append(9 * (np.exp(t) * (t - s)).sum())
            t = log_softmax(teacher[at, part].numpy())
            moved.append((np.exp(t) * (t - student_log)).sum())
    batch = collated(windows, side, width)
    student, teacher = (padded(parts, width, side) for parts in (ours, theirs))
    counted = batch["counted"]
    assert_allclose(QuestionAnswering.hard_loss(student, batch["labels"]), np.mean(hard), rtol=1e-12)
    assert_allclose(QuestionAnswering.soft_loss(student, teacher, 3.0, counted), np.mean(soft), rtol=1e-12)
    assert_allclose(QuestionAnswering.divergence(student, teacher, counted), np.mean(moved), rtol=1e-12)
    assert QuestionAnswering.divergence(student, student, counted) == 0


def test_gradients_reach_counted_tokens_alone():
    windows, ours = batch_of()
    batch = collated(windows, "right", 200)
    for loss in (
        lambda logits: QuestionAnswering.hard_loss(logits, batch["labels"]),
        lambda logits: QuestionAnswering.soft_loss(logits, random_logits(logits.shape, seed=99), 2.0, batch["counted"]),
    ):
        logits = padded(ours, 200, "right").float().requires_grad_()
        loss(logits).backward()
        moved = logits.grad.abs().sum(-1) > 0
        assert torch.isfinite(logits.grad).all()
        assert (moved <= batch["counted"]).all()
        assert moved.any(1).all()


def test_batch_order_and_its_parts_change_nothing():
    windows, ours = batch_of()
    batch = collated(windows, "right", 200)
    logits = padded(ours, 200, "right")
    whole = QuestionAnswering.hard_loss(logits, batch["labels"])
    parts = [QuestionAnswering.hard_loss(logits[[row]], batch["labels"][[row]]) for row in (2, 0, 1, 3)]
    assert_allclose(torch.stack(parts).mean(), whole)


def test_unlabelled_windows_count_as_no_loss():
    windows, ours = batch_of()
    batch = collated(windows, "right", 200)
    logits = padded(ours, 200, "right")
    batch["labels"][1] = -100
    objective = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0).objective(Encoder(model()), None)
    terms = objective(Recording(logits=logits), Recording(), {"labels": batch["labels"]})
    others = [0, 2, 3]
    known = QuestionAnswering.hard_loss(logits[others].float(), batch["labels"][others])
    assert_allclose(terms["hard_labels"], known * 3 / 4, rtol=1e-6)


def test_a_model_tells_the_task():
    assert task_of(model()) is QuestionAnswering
    assert not QuestionAnswering.compatible(tiny(num_labels=2).config)


def windows_and_logits(rows, spans, **settings):
    """Windows of rows, with logits by which each row's own span is best: by 9, or "no answer" where that is None."""
    own = task(**settings)
    windows = own.tokenized(Dataset.from_list(rows), tokenizer_of("word_pieces"), {})
    outputs = []
    for window in windows:
        offsets, span = np.array(window["offsets"]), spans[window["example"]]
        logits = random_logits((len(offsets), 2), scale=0.1).numpy()
        at = (0, 0)
        if span is not None:
            place = window["context"].index(span)
            inside = np.flatnonzero((offsets[:, 0] < place + len(span)) & (offsets[:, 1] > place))
            at = (inside[0], inside[-1]) if len(inside) else None
        if at is not None:
            logits[at[0], 0] += 5
            logits[at[1], 1] += 4
        outputs.append(logits)
    return own, windows, outputs


def test_predictions_are_the_texts_of_the_best_spans():
    rows = [asked(TEXTS[0], "São Paulo", "Paulo"), asked(TEXTS[2], "北京"), asked(TEXTS[3])]
    own, windows, outputs = windows_and_logits(rows, ["São Paulo", "3 June", None], n_best=4)
    answers = own.predictions(outputs, windows)
    assert answers[:2] == ["São Paulo", "3 June"]
    others = own.alternatives(outputs, windows)
    assert all(len(other["spans"]) == 4 for other in others)
    assert others[0]["spans"][0]["text"] == "São Paulo"
    assert others[0]["spans"][0]["start"] == TEXTS[0].index("São")
    margins = [other["no_answer"] - other["spans"][0]["score"] for other in others]
    assert margins[0] < -5 < 5 < margins[2]
    json.dumps(others)
    assert own.references(windows) == [["São Paulo", "Paulo"], ["北京"], []]
    assert own.value(own.references(windows)[:2], answers[:2]) == pytest.approx(1 / 2)


@pytest.mark.parametrize("settings", [{"max_length": 64, "stride": 20}, {"max_length": 48, "stride": 5}])
def test_windows_of_one_question_give_one_answer(settings):
    rows = [asked(" ".join(TEXTS), "everyone"), asked(TEXTS[0], "won")]
    own, windows, outputs = windows_and_logits(rows, ["上海 came", "won"], **settings)
    assert len(windows) > len(rows)
    order = np.argsort([-len(output) for output in outputs], kind="stable")  # as rows are sorted to be padded
    shuffled = own.predictions([outputs[i] for i in order], windows.select(order))
    for answers, references in (
        (own.predictions(outputs, windows), own.references(windows)),
        (shuffled, own.references(windows.select(order))),
    ):
        assert answers == ["上海 came", "won"]
        assert references == [["everyone"], ["won"]]


def test_a_threshold_decides_on_no_answer():
    rows = [asked(TEXTS[0], "won"), asked(TEXTS[3]), asked(TEXTS[1], "rooms")]
    own, windows, outputs = windows_and_logits(rows, ["won", None, "café"], metric="squad_v2")
    assert all(own.predictions(outputs, windows))  # none without a threshold
    chosen = own.calibrated(outputs, windows)
    assert own.no_answer_threshold is None
    assert chosen.predictions(outputs, windows) == ["won", "", ""]
    assert chosen.value(own.references(windows), chosen.predictions(outputs, windows)) == pytest.approx(2 / 3)
    given = task(no_answer_threshold=-100.0)
    assert given.calibrated(outputs, windows) is given
    assert given.predictions(outputs, windows) == ["", "", ""]
    all_answered, all_windows, all_outputs = windows_and_logits(rows[::2], ["won", "café"])
    assert all_answered.calibrated(all_outputs, all_windows) is all_answered


def test_interval_is_a_bootstrap_over_questions():
    answers = ["gold"] * 60 + ["silver coin"] * 40
    found = task().measure([["gold"]] * 60 + [["silver"]] * 20 + [["lead"]] * 20, answers)
    assert found["metric"], found["n"] == ("squad", 100)
    assert found["value"] == pytest.approx((60 + 20 * 2 / 3) / 100)
    low, high = found["ci95"]
    scores = np.array([1] * 60 + [2 / 3] * 20 + [0] * 20)
    half = 1.96 * scores.std() / 10
    assert low == pytest.approx(found["value"] - half, abs=0.02)
    assert high == pytest.approx(found["value"] + half, abs=0.02)


def test_contexts_are_held_out_with_all_their_questions(tmp_path):
    rows = [asked(f"{text} Part {part}.", answer) for part in range(6) for text, answer in
            ((TEXTS[0], "won"), (TEXTS[0], "U.S."), (TEXTS[2], "北京"))]  # fmt: skip
    write_jsonl(tmp_path / "train.jsonl", rows)
    own = task(validation_share=0.2)
    train, validation = own.tables(tmp_path, seed=3)
    assert len(train) + len(validation) == len(rows)
    assert not set(train["context"]) & set(validation["context"])
    assert 3 < len(validation) < 7
    assert own.tables(tmp_path, seed=3)[1]["context"][:] == validation["context"][:]
    for share in (0.001, 0.999):
        assert all(len(part) for part in task(validation_share=share).tables(tmp_path, seed=0))


def test_a_further_test_set_is_answered_by_each_models_own_threshold(tmp_path, tokenizer, monkeypatch):
    row = {"question": "card ?", "context": "card account", "answers": {"text": [], "answer_start": []}}
    for name in ("a.jsonl", "b.json"):
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    (tmp_path / "b.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "card account", "qas": [
        {"id": "1", "question": "card ?", "answers": []}
    ]}]}]}))  # fmt: skip
    settings = {"metric": "squad_v2", "further_tests": {"more": ["a.jsonl", "b.json"]}}
    own = QuestionAnswering("train.json", "test.json", **settings)
    files = {("student", "onnxruntime", name): SimpleNamespace(path=tmp_path) for name in ("fp32", "int8")}
    tasks = dict(zip(files, (replace(own, no_answer_threshold=value) for value in (-100.0, 100.0)), strict=True))
    context = SimpleNamespace(task=own, root=tmp_path, label_ids={"start": 0, "end": 1}, threads=1)
    monkeypatch.setattr(sources, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(analysis, "load_runner", lambda *_, **__: None)
    nothing = lambda _, __, inputs, *___: [np.zeros((one["input_ids"].size, 2)) for one in inputs]  # noqa: E731
    monkeypatch.setattr(analysis, "predict_rows", nothing)
    table = own.read(own.named_path(tmp_path, own.further_tests["more"]))
    models = analysis.Models(files, {"student": tokenizer}, tasks)
    found = analysis.measured_on(context, table, models, list(files), "more")
    assert {name: (one["value"], one["n"]) for (*_, name), one in found.items()} == {"fp32": (1, 2), "int8": (0, 2)}


def test_a_shorter_window_has_the_stride_that_it_leaves():
    assert [task(max_length=length).stride for length in (384, 256, 40)] == [128, 123, 15]
