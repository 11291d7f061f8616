"""Masked language models through a whole recipe, all families, and what can not be."""

import copy
import json
import re

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, pipeline

from edgemin_hf import QuantizationConfig, export_onnx, load_pruned
from edgemin_hf.cli import main
from edgemin_hf.export.graph import optimized_graph, quantized_nodes
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.quantization.native import calibrate, prepare_qat
from tests.helpers.masked_words import HEAD, log_probabilities_in_turn, ordered_texts, word_recipe, write_words
from tests.helpers.models import FAMILIES, batch, tiny
from tests.helpers.optimum import ORTModelForFeatureExtraction, ORTModelForMaskedLM
from tests.helpers.optimum import pipeline as optimum_pipeline
from tests.helpers.recipes import RECIPE
from tests.helpers.tasks import read_json, run_snippets

STAGES = copy.deepcopy(RECIPE["stages"])
STAGES[0] |= {"max_steps": 150, "learning_rate": 2e-3}
STAGES[2] |= {"max_steps": 40, "learning_rate": 2e-3}
STAGES[4] |= {"reconstruction": {"steps": 2}}
STAGES.insert(5, {"stage": "prune_vocabulary"})
STAGES.insert(-1, {"stage": "rivals", "sentences": 4, "rounds": 1})


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer):
    return write_words(tmp_path_factory.mktemp("words"), tokenizer)


@pytest.fixture(scope="module")
def run(root):
    stages = [*STAGES[:-1], {**STAGES[-1], "repo_id": str(root / "run" / "artefact")}]
    assert main(["run", str(word_recipe(root, stages=stages, mask_probability=0.3, validation_share=0.2))]) == 0
    return root / "run"


@pytest.mark.long
def test_every_stage_speaks_of_the_metric(run):
    metric = "masked_accuracy"
    records = {file.stem: read_json(file) for file in (run / "stages").glob("*.json")}
    assert {records[stage]["metric"] for stage in ("finetune", "task_distill", "prune", "quantize")} == {metric}
    assert records["finetune"]["after"] > records["finetune"]["before"]
    assert records["task_distill"]["after"] > 0.4
    for row in read_json(run / "artefact/benchmark.json")["rows"]:
        assert (row["metric"], row["n"]) == (metric, 40)
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
    page = (run / "artefact/report.html").read_text()
    assert "Its masked accuracy" in page
    assert "pseudo-perplexity" in page


@pytest.mark.long
def test_what_is_measured_is_what_a_pass_a_token_gives(run, root, tokenizer):
    """Both metrics of the teacher in PyTorch, from its own passes, in float64."""
    model = load_pruned(run / "teacher", HEAD).eval()
    texts = list(dict.fromkeys((root / "test.txt").read_text().splitlines()))
    encoded = tokenizer(texts, truncation=True, max_length=24)["input_ids"]
    alone = [log_probabilities_in_turn(model, ids, tokenizer.all_special_ids, 4) for ids in encoded[:10]]
    found = read_json(run / "evaluate/results.json")["teacher_pytorch_fp32"]
    (perplexity,) = found["others"]
    assert (perplexity["metric"], perplexity["n"]) == ("pseudo_perplexity", 10)
    assert perplexity["value"] == pytest.approx(np.exp(-np.mean(np.concatenate(alone))), rel=1e-5)
    assert perplexity["ci95"][0] <= perplexity["value"] <= perplexity["ci95"][1]
    lines = [json.loads(line) for line in (run / "evaluate/predictions.jsonl").read_text().splitlines()]
    said = [[token for token in line["teacher_pytorch_fp32"] if not token[2]] for line in lines]
    assert [len(tokens) for tokens in said] == [max(1, round(0.3 * (len(ids) - 2))) for ids in encoded]
    assert found["value"] == pytest.approx(np.mean([hit for tokens in said for hit, *_ in tokens]))


@pytest.mark.long
def test_the_graph_gives_logits_and_optimum_fills_masks_like_pytorch(run):
    artefact = run / "artefact"
    tokenizer = AutoTokenizer.from_pretrained(artefact)
    graph = ORTModelForMaskedLM.from_pretrained(artefact, subfolder="onnx", file_name="model.onnx")
    assert set(graph.output_names) == {"logits"}
    optimum = optimum_pipeline("fill-mask", model=graph, tokenizer=tokenizer, accelerator="ort")
    plain = pipeline("fill-mask", model=load_pruned(artefact, HEAD), tokenizer=tokenizer)
    for text in ("where is my [MASK] please", "send the [MASK] to my new card"):
        theirs, ours = optimum(text), plain(text)
        assert [one["token_str"] for one in theirs] == [one["token_str"] for one in ours]
        np.testing.assert_allclose([o["score"] for o in theirs], [o["score"] for o in ours], atol=1e-5)


