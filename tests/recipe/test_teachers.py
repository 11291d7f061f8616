import json

import numpy as np
import pyarrow.parquet as parquet
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel, BertTokenizerFast

from edgemin_hf.cli import main
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.stages.labels_alone import training_on_labels
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.training.trainer import DistillationTrainer
from tests.helpers.models import LABELS, VOCABULARY, tiny
from tests.helpers.recipes import only, write_recipe


@pytest.fixture
def published(place):
    """A published checkpoint whose tokens are others than the teacher's, in another order."""
    folder = place / "published"
    words = [*VOCABULARY[:5], "transfer", "account", *VOCABULARY[:4:-1]]
    BertModel(tiny(num_hidden_layers=2, vocab_size=len(words)).config).save_pretrained(folder)
    (place / "words.txt").write_text("\n".join(words))
    BertTokenizerFast(str(place / "words.txt"), model_max_length=64).save_pretrained(folder)
    return place


def said(run, folder):
    """What a model says of the validation rows of a run, text by text."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = parquet.read_table(run / "rows/validation.parquet")["text"].to_pylist()
    inputs = (tokenizer(text, return_tensors="pt", truncation=True, max_length=24) for text in texts)
    return np.concatenate([model(**one).logits.detach().numpy() for one in inputs])


def whole(*changes):
    """All stages that need no tokens in common, with a student from the published checkpoint."""

    def change(recipe):
        only("finetune", "task_distill", "prune", "quantize", "export", "evaluate", "benchmark", "report")(recipe)
        recipe["student"] = {"checkpoint": "published"}
        recipe.pop("raw_text")
        for one in changes:
            one(recipe)

    return change


@pytest.mark.long
def test_a_teacher_with_other_tokens_teaches_to_the_artefact(published):
    def cut(recipe):
        recipe["stages"].insert(4, {"stage": "prune_vocabulary"})

    assert main(["run", str(write_recipe(published, whole(cut)))]) == 0
    run = published / "run"
    vocabularies = {
        name: AutoTokenizer.from_pretrained(run / name).get_vocab()
        for name in ("teacher", "task_distill", "prune", "quantize", "artefact", "export/teacher/onnx")
    }
    theirs = AutoTokenizer.from_pretrained(published / "teacher").get_vocab()
    own = AutoTokenizer.from_pretrained(published / "published").get_vocab()
    assert vocabularies["teacher"] == vocabularies["export/teacher/onnx"] == theirs
    assert vocabularies["task_distill"] == vocabularies["prune"] == vocabularies["quantize"] == own
    assert set(vocabularies["artefact"]) < set(own)  # cut
    results = json.loads((run / "evaluate/results.json").read_text())
    assert {name.split("_")[0] for name in results} == {"teacher", "student"}
    # What the student learned from is what the teacher says of its own tokens of the same texts.
    kept = load_file(run / "cache/validation_logits.safetensors")["logits"]
    np.testing.assert_allclose(kept, said(run, run / "teacher"), rtol=1e-5, atol=1e-5)


def beside(recipe):
    recipe["stages"][1] = {**recipe["stages"][1], "also": [{"method": "minilm"}]}


TOKENS = {
    "a stage": (only("finetune", "distill", "task_distill"), "distill"),
    "beside": (beside, "also of task_distill"),
}


@pytest.mark.parametrize("case", TOKENS)
def test_what_compares_tokens_says_why_it_refuses_others(published, capsys, case):
    change, stage = TOKENS[case]

    def changed(recipe):
        raw = recipe["raw_text"]
        whole(change)(recipe)
        recipe["raw_text"] = raw

    assert main(["run", str(write_recipe(published, changed)), "--dry-run"]) == 2
    assert (
        f"student.checkpoint: published, whose vocabulary of 73 is not the teacher's; allowed beside {stage}, which "
        "compares the two token by token: a model with the teacher's 71 tokens and their ids"
    ) in capsys.readouterr().err


def fine_tuned(folder, names, like, **changes):
    """A model that knows the labels by their names, with the tokenizer of another folder."""
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    tokenizer = AutoTokenizer.from_pretrained(like)
    tiny(num_labels=len(names), vocab_size=len(tokenizer), **labels, **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def several(published):
    """Three teachers: the second with other tokens, the third with its labels in another order."""
    fine_tuned(published / "first", LABELS, published / "teacher")
    fine_tuned(published / "second", LABELS, published / "published", seed=1)
    fine_tuned(published / "third", LABELS[::-1], published / "teacher", seed=2, num_hidden_layers=1)
    return published


def ensemble(*names):
    def change(recipe):
        only("task_distill")(recipe)
        recipe["teacher"] = {"model": "first", "ensemble": list(names)}

    return change


def test_several_teachers_teach_the_mean_of_their_logits(several):
    path = write_recipe(several, ensemble("second", "third"))
    assert main(["run", str(path)]) == 0
    run = several / "run"
    recipe, settings = load_recipe(path)
    _, validation = Context(recipe, settings, several, run).rows_with_teacher_logits(recipe.stages[0])
    by_name = [said(run, several / name) for name in ("first", "second", "third")]
    by_name[2] = by_name[2][:, ::-1]
    mean = np.mean(np.array(by_name, dtype=np.float64), axis=0)
    np.testing.assert_allclose(np.array(validation["teacher_logits"]), mean, rtol=1e-5, atol=1e-5)
    record = json.loads((run / "stages/task_distill.json").read_text())
    assert len(record["inputs"]["ensemble"]) == 2
    assert main(["run", str(write_recipe(several, ensemble("second"))), "--dry-run"]) == 2  # another teacher


ENSEMBLES = {
    "without a head": ("published", "teacher.ensemble: published, which has no text-classification head; allowed: "),
    "other labels": (
        "others",
        "teacher.ensemble: others, of labels a, b; allowed: the same labels, in any order: card",
    ),
    "more labels": ("more", "teacher.ensemble: more, of labels card_problem, transfer, b; allowed: the same labels"),
    "nothing": ("nowhere", "teacher.ensemble: "),
    "few positions": ("short", "task.max_length: 24; allowed: 3 to 16, short's positions"),
}


@pytest.mark.parametrize("case", ENSEMBLES)
def test_odd_ensembles_are_one_line(several, capsys, case):
    name, message = ENSEMBLES[case]
    fine_tuned(several / "others", ("a", "b"), several / "teacher")
    fine_tuned(several / "more", (*LABELS, "b"), several / "teacher")
    fine_tuned(several / "short", LABELS, several / "teacher", max_position_embeddings=16)
    assert main(["run", str(write_recipe(several, ensemble(name))), "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


UNLABELLED = ["please send the money now", "my old card is lost", "transfer to the new account"]


@pytest.fixture
def predicted(published):
    """Probabilities of all training texts, and of texts without labels."""
    lines = (published / "train.tsv").read_text().splitlines()[1:]
    texts = sorted({line.split("\t")[0] for line in lines} | set(UNLABELLED))
    chances = np.random.default_rng(0).dirichlet((1, 1), len(texts)).tolist()
    answers = [
        {"text": text, "probabilities": dict(zip(LABELS, two, strict=True))}
        for text, two in zip(texts, chances, strict=True)
    ]
    (published / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (published / "more.txt").write_text("\n\n".join(UNLABELLED))
    return published


def from_a_table(*stages, **settings):
    def change(recipe):
        only(*stages)(recipe)
        recipe["teacher"] = {"predictions": "answers.jsonl"}
        recipe["student"] = {"checkpoint": "published"}
        recipe["task"]["unlabelled_files"] = ["more.txt"]
        recipe.pop("raw_text")
        recipe.update(settings)

    return change


@pytest.fixture
def rows_of(predicted):
    """The rows that a student learns the task from, by a changed recipe."""

    def rows(change):
        recipe, settings = load_recipe(write_recipe(predicted, change))
        return Context(recipe, settings, predicted, predicted / "run").rows_with_teacher_logits(recipe.stages[0])

    return rows


TABLE_RIVALS = ["frozen_encoder", "labels_alone"]


@pytest.mark.long
def test_a_table_teaches_to_the_artefact(predicted):
    def change(recipe):
        from_a_table("task_distill", "prune", "quantize", "export", "evaluate", "benchmark", "report")(recipe)
        recipe["stages"].insert(-1, {"stage": "rivals", "rivals": TABLE_RIVALS, "sentences": 4, "rounds": 1})
        recipe["stages"].insert(2, {"stage": "prune_vocabulary"})

    assert main(["run", str(write_recipe(predicted, change))]) == 0
    run = predicted / "run"
    assert (run / "artefact/onnx/model_quantized.onnx").is_file()
    results = json.loads((run / "evaluate/results.json").read_text())
    assert {name.split("_")[0] for name in results} == {"student"}
    assert {row["model"] for row in json.loads((run / "artefact/benchmark.json").read_text())["rows"]} == {"student"}
    card = (run / "artefact/README.md").read_text()
    assert "a small encoder that learned from the predictions of a table, `answers.jsonl`" in card
    assert "Predictions: answers.jsonl." in (run / "artefact/report.html").read_text()
    names = [row["name"] for row in json.loads((run / "rivals/rivals.json").read_text())["rows"]]
    assert names == [
        "this student, INT8",
        "frozen encoder, linear head, fp32",
        "frozen encoder, linear head, INT8",
        "student's checkpoint, labels alone, INT8",
    ]
    record = json.loads((run / "stages/task_distill.json").read_text())
    assert {"predictions", "unlabelled_files"} <= set(record["inputs"])
    assert "teacher" not in record["inputs"]


def test_rows_come_with_what_the_table_says_and_texts_without_labels_at_their_end(predicted, rows_of):
    train, validation = rows_of(from_a_table("task_distill"))
    assert train["labels"][-3:] == [-100] * 3
    assert -100 not in train["labels"][:-3]
    assert "teacher_logits" not in validation.column_names
    answers = [json.loads(line) for line in (predicted / "answers.jsonl").read_text().splitlines()]
    chances = {answer["text"]: [answer["probabilities"][label] for label in LABELS] for answer in answers}
    tokenizer = AutoTokenizer.from_pretrained(predicted / "published")
    for row in [train[0], *train.select(range(len(train) - 3, len(train)))]:
        weights = np.exp(row["teacher_logits"])
        text = tokenizer.decode(row["input_ids"], skip_special_tokens=True)
        np.testing.assert_allclose(weights / weights.sum(), chances[text], rtol=1e-5)


def test_a_teacher_labels_texts_without_labels_itself(several, rows_of):
    def change(recipe):
        only("task_distill")(recipe)
        recipe["teacher"] = {"model": "first"}
        recipe["task"]["unlabelled_files"] = ["more.txt", "more.csv"]

    (several / "more.csv").write_text("label,text\n,where is my money\n")
    train, validation = rows_of(change)
    assert train["labels"][-4:] == [-100] * 4
    assert "teacher_logits" in validation.column_names
    teacher = AutoModelForSequenceClassification.from_pretrained(several / "first")
    tokenizer = AutoTokenizer.from_pretrained(several / "first")
    texts = [*UNLABELLED, "where is my money"]
    expected = [teacher(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]
    np.testing.assert_allclose(train["teacher_logits"][-4:], expected, rtol=1e-5, atol=1e-5)


def test_of_a_table_the_rivals_are_those_that_need_no_model_and_no_text_without_labels(predicted):
    def change(recipe):
        from_a_table("task_distill", "export")(recipe)
        recipe["stages"].append({"stage": "rivals"})

    recipe, settings = load_recipe(write_recipe(predicted, change))
    context = Context(recipe, settings, predicted, predicted / "run")
    made, left_out = recipe.stages[-1].chosen(context)
    assert {"bag_of_words", "frozen_encoder", "labels_alone"} <= set(made)
    assert "openvino of a teacher that is a table; allowed: with teacher.model" in left_out
    training = training_on_labels(context)
    rows = training.parts(context).train
    assert -100 not in rows["labels"]
    assert training.text(context).examples == len(rows)
    student = recipe.stages[0]
    assert student.text(context).examples == len(rows) + len(UNLABELLED) == len(student.parts(context).train)


@pytest.mark.long
def test_labels_as_predictions_train_what_labels_train(predicted):
    """At temperature 1 the divergence from a label is the cross-entropy with it: the weights are the same."""
    (predicted / "labels.tsv").write_text((predicted / "train.tsv").read_text())
    weights = {}
    for name, soft in (("soft", 1.0), ("hard", 0.0)):
        stage = {"stage": "task_distill", "max_steps": 4, "temperature": 1.0, "soft_weight": soft}
        stages = [{**stage, "hard_weight": 1.0 - soft}]
        change = from_a_table("task_distill", teacher={"predictions": "labels.tsv"}, stages=stages)

        def without_more(recipe, change=change, name=name):
            change(recipe)
            recipe["task"].pop("unlabelled_files")
            recipe["output_dir"] = str(predicted / name)

        assert main(["run", str(write_recipe(predicted, without_more))]) == 0
        weights[name] = load_file(predicted / name / "task_distill/model.safetensors")
    for name, tensor in weights["soft"].items():
        np.testing.assert_allclose(tensor, weights["hard"][name], atol=2e-5, err_msg=name)


@pytest.mark.long
def test_a_killed_run_with_texts_without_labels_ends_with_the_same_weights(predicted, monkeypatch, capsys):
    def change(recipe):
        from_a_table("task_distill", "quantize")(recipe)
        recipe["stages"][0] = {**recipe["stages"][0], "save_steps": 2, "per_device_train_batch_size": 16}

    path, steps, train = str(write_recipe(predicted, change)), [], DistillationTrainer.training_step

    def killed(trainer, *arguments, **named):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(trainer)
        return train(trainer, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(DistillationTrainer, "training_step", killed)
        main(["run", path])
    capsys.readouterr()
    assert main(["run", path]) == 0
    assert "stage task_distill: resumed at step 2 of 4" in capsys.readouterr().out
    assert main(["run", path, "--set", f"output_dir={predicted / 'whole'}"]) == 0
    for stage in ("task_distill", "quantize"):
        files = (predicted / folder / stage / "model.safetensors" for folder in ("run", "whole"))
        assert len({file.read_bytes() for file in files}) == 1, stage


def test_a_head_is_fitted_on_rows_with_labels_alone(predicted):
    rows = [line.split("\t") for line in (predicted / "train.tsv").read_text().splitlines()[1:]]
    sets = [{"text": text, "label": [label] * (number % 3 > 0)} for number, (text, label) in enumerate(rows)]
    tested = [{**row, "text": f"{row['text']} now"} for row in sets]
    said = [*sets, *({"text": text, "label": []} for text in UNLABELLED)]
    for name, rows in (("sets", sets), ("tested", tested), ("said", said)):
        (predicted / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = {}
    for name, more in (("with", ["more.txt"]), ("without", [])):

        def change(recipe, name=name, more=more):
            from_a_table("task_distill", output_dir=str(predicted / name))(recipe)
            recipe["teacher"] = {"predictions": "said.jsonl"}
            recipe["task"] |= {"train_file": "sets.jsonl", "test_file": "tested.jsonl", "type": "multi_label"}
            recipe["task"]["unlabelled_files"] = more

        assert main(["run", str(write_recipe(predicted, change))]) == 0
        told[name] = json.loads((predicted / name / "stages/task_distill.json").read_text())
    assert told["with"]["notes"] == told["without"]["notes"]
    assert "head fitted" in told["with"]["notes"][0]


def lacking(recipe):
    from_a_table("task_distill")(recipe)
    recipe["teacher"] = {"predictions": "few.jsonl"}


def with_also(recipe):
    from_a_table("task_distill")(recipe)
    recipe["stages"][0] = {**recipe["stages"][0], "also": [{"method": "minilm"}]}


def labels_of_methods(recipe):
    only("finetune", "task_distill")(recipe)
    recipe["task"]["unlabelled_files"] = ["more.txt"]
    recipe["stages"][1] = {**recipe["stages"][1], "also": [{"method": "mlkd_task"}]}


TABLES = {
    "neither": (from_a_table("task_distill", teacher={}), "teacher.model: None beside predictions: None; expected: "),
    "both": (
        from_a_table("task_distill", teacher={"model": "first", "predictions": "answers.jsonl"}),
        "teacher.model: first beside predictions: answers.jsonl; expected: one of the two",
    ),
    "an ensemble": (
        from_a_table("task_distill", teacher={"predictions": "answers.jsonl", "ensemble": ["first"]}),
        "teacher.ensemble: ['first'] beside predictions; allowed: beside model alone",
    ),
    "no student": (
        from_a_table("task_distill", student={"num_hidden_layers": 1}),
        "student.checkpoint: None beside teacher.predictions; expected: a model to start from",
    ),
    "finetuned": (
        from_a_table("finetune", "task_distill"),
        "teacher.model: missing; expected: a Hub id or a folder, since stage finetune learns of it",
    ),
    "layers": (with_also, "task_distill.also: beside teacher.predictions; allowed: a teacher.model, whose layers"),
    "no file": (
        from_a_table("task_distill", teacher={"predictions": "no.csv"}), "no.csv, which is no file; allowed: an exist",
    ),
    "texts without": (lacking, "few.jsonl, which predicts nothing for "),
    "methods of labels": (labels_of_methods, "task_distill.also: mlkd_task beside task.unlabelled_files; allowed: a"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_odd_tables_and_what_needs_a_model_are_one_line(predicted, capsys, case):
    change, message = TABLES[case]
    first, *_ = (predicted / "answers.jsonl").read_text().splitlines()
    (predicted / "few.jsonl").write_text(first)
    assert main(["run", str(write_recipe(predicted, change)), "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_plan_tells_of_texts_without_labels_that_are_tested(predicted, capsys):
    tested = (predicted / "test.tsv").read_text().splitlines()[1].split("\t")[0]
    (predicted / "more.txt").write_text("\n".join([tested, *UNLABELLED]))
    answers = (predicted / "answers.jsonl").read_text()
    (predicted / "answers.jsonl").write_text(f"{answers}\n{json.dumps({'text': tested, 'probabilities': [1, 0]})}")
    assert main(["run", str(write_recipe(predicted, from_a_table("task_distill"))), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "unlabelled_files: 4 texts" in told
    assert "unlabelled_files: 1 of 4 rows have the text of a row of test_file" in told
