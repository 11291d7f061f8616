import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from edgemin_hf.benchmark.rows import Benchmark, BenchmarkRow, Latency
from edgemin_hf.export.exporter import export_graph
from edgemin_hf.export.manifest import Manifest, ManifestEntry
from edgemin_hf.report.card import fill_template, markdown_table, render_card
from edgemin_hf.report.card_facts import CardFacts
from edgemin_hf.report.records import Coverage, StageRecord, VocabularyCut
from edgemin_hf.report.tables import Table
from edgemin_hf.runtime.artefact import Reading
from edgemin_hf.runtime.loading import MODELS
from edgemin_hf.utils.hardware import Environment


def row(model, runtime, precision, value, size, p50):
    return BenchmarkRow(
        model, runtime, precision, metric="accuracy", value=value, ci95=None, n=3080, parameters=14_000_000,
        size_bytes=size, batch_size=1, threads=2, latency_ms=Latency(p50, p50, p50),
    )  # fmt: skip


def entry(file, precision, **more):
    return ManifestEntry(
        file, "onnxruntime", precision, bytes=15_000_000, sha256="0" * 64, parameters=14_000_000, **more
    )


def benchmark(*rows):
    machine = Environment(
        cpu="Some CPU", cpu_capability="AVX512", vnni=True, bf16=False, threads=2, system="Linux x86_64", python="3.11",
        packages={},
    )  # fmt: skip
    return Benchmark(rows, machine)


def manifest(*entries):
    return Manifest(1, "text_classification", "text-classification", (), entries)


TEACHER = row("teacher", "pytorch", "fp32", 0.92, 90_000_000, 8.0)
STUDENT = row("student", "onnxruntime", "int8", 0.90678, 15_000_000, 0.5)
FACTS = {
    "name": "Banking intents",
    "repo_id": "me/banking-edge",
    "manifest": manifest(entry("onnx/model_quantized.onnx", "int8", min_runtime="1.24")),
    "languages": ["en"],
    "licence": "apache-2.0",
    "base_model": "org/teacher",
    "datasets": ["org/banking", "org/clinc"],
    "test_set": "the test set of Banking",
    "attribution": "The data is by *Someone* (CC BY 4.0).",
    "example": "where is my card",
    "max_length": 16,
    "benchmark": benchmark(TEACHER, STUDENT),
    "stages": [StageRecord("prune", True, examples=9000, seconds=4.0, metric="loss", before=2, after=1, tag="pruning")],
    "recipe_yaml": "name: banking\nseed: 0\n",
}


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))


def test_the_snippet_without_pytorch_is_the_runtime_where_that_runs_the_model(monkeypatch):
    card, slow = (render_card(CardFacts(**FACTS | more)) for more in ({}, {"fast": False}))
    assert 'model = load("me/banking-edge")\nprint(model.predict("where is my card"))' in card
    assert "edgemin_hf.runtime" not in slow
    assert "With OpenVINO" in slow
    pair = render_card(CardFacts(**FACTS | {"example": ("where", "there")}))
    assert 'print(model.predict(("where", "there")))' in pair
    monkeypatch.delitem(MODELS, "text_classification")
    assert "edgemin_hf.runtime" not in render_card(CardFacts(**FACTS))


@pytest.mark.parametrize(("task", "facts", "told"), [
    ("masked_lm", {"example": "where is [MASK] card", "mask": "[MASK]"}, 'tokenizer.token_to_id("[MASK]")'),
    ("reranking", {"example": ("a query", "a passage"), "activation": "torch.nn.modules.activation.Sigmoid"},
     'model = load("me/banking-edge")\nquery, passages = "a query", ["a passage", '),
])  # fmt: skip
def test_the_parts_of_tasks_with_a_use_of_their_own_are_filled(task, facts, told):
    of_task = replace(FACTS["manifest"], task=task)
    card = render_card(CardFacts(**FACTS | facts | {"manifest": of_task}))
    assert told in card
    assert all(compile(code, "card", "exec") for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL))


def test_a_checkpoint_that_plain_transformers_can_not_load_says_so():
    plain, other = (render_card(CardFacts(**FACTS | {"plain": plain})) for plain in ((4, 5), ()))
    assert "load_pruned" not in plain
    assert "from edgemin_hf import load_pruned" in other
    of_old = render_card(CardFacts(**FACTS | {"plain": (4,)}))
    assert 'pip install "transformers<5" torch' in of_old
    assert "edgemin_hf.load_pruned(" in of_old
    assert [line for line in other.splitlines() if line.startswith("print(classify(")] == [
        line for line in plain.splitlines() if line.startswith("print(classify(")
    ]


