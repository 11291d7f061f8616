import contextlib
import io
import json
import re
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from helpers.models import batch, sentences, tiny
from helpers.recipes import only, put, write_recipe
from safetensors.numpy import load_file
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import AutoConfig

from edgemin_hf import TaskDistillationConfig
from edgemin_hf.benchmark.runners import OnnxRunner, PyTorchRunner
from edgemin_hf.cli import main
from edgemin_hf.distillation.task import TEACHER_LOGITS
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.plan import make_plan
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks.known import TASKS, task_type
from edgemin_hf.tasks.metrics import METRICS, measure
from edgemin_hf.tasks.regression import Regression
from edgemin_hf.tasks.text_classification import TextClassification


def predicted(name, examples=60, labels=3, seed=0):
    """Labels and imperfect predictions of the kind that a metric is for."""
    generator = np.random.default_rng(seed)
    if METRICS[name].answer == "score":
        truth = generator.integers(0, 11, examples) / 2  # with ties, like averaged human scores
        return truth, (truth + generator.normal(size=examples)).astype(np.float32)
    labels = 2 if name == "f1" else labels
    truth = generator.integers(0, labels, examples)
    return truth, np.where(generator.random(examples) < 0.7, truth, generator.integers(0, labels, examples))


REFERENCE = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews_correlation": matthews_corrcoef,
    "pearsonr": lambda labels, predictions: pearsonr(labels, predictions).statistic,
    "spearmanr": lambda labels, predictions: spearmanr(labels, predictions).statistic,
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_those_of_the_libraries_one_by_one_and_many_at_once(name):
    pairs = [predicted(name, seed=seed) for seed in range(4)]
    expected = [REFERENCE[name](*pair) for pair in pairs]
    many = METRICS[name].compute(*(np.stack(side) for side in zip(*pairs, strict=True)))
    np.testing.assert_allclose(many, expected, rtol=1e-6)
    for pair, value in zip(pairs, expected, strict=True):
        assert measure(name, *pair)["value"] == pytest.approx(value, rel=1e-6)
    assert METRICS[name].compute(pairs[0][0], pairs[0][0]) == pytest.approx(1)


@pytest.mark.parametrize("name", ["f1", "matthews_correlation", "pearsonr", "spearmanr"])
def test_a_metric_of_nothing_to_tell_apart_is_zero(name):
    labels, _ = predicted(name)
    assert measure(name, labels, np.zeros_like(labels))["ci95"] == [0, 0]


@pytest.mark.parametrize("name", METRICS)
def test_intervals_are_repeatable_and_those_of_a_plain_bootstrap(name):
    labels, predictions = predicted(name, examples=150)
    found = measure(name, labels, predictions)
    assert found == measure(name, labels, predictions)
    assert (found["metric"], found["n"]) == (name, 150)
    generator = np.random.default_rng(7)
    drawn = [generator.integers(0, 150, 150) for _ in range(600)]
    values = [REFERENCE[name](labels[rows], predictions[rows]) for rows in drawn]
    # Both are random, or Wilson's: a tenth of the interval's width is what they may differ by.
    low, high = np.percentile(values, [2.5, 97.5])
    np.testing.assert_allclose(found["ci95"], [low, high], atol=0.15 * (high - low))
    assert found["ci95"][0] < found["value"] < found["ci95"][1]


def regression(seed=0, name="score", problem_type="regression"):
    return tiny(seed=seed, id2label={0: name}, label2id={name: 0}, num_labels=1, problem_type=problem_type)


def objective(student, teacher=None, **settings):
    return TaskDistillationConfig(**settings).objective(Encoder(student), Encoder(teacher) if teacher else None)


def test_a_regression_learns_scores_by_squared_error_whatever_the_temperature():
    student, teacher = regression(seed=0), regression(seed=1)
    with torch.no_grad():
        ours, theirs = (model(**batch()).logits for model in (student, teacher))
    labels = torch.tensor([0.5, 4.25, 2.0])
    losses = []
    for temperature in (1.0, 3.0):
        compute = objective(student, teacher, soft_weight=0.3, hard_weight=0.7, temperature=temperature)
        losses.append(compute(Recording(logits=ours), Recording(logits=theirs), {"labels": labels}))
        beforehand = {"labels": labels, TEACHER_LOGITS: theirs}
        assert compute(Recording(logits=ours), Recording(), beforehand) == losses[-1]
    s, t = (scores.numpy().astype(np.float64).ravel() for scores in (ours, theirs))
    assert losses[0] == losses[1]
    assert losses[0]["soft_labels"].item() == pytest.approx(0.3 * np.mean((s - t) ** 2), rel=1e-5)
    assert losses[0]["hard_labels"].item() == pytest.approx(0.7 * np.mean((s - labels.numpy()) ** 2), rel=1e-5)


