"""Students are float32 masters, whatever is given."""

import json
import logging

import pytest
import torch
from transformers import TrainingArguments

from edgemin_hf import (
    DistillationTrainer,
    MiniLMv2Config,
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    export_onnx,
    load_pruned,
    prune,
    quantize,
)
from tests.helpers.models import batch, sentences, tiny

HALVES = [torch.bfloat16, torch.float16]
TEXTS = [text for text, _ in sentences(24, seed=7)]


def dtypes(model):
    return {parameter.dtype for parameter in model.parameters()}


@pytest.mark.parametrize("dtype", HALVES)
def test_a_trainer_trains_float32_masters(tmp_path, dtype, caplog):
    rows = [{**{n: v[0].tolist() for n, v in batch((7,), seed=s).items()}, "labels": s % 3} for s in range(8)]
    model = tiny().to(dtype)
    before = {id(parameter) for parameter in model.parameters()}
    caplog.set_level(logging.WARNING, "edgemin_hf")
    trainer = DistillationTrainer(
        model,
        tiny(seed=1).to(torch.bfloat16),
        TrainingArguments(str(tmp_path), max_steps=2, report_to=[], use_cpu=True, per_device_train_batch_size=4),
        distillation_config=[TaskDistillationConfig(), MiniLMv2Config(relation_heads=4)],
        train_dataset=rows,
    )
    assert dtypes(model) == {torch.float32}
    assert {id(parameter) for parameter in model.parameters()} == before  # of optimizers that were made before
    assert "its weights become float32" in caplog.text
    trainer.train()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    trainer.save_model(str(tmp_path / "saved"))
    assert json.loads((tmp_path / "saved/config.json").read_text())["dtype"] == "float32"
    assert load_pruned(tmp_path / "saved").dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_one_call_prunes_and_quantises_float32_masters(dtype):
    rows = {**batch(), "labels": torch.tensor([0, 1, 2])}
    assert dtypes(prune(tiny().to(dtype), PruningConfig(ffn_sparsity=0.5), [rows])) == {torch.float32}
    assert dtypes(quantize(tiny().to(dtype), dataloader=[batch()])) == {torch.float32}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("weights", [None, "int8", "int4"])
def test_a_model_in_half_precision_is_exported_in_float32(tmp_path, tokenizer, dtype, weights):
    model = tiny()
    if weights is not None:
        encoded = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
        quantize(model, QuantizationConfig(weights=weights), [encoded])
    model.to(dtype).eval()
    made = export_onnx(model, tokenizer, tmp_path / "out", texts=TEXTS)
    assert dtypes(model) == {dtype}  # it stays as it is
    for fidelity in (made.fp32, made.int8, made.int4):
        assert fidelity is None or fidelity.error <= fidelity.limit
    assert load_pruned(made.folder).dtype == torch.float32
