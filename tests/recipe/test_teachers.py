import json

import numpy as np
import pyarrow.parquet as parquet
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel, BertTokenizerFast

from edgemin_hf.cli import main
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.yaml_file import load_recipe
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


TOKENS = {
    "a stage": (lambda recipe: only("finetune", "distill", "task_distill")(recipe), "distill"),
    "beside": (
        lambda recipe: recipe["stages"][1].update(also=[{"method": "minilm"}]),
        "also of task_distill",
    ),
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
    _, validation = Context(recipe, settings, several, run).data_with_teacher_logits
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