def test_a_cut_vocabulary_is_told_with_what_it_means_for_texts():
    told = (Coverage("validation texts", split=0.0121, unknown=0.0002), Coverage("raw text", split=0.3, unknown=0.0))
    cut = StageRecord("prune_vocabulary", True, vocabulary=VocabularyCut(30522, 2431, told))
    card = render_card(CardFacts(**FACTS | {"stages": [*FACTS["stages"], cut]}))
    assert "Its vocabulary was cut to 2,431 of 30,522 pieces." in card
    assert "is of the validation texts 1.2% and 0.02% and of the raw text 30.0% and 0.00%." in card
    whole = StageRecord("prune_vocabulary", True, vocabulary=VocabularyCut(30522, 30522, told))
    for stages in (FACTS["stages"], [*FACTS["stages"], whole]):
        assert "vocabulary" not in render_card(CardFacts(**FACTS | {"stages": stages})).partition("## Results")[0]
    assert StageRecord.from_dict(json.loads(json.dumps(cut.to_dict()))) == cut


def test_the_front_matter_says_what_the_hub_needs():
    meta = front_matter(render_card(CardFacts(**FACTS)))
    assert meta["license"] == "apache-2.0"
    assert meta["base_model"] == "org/teacher"
    folder = render_card(CardFacts(**FACTS | {"base_model": None}))
    assert "base_model" not in front_matter(folder)
    assert "based on" not in folder
    assert meta["datasets"] == ["org/banking", "org/clinc"]
    assert meta["language"] == ["en"]
    assert meta["pipeline_tag"] == "text-classification"
    assert "pruning" in meta["tags"]
    assert "distillation" not in meta["tags"]  # No such stage ran.
    (model,) = meta["model-index"]
    assert model["name"] == "Banking intents"
    (result,) = model["results"]
    assert result["dataset"] == {"name": "the test set of Banking", "type": "org/banking", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "value": 0.9068, "name": "Accuracy"}]


