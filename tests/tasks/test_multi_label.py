import json
import re
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.numpy import load_file
from sklearn.metrics import f1_score
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, pipeline

from edgemin_hf import TaskDistillationConfig, load_pruned, load_quantized
from edgemin_hf.cli import main
from edgemin_hf.tasks.known import task_of, task_type
from edgemin_hf.tasks.multi_label import MultiLabel
from tests.helpers.models import batch, tiny
from tests.helpers.optimum import ORTModelForSequenceClassification
from tests.helpers.optimum import pipeline as optimum_pipeline
from tests.helpers.recipes import write_recipe
from tests.helpers.tasks import (
    NAMES,
    assert_every_stage_speaks_of,
    assert_measured,
    label_sets,
    objective,
    read_json,
    run_snippets,
    write_label_sets,
)
from tests.helpers.training import dataset, make

# Formulas.


def several(seed=0, labels=3, name="label", **changes):
    names = {index: f"{name} {index}" for index in range(labels)}
    changes |= {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    return tiny(seed=seed, problem_type="multi_label_classification", **changes)


def logits_of(shape=(5, 4), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)]


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("labels", [1, 4])
def test_hard_labels_are_the_binary_cross_entropy_of_torch_transformers_and_the_formula(labels):
    logits, _ = logits_of((5, labels))
    truth = (torch.rand(5, labels, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    found = MultiLabel.hard_loss(logits, truth)
    assert found == nn.BCEWithLogitsLoss()(logits, truth)
    probability, known = sigmoid(logits.numpy()), truth.numpy()
    formula = -(known * np.log(probability) + (1 - known) * np.log(1 - probability)).mean()
    assert found.item() == pytest.approx(formula, rel=1e-12)
    assert MultiLabel.hard_loss(logits, truth.long()) == found
    model = several(labels=labels)
    with torch.no_grad():
        output = model(**batch(), labels=truth[:3].float())
    torch.testing.assert_close(output.loss, MultiLabel.hard_loss(output.logits, truth[:3]))


@pytest.mark.parametrize("labels", [1, 4])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_are_the_divergence_of_each_softened_answer(labels, temperature):
    student, teacher = logits_of((5, labels))
    p, q = (sigmoid(side.numpy() / temperature) for side in (teacher, student))
    divergences = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    found = MultiLabel.soft_loss(student, teacher, temperature)
    assert found.item() == pytest.approx(temperature**2 * divergences.mean(), rel=1e-10)
    unsoftened = sigmoid(teacher.numpy()), sigmoid(student.numpy())
    sums = sum(a * np.log(a / b) for a, b in (unsoftened, tuple(1 - side for side in unsoftened))).sum(axis=1)
    assert MultiLabel.divergence(student, teacher).item() == pytest.approx(sums.mean(), rel=1e-10)
    for same in (teacher, 1e4 * teacher):  # certain answers too: no 0 * inf
        assert MultiLabel.soft_loss(same, same, temperature) == 0
        assert MultiLabel.divergence(same, same) == 0
    assert torch.isfinite(MultiLabel.soft_loss(1e4 * student, 1e4 * teacher, temperature))


def test_gradients_are_those_of_finite_differences_and_none_reaches_the_teacher():
    student, teacher = (side.requires_grad_() for side in logits_of())
    truth = (teacher.detach() > 0).double()
    assert torch.autograd.gradcheck(lambda logits: MultiLabel.soft_loss(logits, teacher, 2.0), student)
    assert torch.autograd.gradcheck(lambda logits: MultiLabel.hard_loss(logits, truth), student)
    MultiLabel.soft_loss(student, teacher, 2.0).backward()
    assert teacher.grad is None
    # T^2 keeps the size of the gradient: for high temperatures it is that of half a squared error of logits, / 4.
    (hot,) = torch.autograd.grad(MultiLabel.soft_loss(student, teacher, 1e4), student)
    torch.testing.assert_close(hot, (student - teacher).detach() / 4 / student.numel(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.9])
def test_a_label_is_given_from_the_threshold_on(threshold):
    task = MultiLabel("train.tsv", "test.tsv", threshold=threshold)
    edge = np.log(threshold / (1 - threshold))
    logits = np.array([[edge, np.nextafter(edge, -9), np.nextafter(edge, 9)], [-9, 9, edge - 1e-3]])
    found = task.predictions(logits)
    assert found.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert found.dtype == np.int64
    if threshold == 0.5:
        assert task.predictions(np.float32([[0.0, -1e-30]])).tolist() == [[1, 0]]


def test_the_task_is_known_by_the_head_and_by_the_settings():
    assert task_of(several(labels=1).config) is MultiLabel
    assert task_of(several().config) is MultiLabel
    assert task_type({"metric": "f1_macro"}) == task_type({"type": "multi_label"}) == "multi_label"
    assert task_type({"metric": "f1"}) == "text_classification"
    assert not MultiLabel.compatible(tiny().config)


# Labels.


def lines(*rows):
    return "\n".join(map(json.dumps, rows)) + "\n"


ROWS = [("my card", ["card_problem"]), ("where is it", []), ("send please", ["transfer", "polite"])]
TRUTH = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
IDS = {name: index for index, name in enumerate(NAMES)}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.tsv", "rows.csv", "truths.csv", "numbers.jsonl"])
def test_labels_are_a_list_or_a_column_each(tmp_path, tokenizer, name):
    path, columns = tmp_path / name, None
    if name == "rows.parquet":
        Dataset.from_dict({"text": [text for text, _ in ROWS], "labels": [names for _, names in ROWS]}).to_parquet(path)
    elif name == "numbers.jsonl":
        path.write_text(lines(*({"text": text, **{n: float(n in names) for n in NAMES}} for text, names in ROWS)))
    else:
        write_label_sets(path, ROWS)
    if name == "truths.csv":
        path.write_text(path.read_text().replace("1", "True").replace("0", "false"))
    if name not in ("rows.jsonl", "rows.parquet"):
        columns = list(NAMES)
    task = MultiLabel(name, name, name, label_column="labels", label_columns=columns, max_length=16)
    task.check_table(path)
    assert task.labels(tmp_path) == list(NAMES)
    for rows in (*task.train_and_validation(tmp_path, tokenizer, IDS, seed=0), task.test(tmp_path, tokenizer, IDS)):
        assert rows["labels"][:] == TRUTH
        assert rows["input_ids"][0] == tokenizer("my card")["input_ids"]
    # The numbers are those of the labels' names, whatever the order of the columns.
    reverse = {label: len(NAMES) - 1 - index for label, index in IDS.items()}
    assert task.test(tmp_path, tokenizer, reverse)["labels"][:] == [row[::-1] for row in TRUTH]
    assert task.model_kwargs(IDS)["problem_type"] == "multi_label_classification"


A, B = {"text": "a", "labels": ["x"]}, {"text": "b"}
SEVERAL = {"label_columns": ["x", "y"]}
WRONG = {
    "sometimes a list": (lines(A, {**B, "labels": "x"}), {}, "train_file: 'x' in column 'labels', row 2 of .*one type"),
    "no list": (lines({**B, "labels": "x"}), {}, "train_file: 'x' in column 'labels', row 1 of"),
    "numbers": (lines({**B, "labels": [1]}), {}, r"train_file: \[1\] in column 'labels', row 1 .*labels by name"),
    "no value": (lines(A, {**B, "labels": None}), {}, "train_file: None in column 'labels', row 2 of .*: a label"),
    "a null": (lines(A, {**B, "labels": [None]}), {}, r"train_file: \[None\] in column 'labels', row 2 of"),
    "an empty name": (lines(A, {**B, "labels": [""]}), {}, r"train_file: \[''\] in column 'labels', row 2"),
    "no labels": (lines({**B, "labels": []}), {}, "train_file: column 'labels' of .*no label"),
    "no column": (lines(B), {}, "train_file: column 'labels' of .*; allowed: text"),
    "another value": (lines({**B, "x": 1, "y": 2}), SEVERAL, "train_file: 2 in column 'y', row 1 of .*; allowed: 0, 1"),
    "half a label": (lines({**B, "x": 0.5, "y": 0}), SEVERAL, "train_file: 0.5 in column 'x', row 1 .*; allowed: 0, 1"),
    "no label in any column": (lines({**B, "x": 0, "y": 0}), SEVERAL, "train_file: columns x, y of .*hold no 1"),
    "a missing value": (lines({**B, "x": 1, "y": None}), SEVERAL, "train_file: None in column 'y', row 1 of"),
    "a missing column": (lines({**B, "x": 1}), SEVERAL, "train_file: column 'y' of .*; allowed: text, x"),
    "no threshold": (lines(A), {"threshold": 0.0}, "threshold: 0.0; allowed: above 0 and below 1"),
    "a sure threshold": (lines(A), {"threshold": 1.0}, "threshold: 1.0; allowed: above 0 and below 1"),
    "no columns": (lines(A), {"label_columns": []}, r"label_columns: \[\]; expected: different columns, at least one"),
    "a column twice": (lines(A), {"label_columns": ["x", "x"]}, "label_columns: .*; expected: different columns"),
    "a column for columns": (lines(A), {"label_columns": "x"}, "label_columns: .x.; allowed: a valid "),
    "another metric": (lines(A), {"metric": "pearsonr"}, "metric: pearsonr, .*scores; allowed: accuracy, f1_micro, "),
    "no such task": (lines(A), {"type": "unknown"}, "type: unknown; allowed: text_classification, .*multi_label"),
    "others' labels": (
        lines(A), {"validation_file": "validation.jsonl"}, "validation_file: label_column: 'new' in .*; allowed: x",
    ),
    "of another task": (
        lines(A), {"type": "text_classification", "threshold": 0.5}, "threshold: 0.5; allowed: train_file, test_file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_before_any_weights(place, case, capsys, monkeypatch):
    table, settings, message = WRONG[case]

    def refuse(*_args, **_kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    (place / "train.jsonl").write_text(table)
    (place / "validation.jsonl").write_text(lines({**B, "labels": ["new"]}))

    def change(recipe):
        recipe["task"] = {"type": "multi_label", "train_file": "train.jsonl", "test_file": "train.jsonl"}
        recipe["task"] |= {"label_column": "labels", "max_length": 24, **settings}

    assert main(["run", str(write_recipe(place, change)), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(rf"task\.{message}", error), error


def test_a_method_that_compares_classes_is_refused(place, capsys):
    write_label_sets(place / "sets.jsonl", label_sets(20))
    write_label_sets(place / "others.jsonl", label_sets(20, seed=1))

    def change(recipe):
        recipe["task"] |= {"train_file": "sets.jsonl", "test_file": "others.jsonl"}
        recipe["task"] |= {"type": "multi_label", "label_column": "labels"}
        recipe["stages"] = [{"stage": "finetune"}, {"stage": "task_distill", "also": [{"method": "mlkd_task"}]}]

    assert main(["run", str(write_recipe(place, change)), "--dry-run"]) == 2
    assert "task_distill.contrast_weight: 1.0 with a head for multi_label" in capsys.readouterr().err


# The Trainer alone.


def test_a_trainer_without_a_recipe_teaches_a_student_label_sets(tmp_path, tokenizer):
    teacher, student = several(seed=1), several(num_hidden_layers=2)
    data = dataset(labels=False)
    inputs = tokenizer.pad({name: data[name][:] for name in data.column_names}, return_tensors="pt")
    with torch.no_grad():
        truth = (teacher(**inputs).logits > 0).float()
    data = data.add_column("labels", truth.tolist())
    trainer = make(
        tmp_path, tokenizer, student, teacher, TaskDistillationConfig(), data, data, max_steps=40, learning_rate=3e-3
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.5 * before["eval_loss"]
    with torch.no_grad():
        logits = student(**inputs).logits
    terms = {"soft_labels": MultiLabel.soft_loss(logits, teacher(**inputs).logits, 2.0)}
    terms["hard_labels"] = MultiLabel.hard_loss(logits, truth)
    for name, value in terms.items():
        assert after[f"eval_{name}"] == pytest.approx(0.5 * value.item(), rel=1e-3)


def test_a_teacher_of_another_head_is_refused():
    for teacher, message in (
        (
            tiny(),
            r"teacher_model: problem_type single_label_.* with 3 .*allowed: .*multi_label_",
        ),
        (several(labels=2), r"teacher_model: problem_type multi_label_classification with 2 .*with 3"),
        (several(name="other"), r"teacher_model: labels \['other 0', .*the same order"),
    ):
        with pytest.raises(ValueError, match=message):
            objective(several(), teacher)
    with pytest.raises(ValueError, match=r"allowed: the student's, single_label_classification with 3"):
        objective(tiny(), several())


# A recipe through every stage.

THRESHOLD = 0.4


@pytest.fixture(scope="module")
def root(workplace, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    (root / "teacher").symlink_to(workplace / "teacher")
    for name, rows in (("train", label_sets(200)), ("test", label_sets(60, seed=1))):
        for suffix in ("jsonl", "tsv"):
            write_label_sets(root / f"{name}.{suffix}", rows)
    return root


def recipe_of(root, run, stages, **task):
    def change(recipe):
        recipe["task"] = {"type": "multi_label", "train_file": "train.jsonl", "test_file": "test.jsonl"}
        recipe["task"] |= {"label_column": "labels", "threshold": THRESHOLD, "max_length": 24, **task}
        recipe["raw_text"]["files"] = ["train.tsv"]
        recipe["output_dir"], recipe["stages"] = str(root / run), stages

    return write_recipe(root, change, f"{run}.yaml")


@pytest.fixture(scope="module")
def run(root):
    """Through every stage, with labels as lists."""
    stages = [
        {"stage": "finetune", "max_steps": 150, "learning_rate": 1e-3},
        {"stage": "distill", "relation_heads": 8, "max_steps": 4},
        {"stage": "distill_on_task", "method": "tinybert", "attention_weight": 0, "max_steps": 4},
        {"stage": "task_distill", "max_steps": 30, "learning_rate": 1e-3, "also": [{"method": "pkd"}]},
        {"stage": "prune", "head_sparsity": 0.5, "ffn_sparsity": 0.5, "schedule": "cubic", "rounds": 2, "max_steps": 8},
        {"stage": "quantize", "max_steps": 8},
        {"stage": "prune_vocabulary"},
        {"stage": "export", "fidelity_texts": 16},
        {"stage": "evaluate"},
        {"stage": "benchmark", "sentences": 8, "rounds": 2},
        {"stage": "report", "repo_id": str(root / "run/artefact")},
    ]
    assert main(["run", str(recipe_of(root, "run", stages))]) == 0
    return root / "run"


def truth_of(root):
    rows = [row.split("\t")[1:] for row in (root / "test.tsv").read_text().splitlines()[1:]]
    return np.array(rows, dtype=int)


def micro_f1(labels, predictions):
    return f1_score(labels, predictions, average="micro", zero_division=0)


@pytest.mark.long
def test_every_stage_speaks_of_the_metric(run):
    assert_every_stage_speaks_of("f1_micro", run, 60, learns="finetune")
    card = (run / "artefact/README.md").read_text()
    assert "This model does multi-label text classification on ordinary CPUs" in card
    assert f"whose score is {THRESHOLD} or more" in card
    assert "one of the labels" not in card


@pytest.mark.long
def test_what_is_measured_are_the_predictions(run, root):
    assert_measured(run, truth_of(root), micro_f1)
    results = read_json(run / "evaluate/results.json")
    assert min(found["value"] for found in results.values()) > 0.8
    assert all(found["ci95"][0] < found["value"] < found["ci95"][1] for found in results.values())


@pytest.mark.long
def test_the_graph_gives_what_pytorch_gives(run, root):
    """The INT8 graph by Optimum, and the fake-quantised student: logits of all labels, and the saved predictions."""
    artefact = run / "artefact"
    tokenizer = AutoTokenizer.from_pretrained(artefact)
    texts = [row.split("\t")[0] for row in (root / "test.tsv").read_text().splitlines()[1:]]
    graph = ORTModelForSequenceClassification.from_pretrained(
        artefact, subfolder="onnx", file_name="model_quantized.onnx"
    )
    student, teacher_ids = load_quantized(run / "quantize").eval(), AutoTokenizer.from_pretrained(run / "teacher")
    saved = load_file(run / "evaluate/predictions.safetensors")
    for index, text in enumerate(texts):
        theirs = graph(**tokenizer(text, return_tensors="pt")).logits
        with torch.no_grad():
            ours = student(**teacher_ids(text, return_tensors="pt")).logits
        torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=1e-3)
        given = (theirs.sigmoid()[0] >= THRESHOLD).long().tolist()
        assert saved["student_onnxruntime_int8"][index].tolist() == given


@pytest.mark.long
def test_the_checkpoint_says_what_its_output_is(run):
    for folder in ("teacher", "task_distill", "quantize", "artefact"):
        config = AutoConfig.from_pretrained(run / folder)
        assert config.problem_type == "multi_label_classification"
        assert config.id2label == dict(enumerate(NAMES))


@pytest.mark.long
def test_the_snippets_of_the_card_give_all_labels_and_agree(run, monkeypatch):
    card = (run / "artefact/README.md").read_text()
    assert card.count("top_k=None") == 3
    optimum, plain, torch_fp32 = (eval(answer) for answer in run_snippets(card, monkeypatch))
    for answer in (optimum, torch_fp32):
        assert {found["label"] for found in answer} == set(NAMES)
    scores = {found["label"]: found["score"] for found in optimum}
    assert plain == pytest.approx({name: score for name, score in scores.items() if score >= THRESHOLD}, abs=1e-4)
    assert list(plain) == [name for name in NAMES if name in plain]
    fp32 = AutoModelForSequenceClassification.from_pretrained(run / "artefact")
    text = re.search(r'predict_proba\("(.*?)"\)', card)[1]
    with torch.no_grad():
        tokenizer = AutoTokenizer.from_pretrained(run / "artefact")
        logits = fp32(**tokenizer(text, truncation=True, max_length=24, return_tensors="pt")).logits[0]
    expected = dict(zip(NAMES, logits.sigmoid().tolist(), strict=True))
    assert {found["label"]: found["score"] for found in torch_fp32} == pytest.approx(expected, abs=1e-5)


@pytest.mark.long
def test_pipelines_take_the_sigmoid_of_each_label(run, root):
    artefact = run / "artefact"
    tokenizer = AutoTokenizer.from_pretrained(artefact)
    model = ORTModelForSequenceClassification.from_pretrained(
        artefact, subfolder="onnx", file_name="model_quantized.onnx"
    )
    classify = optimum_pipeline("text-classification", model=model, tokenizer=tokenizer, accelerator="ort")
    found = classify("please send money", top_k=None)
    logits = model(**tokenizer("please send money", return_tensors="pt")).logits[0]
    expected = dict(zip(NAMES, logits.sigmoid().tolist(), strict=True))
    assert {one["label"]: one["score"] for one in found} == pytest.approx(expected, abs=1e-5)


@pytest.mark.long
def test_a_threshold_is_part_of_what_a_stage_is_made_of(run, root, capsys):
    assert main(["run", str(root / "run.yaml"), "--set", "task.threshold=0.6"]) == 2
    assert "made with task.threshold: 0.4 -> 0.6" in capsys.readouterr().err


@pytest.mark.long
def test_a_label_that_only_the_test_set_has_is_told_in_one_line(run, root, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    for odd, message in (
        (
            ["card_problem", "news"],
            "task.test_file: label_column: 'news' in the data; allowed: card_problem, ",
        ),
        (None, "task.test_file: None in column 'labels', row 61 of"),
    ):
        rows = (root / "test.jsonl").read_text() + json.dumps({"text": "my card", "labels": odd}) + "\n"
        (tmp_path / "odd.jsonl").write_text(rows)
        changes = [f"output_dir={tmp_path / 'run'}", f"task.test_file={tmp_path / 'odd.jsonl'}"]
        arguments = ["run", str(root / "run.yaml"), *(part for change in changes for part in ("--set", change))]
        assert main([*arguments, "--overwrite"]) == 2
        captured = capsys.readouterr()
        assert re.search(f"^edgemin: {message}", captured.err, re.MULTILINE), captured.err
        assert "prune_vocabulary" not in captured.out


@pytest.mark.long
def test_a_teacher_with_a_label_that_has_no_column_is_refused(run, root, capsys):
    stages = [{"stage": "task_distill"}]
    path = recipe_of(root, "two", stages, label_columns=list(NAMES[:2]), train_file="train.tsv", test_file="test.tsv")
    assert main(["run", str(path), "--dry-run", "--set", f"teacher.model={run / 'teacher'}"]) == 2
    assert "task: no column for label 'transfer'" in capsys.readouterr().err


@pytest.mark.long
def test_pairs_get_all_their_labels_too(run):
    student, tokenizer = load_pruned(run / "artefact"), AutoTokenizer.from_pretrained(run / "artefact")
    classify = pipeline("text-classification", model=student, tokenizer=tokenizer)
    found = classify({"text": "my card", "text_pair": "please"}, truncation=True, max_length=24, top_k=None)
    assert {one["label"] for one in found} == set(NAMES)


@pytest.mark.long
def test_a_finished_artefact_is_measured_again(run, capsys):
    assert main(["benchmark", str(run / "artefact"), "--rounds", "1", "--threads", "1"]) == 0
    assert "student  onnxruntime  int8" in capsys.readouterr().out


SIZE_MB = 0.072
BY_INC = {"saliency": "snip_momentum", "schedule": "iterative", "rounds": 2}


VARIANTS = {
    "by neural compressor": (
        [
            {"stage": "prune", "ffn_sparsity": 0.5, **BY_INC, "max_steps": 8},
            {"stage": "quantize", "provider": "inc", "max_steps": 2},
        ],
        {},
    ),
    "one-shot, reconstructed INT4": (
        [
            {"stage": "prune", "head_sparsity": 0.5, "max_steps": 0},
            {"stage": "quantize", "weights": "int4", "max_steps": 0, "reconstruction": {"steps": 2, "examples": 16}},
        ],
        {"metric": "f1_macro"},
    ),
    "for a size": (
        [{"stage": "quantize", "target_size_mb": SIZE_MB, "max_steps": 0, "calibration_examples": 16}],
        {"label_columns": list(NAMES), "train_file": "train.tsv", "test_file": "test.tsv"},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_ways_to_prune_and_quantise_label_sets(variant, run, root):
    if variant == "by neural compressor":
        pytest.importorskip("neural_compressor")
    stages, task = VARIANTS[variant]
    path = recipe_of(root, variant, [*stages, {"stage": "export", "fidelity_texts": 16}, {"stage": "evaluate"}], **task)
    arguments = ["run", str(path), "--set", f"teacher.model={run / 'teacher'}"]
    assert main(arguments) == 0
    metric = task.get("metric", "f1_micro")
    assert_measured(
        root / variant,
        truth_of(root),
        lambda labels, found: f1_score(labels, found, average=metric.removeprefix("f1_"), zero_division=0),
    )
    quantize = read_json(root / variant / "stages/quantize.json")
    assert quantize["metric"] == metric
    if variant == "for a size":
        graph = root / variant / "export/student/onnx/model_quantized.onnx"
        graph = graph if graph.is_file() else graph.with_name("model_q4.onnx")
        assert graph.stat().st_size <= 1e6 * SIZE_MB
        assert "int4" in quantize["precisions"].values()


@pytest.mark.long
@pytest.mark.parametrize("columns", [[], ["--label-columns", *NAMES]])
def test_sensitivity_of_label_sets(columns, run, root, tmp_path, capsys):
    train, test = ("train.tsv", "test.tsv") if columns else ("train.jsonl", "test.jsonl")
    output = tmp_path / "sensitivity"
    arguments = ["sensitivity", str(run / "teacher"), "--train", str(root / train), "--data", str(root / test)]
    arguments += ["--output", str(output), "--metric", "f1_micro", "--measure", "pruning", "quantization"]
    arguments += ["--saliency-examples", "32", "--sparsities", "0.5", "--threads", "1", "--examples", "0"]
    arguments += ["--max-length", "24"]
    assert main([*arguments, *(columns or ["--label-column", "labels"])]) == 0
    numbers = read_json(output / "sensitivity.json")
    assert numbers["base"]["metric"] == "f1_micro"
    assert numbers["quantization_loss"] == "kl_divergence"
    assert {row["value"] for row in numbers["measurements"]} != {numbers["base"]["value"]}
    assert "micro F1" in (output / "sensitivity.html").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(run / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(run / "teacher")
    texts = [row.split("\t")[0] for row in (root / "test.tsv").read_text().splitlines()[1:]]
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    assert numbers["base"]["value"] == pytest.approx(micro_f1(truth_of(root), (logits >= 0).numpy()), abs=0.02)
    for wrong, message in (
        (["--metric", "pearsonr"], "metric: pearsonr"),
        (["--label-columns", "polite"], "no column for label" if columns else "train: column .polite."),
        (["--label-column", "text", "--label-columns", "text"], "label_column: text"),
    ):
        assert main([*arguments, *columns, *wrong, "--output", str(tmp_path / "no")]) == 2
        assert re.search(message, capsys.readouterr().err)
