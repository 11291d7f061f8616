"""Cross-encoders: the loss, groups, bad input, what becomes of their score, and a whole recipe."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForSequenceClassification

from edgemin_hf import create_student, load_pruned
from edgemin_hf.cli import main
from edgemin_hf.modeling.cross_encoder import activation_of
from edgemin_hf.tasks import TASKS, Regression, Reranking
from edgemin_hf.tasks.known import task_of, task_type
from edgemin_hf.tasks.metrics import value_of
from tests.helpers.models import sentences, tiny
from tests.helpers.recipes import only, put, write_recipe
from tests.helpers.tasks import assert_every_stage_speaks_of, read_json, run_snippets

IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


def write_passages(path, groups, seed, grades=False, each=4):
    """Queries with passages: relevant is what is of the query's class; the last group has nothing relevant."""
    queries, passages = sentences(groups, seed), sentences(groups * each, seed + 1)
    lines = ["id\tquery\tpassage\tlabel"]
    for number, (query, kind) in enumerate(queries):
        for text, other in passages[number * each : (number + 1) * each]:
            relevant = (1 + grades * (number % 2)) * (kind == other) * (number < groups - 1)
            lines.append(f"q{number}\t{query}\t{text}\t{relevant}")
    path.write_text("\n".join(lines) + "\n")


def write_all_passages(root, workplace):
    (root / "teacher").symlink_to(workplace / "teacher")
    for name, groups, seed, grades in (("train", 40, 0, False), ("validation", 10, 10, False), ("test", 12, 20, True)):
        write_passages(root / f"{name}.tsv", groups, seed, grades)
    return root


@pytest.fixture(scope="module")
def root(workplace, tmp_path_factory):
    return write_all_passages(tmp_path_factory.mktemp("passages"), workplace)


TASK = {"type": "reranking", "group_column": "id", "metric": ["ndcg_at_10", "mrr_at_10"], "max_length": 40}


def recipe_of(root, *changes, task=None, run="run"):
    def change(recipe):
        recipe["task"] |= {**TASK, **(task or {})}
        recipe["raw_text"]["text_column"] = "passage"
        recipe["output_dir"] = str(root / run)
        for one in changes:
            one(recipe)

    return write_recipe(root, change, f"{run}.yaml")


def test_labels_are_learned_by_binary_cross_entropy_and_logits_by_squared_error():
    logits, labels = torch.tensor([[2.0], [-1.0], [0.5]], dtype=torch.float64), torch.tensor([1.0, 0.0, 0.25])
    p = 1 / (1 + np.exp(-logits.numpy()[:, 0]))
    y = labels.double().numpy()
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert Reranking.hard_loss(logits, labels).item() == pytest.approx(expected, rel=1e-12)
    teacher = torch.zeros(3, 1, dtype=torch.float64)
    assert Reranking.soft_loss(logits, teacher, 2.0).item() == pytest.approx((logits**2).mean().item())
    assert Reranking.divergence(logits, logits).item() == 0


def test_a_model_alone_is_a_regression_and_a_metric_tells_the_task():
    assert task_of(tiny(num_labels=1, id2label={0: "label"}, label2id={"label": 0})) is Regression
    assert task_type({"metric": ["mrr_at_10"]}) == task_type({"metric": "ndcg_at_10"}) == "reranking"
    assert task_type({"metric": "pearsonr"}) == "regression"
    assert TASKS["reranking"]("a.tsv", "b.tsv").metric_name == "ndcg_at_10"


