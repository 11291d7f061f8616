"""Trainers of tiny models, and comparisons of what they leave."""

import torch
from datasets import Dataset
from transformers import TrainingArguments

from edgemin_hf import DistillationTrainer, MiniLMv2Config, create_student
from tests.helpers.models import batch, tiny

RELATIONS = MiniLMv2Config(teacher_layer=2, relation_heads=8)


def dataset(rows=16, labels=True):
    lengths = [3 + (5 * row) % 7 for row in range(rows)]
    inputs = batch(lengths, seed=4)
    ids = [row[:length].tolist() for row, length in zip(inputs["input_ids"], lengths, strict=True)]
    columns = {"input_ids": ids, "attention_mask": [[1] * length for length in lengths]}
    return Dataset.from_dict({**columns, "labels": [row % 3 for row in range(rows)]} if labels else columns)


def make(tmp_path, tokenizer, model=None, teacher=None, config=RELATIONS, data=None, eval_data=None, **arguments):
    extra = {name: arguments.pop(name) for name in ("pruning_config", "quantization_config") if name in arguments}
    extra |= {name: arguments.pop(name) for name in ("compute_metrics", "optimizers") if name in arguments}
    defaults = {"per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-3, "logging_steps": 1, "seed": 3}
    defaults |= {"save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True}
    return DistillationTrainer(
        model if model is not None else create_student(tiny(), 2),
        teacher if teacher is not None else tiny(),
        TrainingArguments(str(tmp_path), **{**defaults, **arguments}),
        distillation_config=config,
        train_dataset=data if data is not None else dataset(),
        eval_dataset=eval_data,
        processing_class=tokenizer,
        **extra,
    )


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_same(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **(tolerance or {"rtol": 0, "atol": 0}))


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    return model