def test_an_int4_model_is_told_as_such():
    rows = [TEACHER, row("teacher", "onnxruntime", "int8", 0.91, 23_000_000, 2.0), replace(STUDENT, precision="int4")]
    made = manifest(entry("onnx/model_q4.onnx", "int4"))
    card = render_card(CardFacts(**FACTS | {"benchmark": benchmark(*rows), "manifest": made}))
    meta = front_matter(card)
    assert "int4" in meta["tags"]
    assert "int8" not in meta["tags"]
    assert meta["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.9068
    assert card.count('model_q4.onnx"') == 2
    assert "model_quantized.onnx" not in card
    assert "trained with weights of 4 bits" in card
    assert "8-bit" not in card
    assert "The student at int4 in ONNX Runtime takes 15.0 MB" in card
    assert "int4" not in render_card(CardFacts(**FACTS))


def test_what_was_quantised_after_training_is_told_as_such():
    quantize = StageRecord("quantize", True, examples=0, seconds=1.0, tag="quantization-aware-training")
    prune = StageRecord("prune", True, examples=9_000, seconds=4.0, tag="pruning")
    for stages, trained in ([[prune, quantize], False], [[quantize, prune], True]):
        card = render_card(CardFacts(**FACTS | {"stages": stages}))
        tags = {"quantization-aware-training", "post-training-quantization"} & set(front_matter(card)["tags"])
        assert tags == {"quantization-aware-training" if trained else "post-training-quantization"}
        assert ("and that was trained to compute in 8-bit" in card) == trained
        assert ("and that was quantised after training, to compute in 8-bit" in card) != trained


@pytest.mark.parametrize(("capability", "told"), [("AVX2", True), ("DEFAULT", False)])
def test_it_says_what_int8_takes_longer_without_vnni(capability, told):
    found = benchmark(TEACHER, replace(TEACHER, runtime="onnxruntime", precision="int8"), STUDENT)
    found = replace(found, environment=replace(found.environment, vnni=False, cpu_capability=capability))
    card = render_card(CardFacts(**FACTS | {"benchmark": found}))
    assert ("in a minute. Without VNNI its products of 8 bits are added exactly" in card) == told
    assert "Some CPU, without VNNI" in card


def test_a_model_without_measured_accuracy_claims_none():
    card = render_card(CardFacts(**FACTS | {"benchmark": benchmark(TEACHER, replace(STUDENT, value=None, n=None))}))
    assert "model-index" not in front_matter(card)
    assert "Its accuracy" not in card


def test_the_text_holds_the_measured_numbers_the_stages_and_the_recipe():
    card = render_card(CardFacts(**FACTS))
    assert "takes 15.0 MB, 16.7% of the teacher's 90.0 MB" in card
    assert "16.0 times as fast as the teacher in PyTorch" in card
    assert re.search(r"^\| student \| onnxruntime \| int8 \|.* 90\.7 \|", card, re.MULTILINE)
    assert "| prune | 9,000 | 4.0 | 100% | loss | 2 | 1 |" in card
    assert "```yaml\nname: banking\nseed: 0\n```" in card
    assert "Some CPU, with VNNI" in card
    assert "The data is by *Someone* (CC BY 4.0)." in card


@pytest.mark.parametrize("name", ['a: "b" # c', "---\nlicense: mit\n---", "{{ task }} {% if %}", "- [x] & <b>'s"])
def test_no_value_breaks_the_front_matter_or_is_taken_for_a_template(name):
    facts = FACTS | {"name": name, "test_set": name, "base_model": name}
    card = render_card(CardFacts(**facts))
    meta = front_matter(card)
    assert meta["model-index"][0]["name"] == " ".join(name.split())
    assert meta["base_model"] == name
    assert meta["license"] == "apache-2.0"
    assert ModelCard(card).data.to_dict() == meta
    assert f"\n# {' '.join(name.split())}\n" in card


def test_a_recipe_with_code_fences_stays_in_its_block():
    recipe = "note: |\n  ````\n  {{ not_a_variable }}\n  ````"
    assert f"`````yaml\n{recipe}\n`````\n" in render_card(CardFacts(**FACTS | {"recipe_yaml": recipe}))


def test_table_cells_cannot_end_their_column():
    table = markdown_table(Table(["model", "size (MB)"], [["a|b\nc", "1.0"]]))
    assert table == "| model | size (MB) |\n| --- | ---: |\n| a\\|b c | 1.0 |"


def test_a_template_with_an_unknown_variable_is_refused(tmp_path: Path):
    template = tmp_path / "template.md"
    template.write_text("---\n{{ card_data }}\n---\n{{ name }} {{ nmae }} {% if sice %}x{% endif %}")
    with pytest.raises(ValueError, match=r"template\.md uses unknown variables: nmae, sice"):
        fill_template(template, ModelCardData(license="mit"), {"name": "x"})


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in the layout of a finished one; its graph is not quantised, so that all snippets must agree."""
    folder = tmp_path_factory.mktemp("artefact")
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "my", "card"])
    )
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=20, num_labels=3, id2label={0: "lost", 1: "found", 2: "neither"}, initializer_range=1.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    (folder / "onnx").mkdir()
    export_graph(model, folder / "onnx" / "model_quantized.onnx")
    reading = Reading(columns=("text",), max_length=16)
    replace(manifest(entry("onnx/model_quantized.onnx", "int8")), reading=reading).write(folder)
    return folder


@pytest.mark.parametrize("example", ["where is my card", 'my "card" is {{ lost }} \\ ' + "where " * 30])
def test_the_snippets_run_and_agree(artefact: Path, monkeypatch: pytest.MonkeyPatch, example: str):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, allow_patterns: repo)
    pytest.importorskip("openvino")
    pytest.importorskip("optimum.intel")
    card = render_card(CardFacts(**FACTS | {"repo_id": str(artefact), "example": example}))
    answers = []
    for snippet in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(snippet, {})
        answers.append(re.search("lost|found|neither", output.getvalue())[0])
    assert len(answers) == 4
    assert len(set(answers)) == 1


@pytest.mark.parametrize(("labels", "example", "shown"), [
    (["ENTAILMENT", "neutral", "contradiction"], ("premise", "hypothesis"), True),
    (["ENTAILMENT", "neutral", "contradiction"], "a text", False),
    (["entailment", "not_entailment"], ("question", "sentence"), False),  # whether a sentence answers a question
    (["0", "1", "2"], ("premise", "hypothesis"), False),
])  # fmt: skip
def test_what_learned_entailment_is_shown_to_classify_by_any_labels(labels, example, shown):
    card = render_card(CardFacts(**FACTS | {"labels": labels, "example": example}))
    assert ("zero-shot-classification" in card) is shown