def test_groups_are_those_of_a_column_or_of_equal_queries(root, tokenizer):
    table = Dataset.from_dict(
        {"query": ["a", "b", "a", "b"], "passage": ["w"] * 4, "label": ["1", "0", "0", "1"], "id": [7, 7, 3, 7]}
    )
    for column, groups in ((None, [0, 1, 0, 1]), ("id", [0, 0, 1, 0])):
        task = Reranking("train.tsv", "test.tsv", group_column=column, max_length=16)
        rows = task.tokenized(table, tokenizer, {})
        np.testing.assert_array_equal(task.references(rows), np.column_stack([[1, 0, 0, 1], groups]))
    order = [3, 1, 0, 2]  # rows may be drawn and sorted
    np.testing.assert_array_equal(task.references(rows.select(order)), task.references(rows)[order])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_group_is_held_out_with_all_its_rows(root, share):
    task = Reranking("train.tsv", "test.tsv", group_column="id", validation_share=share)
    train, validation = task.tables(root, seed=1)
    sides = [set(table["id"]) for table in (train, validation)]
    assert not sides[0] & sides[1]
    assert len(train) + len(validation) == 160
    assert len(sides[1]) == min(int(np.ceil(share * 40)), sum(task._counts(task.table(root, "train"))) - 1)
    assert "q39" in sides[0]  # nothing relevant, so that nothing is chosen by it
    again, other = task.tables(root, seed=1)[1], task.tables(root, seed=2)[1]
    assert again["id"] == validation["id"]
    assert share > 0.9 or other["id"] != validation["id"]


def changed(root, tmp_path, name, lines):
    """The tables with one of them written anew."""
    for path in root.iterdir():
        if path.name in ("teacher", "train.tsv", "validation.tsv", "test.tsv") and path.name != f"{name}.tsv":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / f"{name}.tsv").write_text("\n".join(["id\tquery\tpassage\tlabel", *lines]) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        (
            "train",
            ["q\ta\tb\t3", "r\ta\tb\t0"],
            "label_column: 3 in train_file; allowed: to learn from 0 to 1 .grades",
        ),
        ("train", ["q\ta\tb\t-1"], "train_file: -1 in column 'label', row 1 of .*; allowed: 0 or more"),
        ("train", ["q\ta\tb\tyes"], "train_file: 'yes' in column 'label', row 1 of .*; allowed: a number"),
        ("train", ["q\ta\tb\t1", "r\tc\td\t0"], "train_file: one group with a relevant row; expected: several, or a "),
        ("test", ["q\ta\tb\t0", "r\tc\td\t0"], "test_file: 0 in column 'label', every row of .*; expected: relevant"),
        ("test", ["\ta\tb\t0", "r\tc\td\t1"], "test_file: '' in column 'id', row 1 of .*; allowed: a label"),
    ],
)
def test_rows_that_will_not_do_are_one_line_before_weights(root, tmp_path, name, lines, message, capsys):
    path = recipe_of(changed(root, tmp_path, name, lines), only("finetune"))
    assert main(["run", str(path), "--dry-run"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(f"task.{message}", line), line


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"group_column": "qid"}, r"task.train_file: column 'qid' of .*train.tsv; allowed: id, query, passage, label"),
        ({"group_column": "label"}, "task.group_column: label; allowed: another column"),
        (
            {"text_pair_column": None},
            "task.text_pair_column: None for reranking; expected: the column",
        ),
        ({"metric": "pearsonr"}, "task.metric: pearsonr, which is of scores; allowed: ndcg_at_10, mrr_at_10"),
        ({"type": "regression", "group_column": "id"}, "group_column"),
        ({"type": "regression", "group_column": None, "metric": "ndcg_at_10"}, "group_column|which is of rankings"),
        ({"class_weights": "balanced"}, "task.class_weights: balanced for reranking; allowed: where its hard_loss"),
    ],
)
def test_settings_that_will_not_do_are_one_line(root, task, message, capsys):
    assert main(["run", str(recipe_of(root, task=task, run="bad")), "--dry-run"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, line), line


def test_the_plan_tells_groups_that_do_not_count(root):
    notes = Reranking("train.tsv", "test.tsv", group_column="id").check(root)
    told = [note for note in notes if "groups" in note]
    assert [note.split(":")[0] for note in told] == ["train_file", "test_file"]
    assert re.search(r"\d+ of 40 groups have no relevant row, and do not count in metrics", told[0])


def cross_encoder(folder, tokenizer, activation, how):
    """A checkpoint as one of sentence-transformers' releases writes it."""
    model = tiny(num_labels=1, id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0}, vocab_size=len(tokenizer))
    if how == "before 4":
        model.config.sbert_ce_default_activation_function = activation
    elif how == "from 4 on":
        model.config.sentence_transformers = {"activation_fn": activation, "version": "4.0.1"}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if how == "today":
        content = {"activation_fn": activation, "model_type": "CrossEncoder", "prompts": {}}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("how", ["before 4", "from 4 on", "today"])
