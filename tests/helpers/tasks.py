"""Data and recipes of every task, and what all tasks' finished runs have in common."""

import contextlib
import io
import json
import re

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import load_file

from edgemin_hf import TaskDistillationConfig
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.tasks.metrics import metric_named
from tests.helpers.models import sentences
from tests.helpers.recipes import write_recipe

NAMES = ("card_problem", "polite", "transfer")
"""Labels of `label_sets`, as they are numbered."""


def objective(student, teacher=None, **settings):
    return TaskDistillationConfig(**settings).objective(Encoder(student), Encoder(teacher) if teacher else None)


def write_pairs(path, count, seed):
    """Pairs of sentences; the label is the class of the first, the score says how many are of the second class."""
    rows, others = sentences(count, seed), sentences(count, seed + 1)
    order = np.random.default_rng(seed).permutation(count)
    lines = ["sentence1\tsentence2\tlabel\tscore"]
    for (first, ours), (second, theirs) in zip(rows, (others[i] for i in order), strict=True):
        transfers = (ours == "transfer") + (theirs == "transfer")
        lines.append(f"{first}\t{second}\t{int(ours == 'transfer')}\t{2.5 * transfers}")
    path.write_text("\n".join(lines) + "\n")


def write_all_pairs(root, workplace):
    """Tables of pairs, beside the workplace's teacher."""
    (root / "teacher").symlink_to(workplace / "teacher")
    for name, count, seed in (("train", 160, 0), ("validation", 32, 10), ("test", 40, 20)):
        write_pairs(root / f"{name}.tsv", count, seed)
    return root


def pair_recipe(root, task, *changes, run="run"):
    def change(recipe):
        recipe["task"] |= {"text_column": "sentence1", "text_pair_column": "sentence2", "max_length": 40, **task}
        recipe["raw_text"]["text_column"] = "sentence1"
        recipe["output_dir"] = str(root / run)
        for one in changes:
            one(recipe)

    return write_recipe(root, change, f"{run}.yaml")


def label_sets(count, seed=0):
    """Sentences of any number of labels, of `NAMES`, that words tell, but for one in twenty."""
    generator = np.random.default_rng(seed)
    words = {"card_problem": ["card", "lost"], "polite": ["please"], "transfer": ["money", "send"]}
    rows = []
    for _ in range(count):
        names = [name for name in NAMES if generator.random() < 0.4]
        text = [str(generator.choice(words[name])) for name in names]
        text += [str(word) for word in generator.choice(["where", "is", "my", "the", "to"], 3)]
        generator.shuffle(text)
        rows.append((" ".join(text), [name for name in NAMES if (name in names) != (generator.random() < 0.05)]))
    return rows


def write_label_sets(path, rows):
    """A table with labels as a list, or (.tsv, .csv) as a column each, of 0 and 1."""
    if path.suffix == ".jsonl":
        lines = [json.dumps({"text": text, "labels": names}) for text, names in rows]
    else:
        between = "\t" if path.suffix == ".tsv" else ","
        lines = [between.join(["text", *NAMES])]
        lines += [between.join([text, *(str(int(name in names)) for name in NAMES)]) for text, names in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_json(path):
    return json.loads(path.read_text())


def assert_every_stage_speaks_of(metric, run, count, learns="task_distill"):
    """What a finished run, of a recipe with all main stages, tells is in the words of its task's metric."""
    records = {file.stem: read_json(file) for file in (run / "stages").glob("*.json")}
    assert {records[stage]["metric"] for stage in ("finetune", "task_distill", "prune", "quantize")} == {metric}
    assert records[learns]["after"] > records[learns]["before"]
    for row in read_json(run / "artefact/benchmark.json")["rows"]:
        assert (row["metric"], row["n"]) == (metric, count)
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
    title = metric_named(metric).title
    for file in ("README.md", "report.html"):
        text = (run / "artefact" / file).read_text()
        assert metric_named(metric).heading in text
        assert f"Its {title}" in text
        assert "accuracy" not in text.lower()
    assert title in (run / "artefact/figures/size_metric.svg").read_text()


def assert_measured(run, labels, reference):
    """What stands in `results.json` are the saved predictions, measured by a reference."""
    results = read_json(run / "evaluate/results.json")
    for name, predictions in load_file(run / "evaluate/predictions.safetensors").items():
        np.testing.assert_allclose(results[name]["value"], reference(labels, predictions), atol=1e-6)


def run_snippets(card, monkeypatch):
    """Run the snippets of a card that loads from a folder, and return what each prints; not OpenVINO's.

    That one `make test-openvino` runs.
    """
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, allow_patterns: repo)
    answers = []
    for snippet in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        if "OVModel" in snippet:
            continue
        if "optimum" in snippet:
            pytest.importorskip("optimum.onnxruntime", reason="Optimum's ONNX part ends with transformers 4.57")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(snippet, {})
        answers.append(output.getvalue())
    return answers