def test_student_and_teacher_must_have_like_heads():
    score = regression()
    objective(score, regression(name="similarity"))
    objective(regression(problem_type=None), score)  # as transformers takes it
    for student, teacher, message in (
        (
            score,
            tiny(),
            r"teacher_model: problem_type single_label_classification with 3 .*allowed: .*regression with 1",
        ),
        (tiny(), score, "teacher_model: problem_type regression with 1 label.*single_label_classification with 3"),
        (tiny(problem_type="regression"), None, r"model: problem_type regression with 3 label\(s\)"),
        (regression(problem_type="single_label_classification"), None, "model: .* with 1 label"),
    ):
        with pytest.raises(ValueError, match=message):
            objective(student, teacher)
    logits = Recording(logits=torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"teacher_logits: \(4, 3\); allowed: \(4, 1\)"):
        objective(score)(logits, Recording(), {TEACHER_LOGITS: torch.zeros(4, 3), "labels": torch.zeros(4)})


def write_pairs(path, count, seed):
    """Pair of sentences; the label is the class of the first, the score says how many are of the second class."""
    rows, others = sentences(count, seed), sentences(count, seed + 1)
    order = np.random.default_rng(seed).permutation(count)
    lines = ["sentence1\tsentence2\tlabel\tscore"]
    for (first, ours), (second, theirs) in zip(rows, (others[i] for i in order), strict=True):
        transfers = (ours == "transfer") + (theirs == "transfer")
        lines.append(f"{first}\t{second}\t{int(ours == 'transfer')}\t{2.5 * transfers}")
    path.write_text("\n".join(lines) + "\n")


KINDS = {
    "pairs": {"metric": "f1", "validation_file": "validation.tsv"},
    "regression": {"metric": "spearmanr", "label_column": "score"},
}


@pytest.fixture(scope="module")
def root(workplace, tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    (root / "teacher").symlink_to(workplace / "teacher")
    for name, count, seed in (("train", 160, 0), ("validation", 32, 10), ("test", 40, 20)):
        write_pairs(root / f"{name}.tsv", count, seed)
    return root


def pair_recipe(root, name, *changes):
    def change(recipe):
        recipe["task"] |= {"text_column": "sentence1", "text_pair_column": "sentence2", "max_length": 40, **KINDS[name]}
        recipe["raw_text"]["text_column"] = "sentence1"
        recipe["output_dir"] = str(root / name)
        for one in changes:
            one(recipe)

    return write_recipe(root, change, f"{name}.yaml")


@pytest.fixture(scope="module", params=KINDS)
def finished(request, root):
    run = root / request.param
    longer = [put("finetune.max_steps", 100), put("task_distill.max_steps", 60)]
    recipe = pair_recipe(root, request.param, *longer, put("report.repo_id", str(run / "artefact")))
    assert main(["run", str(recipe)]) == 0
    return run, KINDS[request.param]["metric"]


def read_json(path):
    return json.loads(path.read_text())


def test_every_stage_speaks_of_the_metric(finished):
    run, metric = finished
    records = {file.stem: read_json(file) for file in (run / "stages").glob("*.json")}
    assert {records[stage]["metric"] for stage in ("finetune", "task_distill", "prune", "quantize")} == {metric}
    assert records["task_distill"]["after"] > records["task_distill"]["before"]
    for row in read_json(run / "artefact/benchmark.json")["rows"]:
        assert (row["metric"], row["n"]) == (metric, 40)
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
    title = METRICS[metric].title
    for file in ("README.md", "report.html"):
        text = (run / "artefact" / file).read_text()
        assert METRICS[metric].heading in text
        assert f"Its {title}" in text
        assert "accuracy" not in text.lower()
    assert title in (run / "artefact/figures/size_metric.svg").read_text()


def test_what_is_measured_are_the_predictions(finished, root):
    run, metric = finished
    lines = [line.split("\t") for line in (root / "test.tsv").read_text().splitlines()[1:]]
    labels = np.array([float(line[3]) if METRICS[metric].answer == "score" else int(line[2]) for line in lines])
    results = read_json(run / "evaluate/results.json")
    for name, predictions in load_file(run / "evaluate/predictions.safetensors").items():
        assert results[name]["value"] == pytest.approx(REFERENCE[metric](labels, predictions), abs=1e-6)


def test_the_checkpoint_says_what_its_output_is(finished):
    run, metric = finished
    for folder in ("teacher", "artefact"):
        config = AutoConfig.from_pretrained(run / folder)
        kind = (
            ("regression", {0: "score"}) if metric == "spearmanr" else ("single_label_classification", {0: "0", 1: "1"})
        )
        assert (config.problem_type, config.id2label) == kind


def test_the_snippets_of_the_card_take_a_pair_and_agree(finished, monkeypatch):
    run, metric = finished
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, allow_patterns: repo)
    answers = []
    for snippet in re.findall(r"```python\n(.*?)```", (run / "artefact/README.md").read_text(), re.DOTALL):
        assert re.search(r'"text": ".*", "text_pair": "|encode\(".*", "', snippet)
        if "OVModel" in snippet:
            continue  # which `make test-openvino` runs, from a card of one text
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(snippet, {})
        answers.append(output.getvalue())
    if metric == "f1":
        assert re.findall("'label': '([01])'", "".join(answers)) == [answers[1].strip()] * 2
    else:
        optimum, plain, torch_fp32 = (float(re.search(r"-?\d+\.\d+", answer)[0]) for answer in answers)
        assert optimum == pytest.approx(plain, abs=1e-4)
        assert torch_fp32 == pytest.approx(plain, abs=0.5)
        assert all("score" in answer for answer in answers)