def test_what_becomes_of_the_score_is_kept_wherever_it_was_written(how, tmp_path, tokenizer):
    folder = cross_encoder(tmp_path / "teacher", tokenizer, IDENTITY, how)
    teacher = load_pruned(folder)
    assert activation_of(teacher.config) == IDENTITY
    for settings in ({}, {"model_type": "distilbert"}):
        student = create_student(teacher, 1, **settings)
        student.save_pretrained(tmp_path / "student")
        assert activation_of(AutoConfig.from_pretrained(tmp_path / "student")) == IDENTITY
    assert activation_of(load_pruned(cross_encoder(tmp_path / "plain", tokenizer, None, "not")).config) == SIGMOID


@pytest.mark.parametrize("activation", [IDENTITY, SIGMOID])
def test_sentence_transformers_makes_the_same_scores_of_a_student(activation, tmp_path, tokenizer):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    teacher = load_pruned(cross_encoder(tmp_path / "teacher", tokenizer, activation, "today"))
    create_student(teacher, 1).save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    encoder = sentence_transformers.CrossEncoder(str(tmp_path / "student"), device="cpu")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    with torch.no_grad():
        logit = model(**tokenizer("where", "my card", return_tensors="pt")).logits[0, 0]
    expected = logit.sigmoid() if activation == SIGMOID else logit
    assert encoder.predict([("where", "my card")])[0] == pytest.approx(expected.item(), abs=1e-5)


@pytest.fixture(scope="module")
def run(root):
    longer = [put("finetune.max_steps", 60), put("task_distill.max_steps", 40)]
    changes = [*longer, put("report.repo_id", str(root / "run/artefact"))]
    assert main(["run", str(recipe_of(root, *changes))]) == 0
    return root / "run"


@pytest.mark.long
def test_every_stage_speaks_of_the_metric(run, root):
    count = read_json(run / "evaluate/results.json")["student_onnxruntime_int8"]["n"]
    assert_every_stage_speaks_of("ndcg_at_10", run, count)
    assert "MRR@10" in (run / "artefact/report.html").read_text()


@pytest.mark.long
def test_what_is_measured_are_the_predictions_by_groups(run, root):
    from safetensors.numpy import load_file

    lines = [line.split("\t") for line in (root / "test.tsv").read_text().splitlines()[1:]]
    references = np.array([[float(line[3]), float(line[0][1:])] for line in lines])
    task = Reranking("train.tsv", "test.tsv", metric=["ndcg_at_10", "mrr_at_10"])
    results = read_json(run / "evaluate/results.json")
    for name, scores in load_file(run / "evaluate/predictions.safetensors").items():
        found = [results[name], *results[name]["others"]]
        for one, metric in zip(found, task.metrics, strict=True):
            assert one["value"] == pytest.approx(value_of(metric, references, scores), abs=1e-12)
            assert one["n"] == len(np.unique(references[references[:, 0] > 0, 1])) < 12


@pytest.mark.long
def test_the_snippets_of_the_card_rank_passages_and_agree(run, monkeypatch):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("optimum.onnxruntime", reason="Optimum's ONNX part ends with transformers 4.57")
    card = (run / "artefact/README.md").read_text()
    assert f"`{SIGMOID}`" in card
    assert "pipeline_tag: text-ranking" in card
    assert "- reranker" in card
    answers = [answer.split() for answer in run_snippets(card, monkeypatch)]
    assert len(answers) == 3
    assert all(sorted(answer[::2]) == ["0", "1"] for answer in answers)
    graph, alone, full = ({place: float(score) for place, score in zip(a[::2], a[1::2], strict=True)} for a in answers)
    for place, score in alone.items():
        assert 0 < score < 1
        assert graph[place] == pytest.approx(score, abs=1e-4)
        assert full[place] == pytest.approx(score, abs=0.2)


