import pytest
import torch
from transformers import BertModel

from edgemin_hf import TaskDistillationConfig, TinyBERTConfig, create_student
from tests.helpers.models import tiny
from tests.helpers.training import RELATIONS, assert_same, make, weights, without_dropout

TASK = TaskDistillationConfig()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")  # TrainingArguments write another there


def refused(tmp_path, tokenizer, match, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as error:
        make(tmp_path, tokenizer, *args, **kwargs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kwargs", [{"use_reentrant": True}, {"use_reentrant": True, "preserve_rng_state": False}])
@pytest.mark.parametrize("config", [RELATIONS, [TASK, RELATIONS], TinyBERTConfig()], ids=["one", "two", "projections"])
def test_reentrant_checkpointing_is_refused_where_layers_are_read(tmp_path, tokenizer, config, kwargs):
    refused(
        tmp_path, tokenizer, "gradient_checkpointing_kwargs: .*; allowed: use_reentrant false", config=config,
        gradient_checkpointing=True, gradient_checkpointing_kwargs=kwargs,
    )  # fmt: skip


def test_reentrant_checkpointing_of_the_model_is_refused_where_layers_are_read(tmp_path, tokenizer):
    student = create_student(tiny(), 2)
    student.gradient_checkpointing_enable({"use_reentrant": True})
    refused(tmp_path, tokenizer, "model: gradient checkpointing with use_reentrant true", student)
    make(tmp_path, tokenizer, student, config=TASK)


@pytest.mark.parametrize("kwargs", [None, {"preserve_rng_state": True}, {"use_reentrant": False}])
def test_checkpointing_is_not_reentrant_unless_asked(tmp_path, tokenizer, kwargs):
    student = create_student(tiny(), 2)
    student.gradient_checkpointing_enable({"use_reentrant": True})  # the arguments' comes after it
    trainer = make(
        tmp_path, tokenizer, student, gradient_checkpointing=True, gradient_checkpointing_kwargs=kwargs, max_steps=1
    )
    before = weights(trainer)
    trainer.train()
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(weights(trainer)[name], before[name])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"auto_find_batch_size": True}, "auto_find_batch_size: True; allowed: false"),
        ({"bf16_full_eval": True}, "bf16_full_eval: True; allowed: false"),
        ({"label_names": ["target"]}, r"label_names: \['target'\]; allowed: \['labels'\]"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: 0.1; allowed: 0"),
    ],
)
def test_arguments_that_would_change_what_is_trained_are_refused(tmp_path, tokenizer, arguments, match):
    refused(tmp_path, tokenizer, match, **arguments)


def test_label_names_may_be_what_they_are(tmp_path, tokenizer):
    make(tmp_path, tokenizer, config=TASK, label_names=["labels"], max_steps=1).train()


def test_metrics_want_a_head(tmp_path, tokenizer):
    headless = BertModel(create_student(tiny(), 2).config)
    refused(tmp_path, tokenizer, "compute_metrics: given for BertModel", headless, compute_metrics=lambda _: {})


def test_wrapped_models_are_refused(tmp_path, tokenizer):
    for config in (RELATIONS, TASK):
        compiled = torch.compile(create_student(tiny(), 2), backend="eager")
        refused(tmp_path, tokenizer, "model: OptimizedModule; allowed: a transformers model", compiled, config=config)
        compiled = torch.compile(tiny(), backend="eager")
        refused(tmp_path, tokenizer, "teacher_model: OptimizedModule", None, compiled, config=config)


def test_compilation_is_refused_where_layers_are_read(tmp_path, tokenizer):
    for part in (lambda model: model, lambda model: model.bert.encoder.layer[0]):
        model = create_student(tiny(), 2)
        part(model).compile(backend="eager")
        refused(tmp_path, tokenizer, "^model: compiled; allowed: one that is not", model)
        model = tiny()
        part(model).compile(backend="eager")
        refused(tmp_path, tokenizer, "^teacher_model: compiled; allowed: one that is not", None, model)
    compiling = {"torch_compile": True, "torch_compile_backend": "eager"}
    refused(tmp_path, tokenizer, "torch_compile, .*: eager; allowed: no", config=[TASK, RELATIONS], **compiling)


@pytest.mark.long
def test_compilation_changes_nothing_where_logits_are_read(tmp_path, tokenizer):
    results = []
    for compiling in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        student = without_dropout(create_student(tiny(), 1))
        trainer = make(tmp_path, tokenizer, student, config=TASK, optim="sgd", **compiling)
        trainer.train()
        results.append(weights(trainer))
    assert_same(*results, rtol=1e-5, atol=1e-6)
