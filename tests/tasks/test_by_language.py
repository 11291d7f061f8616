"""Trained in one language and measured in each; what learned entailment sorts texts by labels that it never saw."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer

from edgemin_hf.cli import main
from edgemin_hf.report.by_test_set import by_test_set
from edgemin_hf.tasks import QuestionAnswering, TextClassification
from edgemin_hf.tasks.base import Split
from tests.helpers.recipes import only, put, write_recipe
from tests.helpers.tasks import read_json, run_snippets

LABELS = ["contradiction", "entailment", "neutral"]
COLUMNS = {"text_column": "premise", "text_pair_column": "hypothesis"}


def write_pairs(path, count, seed):
    """Premises and hypotheses; the word of the second tells the label."""
    generator = np.random.default_rng(seed)
    words, lines = ["card", "phone", "transfer"], ["premise\thypothesis\tlabel"]
    for number in range(count):
        text = " ".join(generator.choice(["where", "is", "my", "the", "to"], 3))
        lines.append(f"{text}\t{words[number % 3]}\t{LABELS[number % 3]}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def root(workplace, tmp_path_factory):
    root = tmp_path_factory.mktemp("languages")
    (root / "teacher").symlink_to(workplace / "teacher")
    for seed, (name, count) in enumerate({"train": 120, "test": 30, "de": 21, "sw": 12}.items()):
        write_pairs(root / f"{name}.tsv", count, seed)
    return root


def recipe_of(root, *changes, **task):
    def change(recipe):
        recipe["task"] |= {**COLUMNS, "further_tests": {"de": "de.tsv", "sw": "sw.tsv"}, **task}
        only("finetune", "task_distill", "export", "evaluate", "benchmark", "report")(recipe)
        recipe.pop("raw_text")
        recipe["stages"][-1] |= {"test_set": "en", "repo_id": str(root / "run/artefact")}
        recipe["output_dir"] = str(root / "run")
        for one in changes:
            one(recipe)

    return write_recipe(root, change)


@pytest.fixture(scope="module")
def run(root):
    assert main(["run", str(recipe_of(root))]) == 0
    return root / "run"


@pytest.mark.long
def test_each_set_is_measured_and_told_in_a_table(run):
    results = read_json(run / "evaluate/results.json")
    for found in results.values():
        counts = {name: one["n"] for name, one in found["further_tests"].items()}
        assert (found["n"], counts) == (30, {"de": 21, "sw": 12})
    student = results["student_onnxruntime_fp32"]
    german = student["further_tests"]["de"]
    cell = f"{100 * german['value']:.1f} [{100 * german['ci95'][0]:.1f}, {100 * german['ci95'][1]:.1f}]"
    card, report = (run / "artefact/README.md").read_text(), (run / "artefact/report.html").read_text()
    [row] = re.findall(r"^\| de \| 21 \| .* \|$", card, re.MULTILINE)
    assert row.endswith(f"| {cell} |")
    assert re.search(r"^\| en \| 30 \| ", card, re.MULTILINE)
    assert cell in html.unescape(report)


@pytest.mark.long
def test_a_further_set_is_measured_as_the_test_table_would_be(run, root, tmp_path):
    """The German table as the test table of the same models gives what it gave as a further one."""
    before = read_json(run / "evaluate/results.json")
    shutil.copytree(run, tmp_path / "run")
    to = put("output_dir", str(tmp_path / "run"))
    recipe = recipe_of(root, to, test_file="de.tsv", further_tests={"en": "test.tsv"})
    assert main(["run", str(recipe), "--overwrite"]) == 0
    after = read_json(tmp_path / "run/evaluate/results.json")
    for name, found in before.items():
        for key in ("value", "ci95", "n", "per_class"):
            assert after[name][key] == found["further_tests"]["de"][key]
            assert after[name]["further_tests"]["en"][key] == found[key]


def test_of_one_set_there_is_no_table(run):
    from edgemin_hf.benchmark.rows import Benchmark

    benchmark = Benchmark.from_dict(read_json(run / "artefact/benchmark.json"))
    results = {
        name: {key: value for key, value in found.items() if key != "further_tests"}
        for name, found in read_json(run / "evaluate/results.json").items()
    }
    assert by_test_set(results, benchmark, "en") is None
    found = by_test_set(read_json(run / "evaluate/results.json"), benchmark, "sw")
    assert [row[0] for row in found.table.rows] == ["sw", "de", "sw"]  # by whatever names


@pytest.mark.long
def test_the_card_sorts_by_labels_that_the_student_never_saw(run, monkeypatch):
    card = (run / "artefact/README.md").read_text()
    assert "- zero-shot-classification" in card
    assert "pipeline_tag: text-classification" in card
    found = run_snippets(card, monkeypatch)
    assert set(re.findall(r"'(money|travel|health)'", found[0])) == {"money", "travel", "health"}
    assert len(found) == 4


@pytest.mark.long
def test_the_pipeline_of_optimum_finds_what_entailment_is(run, monkeypatch):
    ort = pytest.importorskip("optimum.onnxruntime", reason="Optimum's ONNX part ends with transformers 4.57")
    from optimum.pipelines import pipeline

    folder = run / "artefact"
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert config.label2id == {name: number for number, name in enumerate(LABELS)}
    model = ort.ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name="model.onnx")
    classify = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer, accelerator="ort")
    assert classify.entailment_id == 1
    names, template = ["card", "phone", "transfer"], "{}"
    found = classify("where is my", candidate_labels=names, hypothesis_template=template)
    logits = [
        model(**tokenizer("where is my", name, return_tensors="pt")).logits[0].detach().numpy()[1] for name in names
    ]
    expected = np.exp(logits) / np.exp(logits).sum()
    scores = dict(zip(found["labels"], found["scores"], strict=True))
    np.testing.assert_allclose([scores[name] for name in names], expected, atol=1e-5)


def dataset_of(folder, **tables):
    """A folder of datasets: a configuration a folder, a table a split."""
    for name, rows in tables.items():
        config, split = name.split("__")
        (folder / config).mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows).to_json(folder / config / f"{split}.jsonl")
    return folder


def pairs(prefix, count):
    return [{"premise": f"{prefix} {i}", "hypothesis": "b", "label": LABELS[i % 3]} for i in range(count)]


def test_a_set_may_be_of_another_configuration_or_dataset(tmp_path):
    dataset_of(tmp_path / "xnli", en__train=pairs("a", 9), en__test=pairs("b", 6), de__test=pairs("c", 6))
    dataset_of(tmp_path / "other", fr__validation=pairs("d", 6))
    sets = {
        "de": Split(dataset_config="de"),
        "fr": Split("validation", "other", "fr"),
        "train": "train",
    }
    task = TextClassification(dataset="xnli", dataset_config="en", **COLUMNS, further_tests=sets)
    firsts = {name: task.read(task.named_path(tmp_path, named))["premise"][0] for name, named in sets.items()}
    assert firsts == {"de": "c 0", "fr": "d 0", "train": "a 0"}
    with pytest.raises(ValueError, match=r"further_tests.train: train.jsonl, whose texts are those of train_split"):
        task.check(tmp_path)
    del task.further_tests["train"]
    task.check(tmp_path)
    files = "xnli/en/train.jsonl", "xnli/en/test.jsonl"
    of_files = TextClassification(*files, **COLUMNS, further_tests={"fr": sets["fr"]})
    assert of_files.read(of_files.named_path(tmp_path, sets["fr"]))["premise"][0] == "d 0"
    of_files.check(tmp_path)


def test_a_language_that_is_not_there_is_no_other_one(tmp_path):
    rows = [{"premise": f"a {i}", "hypothesis": "b", "label": ["no", "yes"][i % 2]} for i in range(12)]
    for name, part in (("train", rows[:6]), ("test", rows[6:9]), ("de/test", rows[9:])):
        file = tmp_path / f"xnli/{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in part))
    columns = {"text_column": "premise", "text_pair_column": "hypothesis"}
    task = TextClassification(dataset="xnli", **columns, further_tests={"de": Split(dataset_config="de")})
    task.check(tmp_path)
    task.further_tests["fr"] = Split(dataset_config="fr")
    with pytest.raises(ValueError, match=r"^further_tests.fr: .*test.jsonl, which is test_split too"):
        task.check(tmp_path)
    (tmp_path / "xnli/fr").mkdir()
    with pytest.raises(ValueError, match=r"^further_tests.fr: .*, which can't be read"):  # nor is it looked for above
        task.check(tmp_path)


def test_questions_may_be_measured_in_other_languages(tmp_path):
    rows = [
        {"context": f"it is {i}", "question": "what is it", "answers": {"text": [str(i)], "answer_start": [6]}}
        for i in range(9)
    ]
    dataset_of(tmp_path / "squad", plain__train=rows, plain__validation=rows[:4])
    dataset_of(tmp_path / "xquad", xquad_de__validation=rows[5:8])
    task = QuestionAnswering(
        dataset="squad",
        dataset_config="plain",
        test_split="validation",
        further_tests={"de": Split(dataset="xquad", dataset_config="xquad_de")},
    )
    assert len(task.read(task.named_path(tmp_path, task.further_tests["de"]))) == 3


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"de": "nowhere.tsv"}, "task.further_tests.de: .*nowhere.tsv, which is no file"),
        ({"de": {"split": "test"}}, "task.further_tests.de.dataset: missing; expected: one, where the task has files"),
        ({"de": {"splits": "test"}}, 'task.further_tests.de.splits: "test"; allowed: split, dataset'),
        ({"de": {"dataset": "nowhere/at/all"}}, "task.further_tests.de: nowhere/at/all"),
        ({"de": "train.tsv"}, "task.further_tests.de: train.tsv, whose texts are those of train_file"),
    ],
)
def test_a_mistake_is_one_line(root, sets, message, capsys):
    assert main(["run", str(recipe_of(root, further_tests=sets)), "--dry-run"]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(message, error), error
    assert len(error.splitlines()) == 1