@pytest.mark.long
def test_rivals_are_measured_by_groups(run, root):
    stages = {"stage": "rivals", "rivals": ["bag_of_words", "frozen_encoder"], "sentences": 4, "rounds": 1}

    def change(recipe):
        recipe["stages"] = [recipe["stages"][0], stages]

    assert main(["run", str(recipe_of(root, put("finetune.max_steps", 2), change, run="lazy"))]) == 0
    rows = read_json(root / "lazy/rivals/rivals.json")["rows"]
    assert len(rows) == 3  # the frozen encoder's INT8 too
    assert {row["metric"] for row in rows} == {"ndcg_at_10"}
    assert all(0 < row["value"] <= 1 for row in rows)


@pytest.mark.long
def test_texts_without_labels_teach_too(root):
    """Rows that the teacher alone labels have no group."""
    (root / "more.tsv").write_text("query\tpassage\nwhere is it\tmy card\nwho sends money\tto him\n")

    path = recipe_of(root, only("finetune", "task_distill"), task={"unlabelled_files": ["more.tsv"]}, run="unlabelled")
    assert main(["run", str(path)]) == 0
    assert read_json(root / "unlabelled/stages/task_distill.json")["metric"] == "ndcg_at_10"


@pytest.mark.long
@pytest.mark.parametrize("activation", [IDENTITY, SIGMOID])
def test_a_cross_encoder_teaches_as_it_is(root, activation, tmp_path, tokenizer, monkeypatch):
    """As sentence-transformers saves it today; the card's snippets make of the logit what the teacher makes."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    pytest.importorskip("optimum.onnxruntime", reason="Optimum's ONNX part ends with transformers 4.57")
    plain = cross_encoder(tmp_path / "plain", tokenizer, None, "not")
    function = torch.nn.Identity() if activation == IDENTITY else torch.nn.Sigmoid()
    teacher = sentence_transformers.CrossEncoder(str(plain), activation_fn=function, device="cpu")
    teacher.save_pretrained(str(tmp_path / "teacher"))

    def change(recipe):
        recipe["teacher"]["model"] = str(tmp_path / "teacher")
        recipe["stages"][-1]["repo_id"] = str(tmp_path / "run/artefact")
        recipe["output_dir"] = str(tmp_path / "run")

    path = recipe_of(root, only("task_distill", "export", "evaluate", "benchmark", "report"), change, run="taught")
    assert main(["run", str(path)]) == 0
    card = (tmp_path / "run/artefact/README.md").read_text()
    assert f"`{activation}` makes it" in card
    graph, alone, full = (answer.split() for answer in run_snippets(card, monkeypatch))
    for other in (alone, full):
        scores = [dict(zip(answer[::2], map(float, answer[1::2]), strict=True)) for answer in (graph, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    results = read_json(tmp_path / "run/evaluate/results.json")
    lines = [line.split("\t") for line in (root / "test.tsv").read_text().splitlines()[1:]]
    said = teacher.predict([(line[1], line[2]) for line in lines])
    references = np.array([[float(line[3]), float(line[0][1:])] for line in lines])
    expected = value_of(Reranking("a", "b").metrics[0], references, said)
    assert results["teacher_pytorch_fp32"]["value"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.long
def test_sensitivity_of_a_model_of_a_run_is_measured_by_groups(run, root, tmp_path):
    model = str(run / "teacher")
    assert main(["sensitivity", model, "--output", str(tmp_path / "costs"), "--sparsities", "0.5"]) == 0
    assert read_json(tmp_path / "costs/sensitivity.json")["base"]["metric"] == "ndcg_at_10"
    shutil.copytree(run / "teacher", tmp_path / "model")  # of no run
    files = ["--train", str(root / "train.tsv"), "--data", str(root / "validation.tsv"), "--metric", "mrr_at_10"]
    columns = ["--text-column", "query", "--text-pair-column", "passage", "--max-length", "40"]
    options = ["--output", str(tmp_path / "other"), "--sparsities", "0.5", *files, *columns]
    assert main(["sensitivity", str(tmp_path / "model"), *options]) == 0
    assert read_json(tmp_path / "other/sensitivity.json")["base"]["metric"] == "mrr_at_10"
