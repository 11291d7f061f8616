import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score

from edgemin_hf.cli import main
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks.glue import Glue
from tests.helpers.recipes import put, write_recipe

# As the paper's table 1, the Hub's nyu-mll/glue and the server's page have them.
EXPECTED = {
    "cola": (["sentence"], ["matthews_correlation"], ["CoLA"]),
    "sst2": (["sentence"], ["accuracy"], ["SST-2"]),
    "mrpc": (["sentence1", "sentence2"], ["accuracy", "f1"], ["MRPC"]),
    "qqp": (["question1", "question2"], ["accuracy", "f1"], ["QQP"]),
    "stsb": (["sentence1", "sentence2"], ["pearsonr", "spearmanr"], ["STS-B"]),
    "mnli": (["premise", "hypothesis"], ["accuracy"], ["MNLI-m", "MNLI-mm"]),
    "qnli": (["question", "sentence"], ["accuracy"], ["QNLI"]),
    "rte": (["sentence1", "sentence2"], ["accuracy"], ["RTE"]),
    "wnli": (["sentence1", "sentence2"], ["accuracy"], ["WNLI"]),
}
LABELS = ["entailment", "neutral", "contradiction"]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_name_says_columns_splits_and_metrics(name):
    task = Glue(name, "nyu-mll/glue").task()
    columns, metrics, files = EXPECTED[name]
    assert task.text_columns == columns
    assert [metric.name for metric in task.metrics] == metrics
    assert list(task.submissions) == files
    assert (task.dataset, task.dataset_config, task.train_split, task.holds_out) == (
        "nyu-mll/glue",
        name,
        "train",
        True,
    )
    assert task.test_split == ("validation_matched" if name == "mnli" else "validation")
    assert task.further_tests == ({"mismatched": "validation_mismatched"} if name == "mnli" else {})
    assert task.type == ("regression" if name == "stsb" else "text_classification")


def test_labels_have_glues_order_by_name_and_by_number():
    task = Glue("mnli", "data").task()
    assert task.names_in(Dataset.from_dict({"label": sorted(LABELS)})) == LABELS
    assert task.names_in(Dataset.from_dict({"label": ["2", "0", "1"]})) == ["0", "1", "2"]
    features = Features({"label": ClassLabel(names=LABELS), "premise": Value("string")})
    assert task.names_in(Dataset.from_dict({"label": [2, 0], "premise": ["a", "b"]}, features)) == LABELS


def test_a_submission_is_in_the_servers_words():
    assert Glue("rte", "d").task().submitted(np.array([1, 0]), ["entailment", "not_entailment"]) == [
        "not_entailment", "entailment",
    ]  # fmt: skip
    assert Glue("rte", "d").task().submitted(np.array([1, 0]), ["0", "1"]) == ["not_entailment", "entailment"]
    assert Glue("mrpc", "d").task().submitted(np.array([1, 0]), ["not_equivalent", "equivalent"]) == ["1", "0"]
    assert Glue("mrpc", "d").task().submitted(np.array([1, 0]), ["0", "1"]) == ["1", "0"]
    # A teacher that is taken as it is may have no names, or names in another order.
    assert Glue("sst2", "d").task().submitted(np.array([1, 0]), ["LABEL_0", "LABEL_1"]) == ["1", "0"]
    assert Glue("sst2", "d").task().submitted(np.array([1, 0]), ["positive", "negative"]) == ["0", "1"]
    assert Glue("mnli", "d").task().submitted(np.array([2]), ["LABEL_0", "LABEL_1", "LABEL_2"]) == ["contradiction"]
    with pytest.raises(ValueError, match=r"^labels good, bad; allowed for a submission: negative, positive"):
        Glue("sst2", "d").task().submitted(np.array([1]), ["good", "bad"])
    assert Glue("stsb", "d").task().submitted(np.float32([5.7, -1, 2.3456]), ["score"]) == ["5.000", "0.000", "2.346"]


def rows(words, count, seed):
    generator = np.random.default_rng(seed)
    return [(" ".join(generator.choice(words, 4)), words[i % 3], LABELS[i % 3]) for i in range(count)]


