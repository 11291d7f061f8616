"""Questions through a whole recipe, all families, and what can not be."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline

from edgemin_hf import export_onnx, load_pruned
from edgemin_hf.benchmark.runners import load_runner
from edgemin_hf.cli import main
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.tasks import QuestionAnswering
from edgemin_hf.tasks.questions import read_questions
from tests.helpers.models import FAMILIES, tiny
from tests.helpers.optimum import ORTModelForQuestionAnswering
from tests.helpers.optimum import pipeline as optimum_pipeline
from tests.helpers.questions import question_recipe, questions, write_jsonl, write_questions
from tests.helpers.recipes import RECIPE
from tests.helpers.tasks import assert_every_stage_speaks_of, read_json, run_snippets

HEAD = AutoModelForQuestionAnswering
NAMES = {"id2label": {0: "start", 1: "end"}, "label2id": {"start": 0, "end": 1}}
STAGES = copy.deepcopy(RECIPE["stages"])
STAGES[0] |= {"max_steps": 150, "learning_rate": 2e-3}
STAGES[4] |= {"embeddings": "int4", "reconstruction": {"steps": 2}}
STAGES.insert(4, {"stage": "prune_vocabulary"})
STAGES.insert(-1, {"stage": "rivals", "sentences": 4, "rounds": 1})


@pytest.fixture(scope="module")
def root(tmp_path_factory, workplace):
    root = tmp_path_factory.mktemp("questions")
    (root / "teacher").symlink_to(workplace / "teacher")
    return write_questions(root, unanswerable=0.3)


@pytest.fixture(scope="module")
def run(root):
    artefact = str(root / "run" / "artefact")
    stages = [*STAGES[:-1], {**STAGES[-1], "repo_id": artefact}]
    assert main(["run", str(question_recipe(root, stages=stages, metric="squad_v2"))]) == 0
    return root / "run"


@pytest.mark.long
def test_every_stage_speaks_of_the_metric(run):
    assert_every_stage_speaks_of("squad_v2", run, 24, learns="finetune")


def f1_of(found, right):
    """F1 of words, each of which stands once in a context; "the" is none to SQuAD's script."""
    ours, theirs = ({word for word in text.split() if word != "the"} for text in (found, right))
    return 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 1.0


@pytest.mark.long
def test_what_is_measured_are_the_predictions_of_each_models_own_threshold(run, root):
    lines = [json.loads(line) for line in (run / "evaluate/predictions.jsonl").read_text().splitlines()]
    truth = read_questions(root / "test.jsonl")["answers"]
    results, chosen = read_json(run / "evaluate/results.json"), read_json(run / "evaluate/chosen.json")
    assert set(results) == set(chosen) == set(lines[0])
    for name, found in results.items():
        scores = [f1_of(line[name], "".join(answers["text"])) for line, answers in zip(lines, truth, strict=True)]
        assert found["value"] == pytest.approx(np.mean(scores))
        threshold = chosen[name]["no_answer_threshold"]
        alternatives = (run / f"evaluate/alternatives/{name}.jsonl").read_text().splitlines()
        for line, other in zip(lines, map(json.loads, alternatives), strict=True):
            best = other["spans"][0]
            assert line[name] == ("" if other["no_answer"] - best["score"] > threshold else best["text"])