@pytest.mark.long
def test_the_snippets_of_the_card_run_and_agree(run, monkeypatch):
    card = (run / "artefact/README.md").read_text()
    assert "pipeline_tag: fill-mask" in card
    assert "predicts masked tokens, and is a start to fine-tune" in card
    optimum, plain, torch_fp32 = run_snippets(card, monkeypatch)
    assert {"score", "token", "token_str", "sequence"} <= set(eval(torch_fp32)[0])
    assert eval(plain.splitlines()[0])[0] == eval(optimum)[0]["token_str"]


@pytest.mark.long
def test_the_head_is_tied_in_every_checkpoint_and_stored_once(run):
    for stage in ("teacher", "distill", "task_distill", "prune", "quantize", "prune_vocabulary", "artefact"):
        model = load_pruned(run / stage, HEAD)
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, stage
    student = read_manifest(run / "artefact")
    table = model.get_input_embeddings().weight
    for file, kind in (("onnx/model.onnx", np.float32), ("onnx/model_quantized.onnx", np.int8)):
        stored = onnx.load(run / "artefact" / file).graph.initializer
        sized = [tensor for tensor in stored if np.prod(tensor.dims) == table.numel()]
        assert [onnx.numpy_helper.to_array(tensor).dtype for tensor in sized] == [kind], file
    assert student.pipeline_tag == "fill-mask"
    assert all(len(token) <= 64 for entry in student.entries for output in entry.outputs for token in output)


@pytest.mark.long
def test_others_load_the_checkpoint_by_plain_classes(run):
    folder, names = run / "task_distill", {}
    for auto in (HEAD, AutoModel):
        _, names[auto] = auto.from_pretrained(folder, output_loading_info=True)
    assert not names[HEAD]["missing_keys"]
    assert not [name for name in names[AutoModel]["missing_keys"] if "pooler" not in str(name)]


@pytest.mark.long
def test_rivals_are_the_teachers_int8_and_the_labels_alone(run):
    rows = [row["name"] for row in read_json(run / "rivals/rivals.json")["rows"]]
    assert rows == ["this student, INT8", "student's shape, labels alone, INT8", "fine-tuned teacher, INT8"]


@pytest.mark.long
def test_sensitivity_measures_by_the_rows_of_the_run(run, tmp_path):
    options = ["--examples", "10", "--saliency-examples", "10", "--sparsities", "0.5", "--batch-size", "4"]
    options += ["--measure", "pruning", "quantization"]
    asked = [str(run / "task_distill"), "--output", str(tmp_path / "out"), *options]
    assert main(["sensitivity", *asked]) == 0
    found = read_json(tmp_path / "out/sensitivity.json")
    assert found["base"]["metric"] == "masked_accuracy"
    assert {row["kind"] for row in found["measurements"]} == {"heads", "neurons", "layers"}
    assert found["quantization"]