@pytest.fixture
def place(workplace, tmp_path):
    """A folder with MNLI's tables, all but the mismatched test set, and what a recipe needs."""
    for path in workplace.iterdir():
        (tmp_path / path.name).symlink_to(path)
    folder = tmp_path / "glue/mnli"
    folder.mkdir(parents=True)
    words = ["card", "phone", "transfer"]
    for seed, (name, count) in enumerate(
        {"train": 60, "dev_matched": 12, "dev_mismatched": 9, "test_matched": 6}.items()
    ):
        lines = ["\t".join(row[:2] if name.startswith("test") else row) for row in rows(words, count, seed)]
        header = "premise\thypothesis" + "\tlabel" * (not name.startswith("test"))
        (folder / f"{name}.tsv").write_text("\n".join([header, *lines]) + "\n")
    return tmp_path


def recipe_of(place, *changes):
    def of_glue(recipe):
        recipe["task"] = {"type": "glue", "name": "mnli", "data": "glue", "max_length": 16}
        names = ["finetune", "task_distill", "export", "evaluate"]
        recipe["stages"] = [stage for name in names for stage in recipe["stages"] if stage["stage"] == name]
        recipe.pop("raw_text", None)
        for change in changes:
            change(recipe)

    return write_recipe(place, of_glue)


@pytest.mark.long
def test_both_sets_of_mnli_are_measured_and_a_submission_is_written(place):
    path = recipe_of(place)
    assert main(["run", str(path)]) == 0
    recipe, settings = load_recipe(path)
    output = Path(recipe.output_dir)
    results = json.loads((output / "evaluate/results.json").read_text())
    for found in results.values():
        assert (found["metric"], found["n"]) == ("accuracy", 12)
        assert (found["further_tests"]["mismatched"]["metric"], found["further_tests"]["mismatched"]["n"]) == (
            "accuracy",
            9,
        )
        assert [row["name"] for row in found["per_class"]] == LABELS
    context = Context(recipe, settings, place, output)
    assert context.task.labels(place) == LABELS
    assert yaml.safe_load(path.read_text())["task"]["type"] == "glue"
    assert [file.name for file in (output / "evaluate/submissions").iterdir()] == ["MNLI-m.tsv"]
    header, *lines = (output / "evaluate/submissions/MNLI-m.tsv").read_text().splitlines()
    assert header == "index\tprediction"
    assert [line.split("\t")[0] for line in lines] == [str(index) for index in range(6)]
    assert {line.split("\t")[1] for line in lines} <= set(LABELS)
    truth = [0, 1, 2] * 4
    predictions = load_file(output / "evaluate/predictions.safetensors")
    for name, predicted in predictions.items():
        assert results[name]["value"] == pytest.approx(accuracy_score(truth, predicted))


def test_a_mistake_is_one_line(place, capsys):
    for change, message in (
        (put("task.name", "mrpd"), "task.name: "),
        (put("task.metric", "pearsonr"), "task.metric: pearsonr, which is of scores; allowed: accuracy"),
        (put("task.data", "nowhere/at/all"), "task.train_split: nowhere/at/all, which can't be read"),
        (put("task.columns", "x"), 'task.columns: "x"; allowed: name, data'),
    ):
        assert main(["run", str(recipe_of(place, change)), "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    (place / "glue/mnli/dev_mismatched.tsv").write_text("premise\thypothesis\tlabel\na\tb\tmaybe\nc\td\tneutral\n")
    assert main(["run", str(recipe_of(place)), "--dry-run"]) == 2
    assert "task.further_tests.mismatched: label_column: 'maybe' in the data; allowed: " in capsys.readouterr().err


def test_tables_of_submissions_are_checked_before_anything_is_trained(tmp_path):
    rows = "\n".join(f"text {number}\t{number % 2}" for number in range(20))
    (tmp_path / "train.tsv").write_text(f"sentence\tlabel\n{rows}\n")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nother\t0\nmore\t1\n")
    task = Glue("sst2", ".").task()
    task.check(tmp_path)
    (tmp_path / "test.tsv").write_text("index\ttext\n0\tanother\n1\tone\n")
    with pytest.raises(ValueError, match=r"^data: .*sentence"):
        task.check(tmp_path)
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tanother\n1\tone\n")
    task.check(tmp_path, {"LABEL_0": 0, "LABEL_1": 1})