@pytest.mark.long
def test_the_graph_gives_start_and_end_and_optimum_answers_like_pytorch(run, root):
    artefact, table = run / "artefact", read_questions(root / "test.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(artefact)
    graph = ORTModelForQuestionAnswering.from_pretrained(artefact, subfolder="onnx", file_name="model.onnx")
    assert set(graph.output_names) == {"start_logits", "end_logits"}
    asked = {"max_seq_len": 40, "doc_stride": 8, "max_answer_len": 30, "align_to_words": False}
    optimum = optimum_pipeline("question-answering", model=graph, tokenizer=tokenizer, accelerator="ort")
    plain = pipeline("question-answering", model=load_pruned(artefact, HEAD), tokenizer=tokenizer)
    lines = (run / "evaluate/alternatives/student_onnxruntime_fp32.jsonl").read_text().splitlines()
    for row, line in zip(table.select(range(12)), lines, strict=False):
        question = {"question": row["question"], "context": row["context"]}
        theirs, ours = optimum(**question, **asked), plain(**question, **asked)
        assert theirs["answer"] == ours["answer"] == json.loads(line)["spans"][0]["text"]
        assert theirs["score"] == pytest.approx(ours["score"], abs=1e-5)


@pytest.mark.long
def test_the_snippets_of_the_card_run_and_agree(run, monkeypatch):
    card = (run / "artefact/README.md").read_text()
    assert card.count("handle_impossible_answer=True") == 3
    assert "This model does question answering on ordinary CPUs" in card
    optimum, plain, torch_fp32 = run_snippets(card, monkeypatch)
    assert {"score", "start", "end", "answer"} <= set(eval(optimum)) & set(eval(torch_fp32))
    context = json.loads("[" + re.search(r"context=(\".*\")\)\)$", card, re.MULTILINE)[1] + "]")[0]
    assert eval(plain)["answer"] in context


@pytest.mark.long
def test_rivals_are_the_teachers_int8_and_the_labels_alone(run):
    found, results = read_json(run / "rivals/rivals.json"), read_json(run / "evaluate/results.json")
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["this student, INT8", "student's shape, labels alone, INT8", "fine-tuned teacher, INT8"]
    for name, model in (("this student", "student"), ("fine-tuned teacher", "teacher")):
        assert rows[f"{name}, INT8"]["value"] == pytest.approx(results[f"{model}_onnxruntime_int8"]["value"])
    left_out = [line.split(" for ")[0] for line in found["left_out"]]
    assert left_out[:3] == ["bag_of_words", "static_embeddings", "frozen_encoder"]


@pytest.mark.long
def test_sensitivity_measures_by_the_rows_of_the_run(run, tmp_path):
    options = ["--examples", "10", "--saliency-examples", "10", "--sparsities", "0.5", "--batch-size", "4"]
    options += ["--measure", "pruning", "quantization"]
    asked = [str(run / "task_distill"), "--output", str(tmp_path / "out"), *options]
    assert main(["sensitivity", *asked]) == 0
    found = read_json(tmp_path / "out/sensitivity.json")
    assert found["base"]["metric"] == "squad_v2"
    assert {row["kind"] for row in found["measurements"]} == {"heads", "neurons", "layers"}
    assert found["quantization"]


@pytest.mark.long
def test_the_manifest_tells_what_the_graph_should_answer(run):
    manifest = read_manifest(run / "artefact")
    assert (manifest.task, manifest.pipeline_tag) == ("question_answering", "question-answering")
    for entry in manifest.entries:
        assert all(len(token) == 2 for output in entry.outputs for token in output), entry.file


@pytest.mark.long
def test_where_every_question_has_an_answer_nothing_is_chosen(root, tmp_path, monkeypatch):
    (tmp_path / "teacher").symlink_to(root / "teacher")
    write_questions(tmp_path)
    names = ("finetune", "task_distill", "export", "evaluate", "benchmark", "report")
    stages = [dict(stage) for stage in RECIPE["stages"] if stage["stage"] in names]
    stages[-1]["repo_id"] = str(tmp_path / "run/artefact")
    # In one window: over several, transformers' pipeline compares shares of each window's own sum, and we its logits.
    stages[-1]["example"] = ["where is card", "my card is lost"]
    assert main(["run", str(question_recipe(tmp_path, stages=stages))]) == 0
    assert not (tmp_path / "run/evaluate/chosen.json").exists()
    card = (tmp_path / "run/artefact/README.md").read_text()
    assert "handle_impossible_answer" not in card
    optimum, plain, torch_fp32 = run_snippets(card, monkeypatch)
    answers = [eval(optimum)["answer"], eval(torch_fp32)["answer"], eval(plain)["answer"]]
    assert len(set(answers)) == 1


@pytest.mark.long
def test_questions_without_answers_are_answered_by_the_teacher_alone(root, tmp_path):
    (tmp_path / "teacher").symlink_to(root / "teacher")
    write_questions(tmp_path)
    further = [{name: row[name] for name in ("context", "question")} for row in questions(40, seed=3)]
    write_jsonl(tmp_path / "more.jsonl", further)
    stages = [dict(stage) for stage in STAGES if stage["stage"] in ("finetune", "task_distill")]
    for stage in stages:
        stage |= {"max_steps": -1, "num_train_epochs": 1}
    counts = {}
    for run, more in (("few", []), ("many", ["more.jsonl"])):
        path = question_recipe(tmp_path, stages=stages, run=run, unlabelled_files=more)
        assert main(["run", str(path)]) == 0
        for name in ("finetune", "task_distill"):
            counts[run, name] = read_json(tmp_path / run / f"stages/{name}.json")["examples"]
    assert counts["many", "finetune"] == counts["few", "finetune"] == counts["few", "task_distill"]
    assert counts["many", "task_distill"] - counts["few", "task_distill"] == len(further)


@pytest.mark.parametrize("family", list(FAMILIES)[::2])  # tests/export has all, with another linear layer as head
def test_families_answer_by_the_graph_as_in_pytorch(family, tokenizer, tmp_path):
    model = tiny(family, head=HEAD, **NAMES)
    task = QuestionAnswering("train.jsonl", "test.jsonl", max_length=40, stride=8)
    table = read_questions(write_jsonl(tmp_path / "rows.jsonl", questions(6)))
    texts = list(task.texts_in(table))
    made = export_onnx(model, tokenizer, tmp_path / "out", texts=texts, max_length=40)
    assert made.fp32.error <= made.fp32.limit
    assert made.manifest.task == "question_answering"
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    windows = task.tokenized(table, saved, {"start": 0, "end": 1})
    runner = load_runner("onnxruntime", tmp_path / "out/onnx/model.onnx", threads=1)
    inputs = [{name: np.array([window[name]]) for name in saved.model_input_names} for window in windows]
    outputs = [runner.run(runner.prepare(one))[0] for one in inputs]
    for one, output in zip(inputs, outputs, strict=True):
        tensors = {name: torch.from_numpy(array) for name, array in one.items()}
        with torch.no_grad():
            found = model(**filter_forward_inputs(model, tensors))
        expected = torch.stack([found.start_logits, found.end_logits], dim=-1)[0]
        assert torch.allclose(torch.from_numpy(output), expected, atol=1e-4)
    assert len(task.predictions(outputs, windows)) == 6


ROW = questions(1)[0]


@pytest.mark.parametrize(("changed", "message"), [
    ({"answers": {"text": ["nowhere"], "answer_start": [0]}}, "answer 'nowhere' in row 3 of .*, where its context has"),
    ({"answers": {"text": [ROW["context"][:4]], "answer_start": [-1]}}, r"from character -1 on; expected: the answer"),
    ({"answers": {"text": [""], "answer_start": [0]}}, "an answer without text in row 3 of .*; expected: one, or"),
    ({"question": " "}, "' ' as question in row 3 of .*; expected: a text"),
    ({"context": "", "answers": {"text": [], "answer_start": []}}, "'' as context in row 3 of .*; expected: a text"),
    ({"answers": {"text": [], "answer_start": []}}, "questions without an answer, for which metric squad has no rule"),
])  # fmt: skip
def test_bad_rows_are_one_line(root, tmp_path, capsys, changed, message):
    (tmp_path / "teacher").symlink_to(root / "teacher")
    write_questions(tmp_path)
    rows = questions(20)
    write_jsonl(tmp_path / "train.jsonl", [*rows[:2], {**ROW, **changed}, *rows[3:]])
    assert main(["run", str(question_recipe(tmp_path, stages=STAGES[:1])), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert re.search(f"task.train_file: .*{message}", told), told
    assert told.count("\n") == 1


@pytest.mark.parametrize(("setting", "message"), [
    ("task.stride=40", "task.stride: 40 with max_length 40; allowed: 0 to 15, since a question may take half"),
    ("task.max_length=8", "task.max_length: 8; allowed: 9 or more"),
    ("task.n_best=0", "task.n_best: 0; allowed: 1 or more"),
    ("task.train_file=no-answers.jsonl", "task.train_file: column 'answers' of .*no-answers.jsonl; allowed: con"),
    ("task.train_file=no-context.jsonl", "task.train_file: column 'context' of .*no-context.jsonl; allowed: answ"),
    ("task.train_file=words.jsonl", "task.train_file: row 1 of .*: answers 'in June'; expected: .*as in SQuAD"),
    ("task.train_file=train.tsv", "task.train_file: .*answers"),
    ("task.unlabelled_files=[bare.jsonl]", "task.unlabelled_files: column 'context' of .*bare.jsonl"),
    ("task.unlabelled_files=[blank.jsonl]", "task.unlabelled_files: ' ' as question in row 2 of .*l; exp"),
    ("finetune.max_steps=0", "finetune.max_steps: 0 for question_answering, whose head is not fitted alone"),
    ("finetune.average_weights=true", "average_weights: true for question_answering, whose head is not fitted first"),
])  # fmt: skip
def test_bad_settings_and_tables_are_one_line(root, tmp_path, capsys, setting, message):
    (tmp_path / "teacher").symlink_to(root / "teacher")
    write_questions(tmp_path)
    row = {"question": "when", "context": "in June", "answers": "in June"}
    write_jsonl(tmp_path / "words.jsonl", [row] * 4)
    write_jsonl(tmp_path / "no-answers.jsonl", [{name: row[name] for name in ("context", "question")}] * 4)
    write_jsonl(tmp_path / "no-context.jsonl", [{name: row[name] for name in ("answers", "question")}] * 4)
    write_jsonl(tmp_path / "bare.jsonl", [{"question": "when"}] * 4)
    write_jsonl(tmp_path / "blank.jsonl", [{"context": "in June", "question": asked} for asked in ("when", " ")])
    (tmp_path / "train.tsv").write_text("question\tcontext\tanswers\nwhen\tin June\tJune\n")
    path = question_recipe(tmp_path, stages=STAGES[:1])
    assert main(["run", str(path), "--dry-run", "--set", setting]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert told.count("\n") == 1


def test_a_teacher_with_another_tasks_head_is_told(root, tmp_path, tokenizer, capsys):
    write_questions(tmp_path)
    tiny(num_labels=2).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    path = question_recipe(tmp_path, stages=[{"stage": "task_distill", "max_steps": 2}])
    assert main(["run", str(path), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert "which has no question-answering head; allowed without the stage finetune: a model fine-tuned for it" in told


def test_a_fine_tuned_teacher_is_taken_as_it_is(tmp_path, tokenizer):
    write_questions(tmp_path)
    tiny(head=HEAD, id2label={0: "LABEL_0", 1: "LABEL_1"}, label2id=None).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    path = question_recipe(tmp_path, stages=[{"stage": "task_distill", "max_steps": 1}])
    assert main(["run", str(path)]) == 0


@pytest.mark.parametrize("stage", ["augment"])
def test_stages_for_whole_texts_say_so(root, capsys, stage):
    stages = [STAGES[0], {"stage": stage}]
    assert main(["run", str(question_recipe(root, stages=stages, metric="squad_v2")), "--dry-run"]) == 2
    assert f"{stage} for question_answering; allowed: for tasks on whole texts" in capsys.readouterr().err