@pytest.mark.long
def test_an_encoder_alone_is_exported_for_its_hidden_states(root, tokenizer):
    stages = [{"stage": "distill", "relation_heads": 8, "max_steps": 2}, {"stage": "quantize", "max_steps": 2}]
    path = word_recipe(root, run="encoder", stages=[*stages, {"stage": "export"}], keep_head=False)
    assert main(["run", str(path)]) == 0
    folder = root / "encoder/export/student"
    manifest = read_manifest(folder)
    assert (manifest.task, manifest.pipeline_tag) == ("feature_extraction", "feature-extraction")
    assert [entry.precision for entry in manifest.entries] == ["fp32", "fp32", "int8"]
    inputs = tokenizer("where is my card", return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
    graph = ORTModelForFeatureExtraction.from_pretrained(folder, subfolder="onnx", file_name="model.onnx")
    assert set(graph.output_names) == {"last_hidden_state"}
    assert torch.allclose(graph(**inputs).last_hidden_state, expected, atol=1e-5)


@pytest.mark.parametrize(("family", "weights"), [*((family, "int8") for family in FAMILIES), ("bert", "int4")])
def test_all_families_predict_by_the_graphs_as_in_pytorch(family, weights, tokenizer, tmp_path):
    model = tiny(family, head=HEAD)
    prepare_qat(model, QuantizationConfig(weights=weights, embeddings=weights))
    calibrate(model, [batch()], lambda inputs: model(**inputs))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    made = export_onnx(model, tokenizer, tmp_path / "out", texts=ordered_texts(20), max_length=24)
    assert made.manifest.task == "masked_lm"
    for checked in (made.fp32, getattr(made, weights)):
        assert checked.error <= checked.limit
    loaded = load_pruned(tmp_path / "out", HEAD)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    # The tied table's product runs on integers too.
    (graph,) = (tmp_path / "out/onnx").glob("model_q*.onnx")
    products = quantized_nodes(optimized_graph(graph, tmp_path / "run.onnx"))
    ours = {name: count for name, count in products.items() if name.startswith("MatMul")}
    called = sum(1 for module in model.modules() if isinstance(module, torch.nn.Linear))
    assert sum(ours.values()) >= called


@pytest.mark.parametrize(("setting", "message"), [
    ("task.metric=pseudo_perplexity", "task.metric: pseudo_perplexity alone or first; allowed: masked_accuracy, or it"),
    ("task.mask_probability=1", "task.mask_probability: 1.0; allowed: above 0 and below 1"),
    ("task.pseudo_perplexity_texts=0", "task.pseudo_perplexity_texts: 0; allowed: 1 or more"),
    ("task.max_length=7", "task.max_length: 7; allowed: 8 or more"),
    ("task.label_smoothing=0.1", "task.label_smoothing: 0.1 for masked_lm; allowed: where its hard_loss takes it"),
    ("task.unlabelled_files=[train.txt]", r"task.unlabelled_files: \['train.txt'\]; allowed: none for masked_lm"),
    ("task.metric=accuracy", "task.metric: accuracy, which is of labels or .*; allowed: masked_accuracy, pseudo"),
    ("task.test_file=train.txt", "task.test_file: the texts of train_file; expected: other texts"),
    ("task.test_file=none.txt", "task.test_file: .*none.txt, which is no file; allowed: an existing file"),
    ("task.test_file=columns.jsonl", "task.test_file: column 'text' of .*columns.jsonl; allowed: other"),
    ("teacher.ensemble=[teacher]", "teacher.ensemble: for masked_lm, whose teacher runs beside the student; allowed:"),
    ("task.keep_head=false", "evaluate.stage: evaluate with task.keep_head: false, whose graph predicts no token"),
    ("teacher.model=other", "teacher.model: other, which has no masked-lm head; allowed without the stage finetune: a"),
    ("teacher.model=maskless", "teacher.model: .* without a mask token; allowed: a tokenizer with one"),
])  # fmt: skip
def test_settings_that_cannot_be_are_one_line(root, tokenizer, tmp_path, capsys, setting, message):
    for path in root.iterdir():
        if path.name not in ("run", "run.yaml", "encoder", "encoder.yaml"):
            (tmp_path / path.name).symlink_to(path)
    tiny().save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    tiny(head=HEAD).save_pretrained(tmp_path / "maskless")
    maskless = AutoTokenizer.from_pretrained(tmp_path / "other")
    maskless.mask_token = None
    maskless.save_pretrained(tmp_path / "maskless")
    stages = [stage for stage in STAGES if stage["stage"] in ("task_distill", "export", "evaluate")]
    (tmp_path / "columns.jsonl").write_text('{"other": "my card"}\n')
    assert main(["run", str(word_recipe(tmp_path, stages=stages)), "--dry-run", "--set", setting]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert told.count("\n") == 1


@pytest.mark.parametrize(("stages", "message"), [
    (["distill", "prune_vocabulary", "quantize"], "quantize.soft_weight: 0.5 for masked_lm after the vocabulary was"),
    (["augment", "task_distill"], "augment.stage: augment for masked_lm; allowed: for tasks on whole texts"),
])  # fmt: skip
def test_stages_that_cannot_be_are_one_line(root, tmp_path, capsys, stages, message):
    known = {stage["stage"]: stage for stage in STAGES} | {"augment": {"stage": "augment"}}
    path = word_recipe(root, run=f"bad-{stages[0]}", stages=[known[name] for name in stages])
    assert main(["run", str(path), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert told.count("\n") == 1