def test_pairs_of_a_file_are_benchmarked_as_pairs(finished, tmp_path, capsys, monkeypatch):
    run, _ = finished
    (tmp_path / "texts").write_text("where is my card\tmy card is lost\nsend money\n")
    lengths = []
    monkeypatch.setattr(OnnxRunner, "prepare", lambda self, inputs: lengths.append(inputs["input_ids"].shape[1]))
    monkeypatch.setattr(PyTorchRunner, "run", lambda self, prepared: None)
    monkeypatch.setattr(OnnxRunner, "run", lambda self, prepared: None)
    assert main(["benchmark", str(run / "artefact"), "--texts", str(tmp_path / "texts"), "--threads", "1"]) == 0
    assert lengths == [4 + 4 + 3, 2 + 2] * 2
    assert "accuracy" not in capsys.readouterr().out


def test_a_teacher_that_is_not_fine_tuned_must_be_one_for_the_task(root, finished, tmp_path, capsys):
    run, metric = finished
    shutil.copytree(run / "teacher", tmp_path / "teacher")
    config = read_json(tmp_path / "teacher/config.json") | {"problem_type": None}
    (tmp_path / "teacher/config.json").write_text(json.dumps(config))
    changes = [only("task_distill"), put("teacher.model", str(tmp_path / "teacher"))]
    (own, other) = ("pairs", "regression") if metric == "f1" else ("regression", "pairs")
    assert main(["run", str(pair_recipe(root, other, put("output_dir", str(tmp_path / "out")), *changes))]) == 2
    assert re.search(r"teacher\.model: .* label\(s\) and problem_type None; allowed for", capsys.readouterr().err)
    path = pair_recipe(root, own, put("output_dir", str(tmp_path / "out")), *changes)
    recipe, settings = load_recipe(path)
    make_plan(recipe, root)
    student = recipe.stages[0].student(Context(recipe, settings, root, tmp_path / "out"))
    assert student.config.problem_type == recipe.task.problem_type


def test_rows_are_tokenised_as_pairs_from_the_tables_that_are_named(root, tokenizer):
    columns = {"text_column": "sentence1", "text_pair_column": "sentence2", "max_length": 12}
    task = TextClassification("train.tsv", "test.tsv", "validation.tsv", **columns)
    task.check(root)
    train, validation = task.train_and_validation(root, tokenizer, {"0": 0, "1": 1}, seed=0)
    assert (len(train), len(validation)) == (160, 32)
    lines = [line.split("\t") for line in (root / "validation.tsv").read_text().splitlines()[1:]]
    assert task.texts(root, 3, seed=0) == [(first, second) for first, second, *_ in lines[:3]]
    for row, (first, second, label, _) in zip(validation, lines, strict=True):
        assert row == {**tokenizer(first, second, truncation=True, max_length=12), "labels": int(label)}
        assert len(row["input_ids"]) <= 12
    scores = Regression("train.tsv", "test.tsv", label_column="score", metric="pearsonr", **columns)
    assert scores.labels(root) == ["score"]
    train, validation = scores.train_and_validation(root, tokenizer, {}, seed=0)
    assert (len(train), len(validation)) == (144, 16)
    assert set(train["labels"]) == {0.0, 2.5, 5.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "bleu"}, "metric: bleu; allowed: accuracy, f1, matthews_correlation$"),
        ({"metric": "f1", "label_column": "score"}, r"metric: f1 with 3 label\(s\); allowed: .*two labels"),
        ({"metric": "spearmanr", "label_column": "sentence2"}, "train_file: '.*' in column .*, row 1 .*: a number"),
        ({"text_pair_column": "sentence3"}, "train_file: column 'sentence3' of .*; allowed: sentence1, sentence2"),
        ({"text_pair_column": "sentence2", "max_length": 5}, "max_length: 5; allowed: 6 or more"),
        ({"validation_file": "no.tsv"}, r"validation_file: .*no\.tsv, which is no file"),
        ({"validation_file": "odd.tsv"}, "label_column: 'maybe' in the data; allowed: 0, 1"),
    ],
)
def test_a_task_that_can_not_be_is_refused(root, settings, message):
    write_pairs(root / "odd.tsv", 8, 0)
    (root / "odd.tsv").write_text((root / "odd.tsv").read_text().replace("\t1\t", "\tmaybe\t"))
    with pytest.raises(ValueError, match=message):
        TASKS[task_type(settings)](
            **{"train_file": "train.tsv", "test_file": "test.tsv", "text_column": "sentence1", **settings}
        ).check(root)
