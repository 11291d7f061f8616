import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertModel, TrainerCallback

from edgemin_hf import (
    DistillationTrainer,
    MiniLMv2Config,
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    create_student,
    export_onnx,
    load_pruned,
)
from edgemin_hf.data.batches import LengthGroupedBatches
from edgemin_hf.distillation.teacher_logits import cached_teacher_logits
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.quantization.native import fake_quantized_linears
from edgemin_hf.tasks.text_classification import TextClassification
from edgemin_hf.utils.compat import group_by_length
from tests.helpers.models import FAMILIES, batch, tiny
from tests.helpers.training import RELATIONS, assert_same, dataset, make, weights, without_dropout


def test_training_lowers_the_relation_loss_and_logs_every_term(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, max_steps=30, eval_data=dataset(8, labels=False), data=dataset(labels=False))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.9 * before["eval_loss"]
    terms = [f"minilmv2_{pair}" for pair in ("qq", "kk", "vv")]
    assert sum(after[f"eval_{term}"] for term in terms) == pytest.approx(after["eval_loss"], rel=1e-5)
    steps = [logs for logs in trainer.state.log_history if "loss" in logs]
    assert len(steps) == 30
    for logs in steps:
        assert sum(logs[term] for term in terms) == pytest.approx(logs["loss"], abs=1e-3)


def test_the_teacher_is_frozen_unsaved_and_unchanged(tmp_path, tokenizer):
    teacher = tiny()
    before = copy.deepcopy(teacher.state_dict())
    trainer = make(tmp_path, tokenizer, teacher=teacher.train(), save_strategy="steps", save_steps=4)
    trainer.train()
    assert_same(teacher.state_dict(), before)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    sizes = [file.stat().st_size for file in (tmp_path / "checkpoint-4").glob("*.safetensors")]
    assert len(sizes) == 1
    assert sizes[0] < 1.2 * sum(4 * p.numel() for p in trainer.model.parameters())


@pytest.mark.parametrize("takes_any_argument", [False, True])
def test_accumulation_changes_nothing(tmp_path, tokenizer, takes_any_argument):
    results = []
    for size, accumulation in ((8, 1), (2, 4)):
        # MPNetModel's forward takes **kwargs, from which Trainer concludes that the model scales its loss by itself.
        teacher = tiny("mpnet" if takes_any_argument else "bert")
        student = without_dropout(create_student(teacher, 2))
        trainer = make(
            tmp_path, tokenizer, student.mpnet if takes_any_argument else student, teacher,
            RELATIONS if takes_any_argument else [RELATIONS, TaskDistillationConfig()], optim="sgd", max_grad_norm=0.0,
            per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        trainer.train()
        results.append(weights(trainer))
    assert_same(*results, rtol=1e-4, atol=1e-5)


def test_padding_side_changes_nothing(tmp_path, tokenizer):
    losses = []
    for side in ("right", "left"):
        teacher = without_dropout(tiny("bert"))
        trainer = make(tmp_path, tokenizer, create_student(teacher, 2), teacher)
        inputs = batch(side=side, pad_to=12)
        # Absolute positions move with left padding; the loss must not care otherwise.
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        losses.append(trainer.compute_loss(trainer.model.eval(), inputs).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_cached_teacher_logits_equal_the_teacher_at_work(tmp_path, tokenizer):
    teacher, data = tiny(), dataset()
    logits = cached_teacher_logits(teacher, data, tokenizer, tmp_path / "logits.safetensors", "key")
    for row in (0, 5, 15):
        one = torch.tensor([data[row]["input_ids"]])
        torch.testing.assert_close(logits[row], teacher(one).logits[0], rtol=1e-4, atol=1e-4)
    stored = cached_teacher_logits(None, data, tokenizer, tmp_path / "logits.safetensors", "key")
    assert torch.equal(stored, logits)
    results = []
    for with_cache in (True, False):
        rows = data.add_column("teacher_logits", list(logits.numpy())) if with_cache else data
        model = without_dropout(create_student(tiny(), 2))
        trainer = make(
            tmp_path, tokenizer, model, None if with_cache else teacher, TaskDistillationConfig(), rows, optim="sgd"
        )
        if with_cache:
            trainer.teacher_model = None
        trainer.train()
        results.append(weights(trainer))
    assert_same(*results, rtol=1e-4, atol=1e-5)


def test_soft_and_hard_labels_are_the_formulas(tmp_path, tokenizer):
    teacher, student = tiny(), create_student(tiny(), 2).eval()
    config = TaskDistillationConfig(soft_weight=0.3, hard_weight=0.7, temperature=3.0)
    inputs = {**batch(), "labels": torch.tensor([2, 0, 1])}
    trainer = make(tmp_path, tokenizer, student, teacher, config)
    loss = trainer.compute_loss(student, inputs).item()
    ours, theirs = (model(**batch()).logits.detach().numpy().astype(np.float64) for model in (student, teacher))

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))

    p, q = log_softmax(theirs / 3), log_softmax(ours / 3)
    soft = 9 * (np.exp(p) * (p - q)).sum(axis=-1).mean()
    hard = -log_softmax(ours)[np.arange(3), [2, 0, 1]].mean()
    assert loss == pytest.approx(0.3 * soft + 0.7 * hard, rel=1e-5)
    assert TextClassification.soft_loss(torch.ones(2, 3), torch.ones(2, 3), 2.0).item() == pytest.approx(0, abs=1e-7)


def test_evaluation_gives_the_task_metric(tmp_path, tokenizer):
    def metric(prediction):
        return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    trainer = make(tmp_path, tokenizer, config=TaskDistillationConfig(), eval_data=dataset(), compute_metrics=metric)
    result = trainer.evaluate()
    with torch.no_grad():
        right = [
            trainer.model(torch.tensor([row["input_ids"]])).logits.argmax().item() == row["labels"] for row in dataset()
        ]
    assert result["eval_accuracy"] == pytest.approx(np.mean(right))
    assert {"eval_loss", "eval_soft_labels", "eval_hard_labels"} <= set(result)


GRADUAL = PruningConfig(0.5, 0.5, schedule="cubic", start=0.25, end=0.9, rounds=4)


@pytest.mark.long
@pytest.mark.parametrize("checkpoint", [3, 6])
@pytest.mark.parametrize(
    "stage",
    [
        "relations", "prune", "prune cubic", "prune by INC", "prune and quantize", "layers", "quantize", "int4",
        "mixed layers", "quantize, learned ranges", "prune and quantize, learned ranges",
    ],
)  # fmt: skip
def test_resumed_equals_uninterrupted(tmp_path, tokenizer, stage, checkpoint):
    def trainer(folder, **arguments):
        extra = {}
        if stage == "prune":
            extra = {"pruning_config": PruningConfig(0.5, 0.5, saliency_examples=8)}
        if stage == "layers":
            extra = {"pruning_config": PruningConfig(layer_sparsity=0.5, saliency_examples=8)}
        if stage == "prune by INC":
            pytest.importorskip("neural_compressor")
            extra = {"pruning_config": replace(GRADUAL, saliency="snip_momentum", rounds=2)}
        if stage in ("prune cubic", "prune by INC") or stage.startswith("prune and quantize"):
            extra = {"pruning_config": GRADUAL}
        if "quantize" in stage:
            ranges = {"ranges": "learned", "range_learning_rate": 0.05} if "learned" in stage else {}
            extra |= {"quantization_config": QuantizationConfig(calibration_examples=8, range_momentum=0.3, **ranges)}
        if stage == "int4":
            extra = {"quantization_config": QuantizationConfig("int4", "int4")}
            extra |= {"pruning_config": PruningConfig(0.5, 0.5, saliency_examples=8)}
        if stage == "mixed layers":
            extra = {"pruning_config": PruningConfig(layer_sparsity=0.5, saliency_examples=8)}
            overrides = {"bert.encoder.layer.0": "int4", "classifier": "fp32"}
            extra |= {"quantization_config": QuantizationConfig(calibration_examples=8, overrides=overrides)}
        config = RELATIONS if stage == "relations" else TaskDistillationConfig()
        model = create_student(tiny(), 2)
        return make(
            folder, tokenizer, model, config=config, max_steps=8, save_strategy="steps", save_steps=3,
            **group_by_length(), **extra, **arguments,
        )  # fmt: skip

    whole = trainer(tmp_path / "whole")
    whole.train()
    resumed = trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{checkpoint}"))
    assert_same(weights(resumed), weights(whole))
    if "prune" in stage or stage == "int4":
        assert [layer.num_heads for layer in Encoder(resumed.model).layers] == [2, 2]
        assert resumed.model.config.pruned_heads == whole.model.config.pruned_heads
    if "layers" in stage:
        assert len(Encoder(resumed.model).layers) == 1
    if "quantize" in stage:
        assert not fake_quantized_linears(resumed.model)[0].observing


@pytest.mark.parametrize("ranges", ["observed", "learned"])
def test_pruning_and_quantization_in_one_run(tmp_path, tokenizer, ranges):
    trainer = make(
        tmp_path, tokenizer, config=[RELATIONS, TaskDistillationConfig()], pruning_config=PruningConfig(0.5, 0.5),
        quantization_config=QuantizationConfig(ranges=ranges), bf16=True,
    )  # fmt: skip
    trainer.train()
    assert [layer.num_heads for layer in Encoder(trainer.model).layers] == [2, 2]
    assert all(module.input_high > module.input_low for module in fake_quantized_linears(trainer.model)[:12])
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert {"minilmv2_qq", "soft_labels", "hard_labels"} <= set(log)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_distils_prunes_and_quantises(tmp_path, tokenizer, family):
    trainer = make(
        tmp_path, tokenizer, create_student(tiny(family), 2), tiny(family), [RELATIONS, TaskDistillationConfig()],
        pruning_config=PruningConfig(0.5, 0.5), quantization_config=QuantizationConfig(), max_steps=2,
    )  # fmt: skip
    before = weights(trainer)
    trainer.train()
    layers = Encoder(trainer.model).layers
    assert [layer.num_heads for layer in layers] == [2] * 2
    assert [layer.ffn_out.in_features for layer in layers] == [32] * 2
    after = weights(trainer)
    same = [
        name for name in after if before[name].shape == after[name].shape and torch.equal(before[name], after[name])
    ]
    assert len(same) < 0.2 * len(after), same


def test_a_student_without_head_and_one_of_another_family(tmp_path, tokenizer):
    headless = BertModel(create_student(tiny(), 2).config)
    make(tmp_path, tokenizer, headless, data=dataset(labels=False)).train()
    other = create_student(tiny(), 2, model_type="distilbert")
    make(tmp_path, tokenizer, other).train()


def test_what_does_not_fit_is_refused_at_once(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="vocabulary of 99; allowed: the teacher's"):
        make(tmp_path, tokenizer, tiny(vocab_size=99))
    with pytest.raises(ValueError, match="labels"):
        make(tmp_path, tokenizer, tiny(id2label={0: "b", 1: "a", 2: "c"}), config=TaskDistillationConfig())
    with pytest.raises(ValueError, match="layer_sparsity: above 0 for model type 'albert'"):
        make(tmp_path, tokenizer, tiny("albert"), tiny("albert"), pruning_config=PruningConfig(layer_sparsity=0.5))
    with pytest.raises(ValueError, match="layer_sparsity: above 0 beside "):
        make(tmp_path, tokenizer, pruning_config=PruningConfig(layer_sparsity=0.5))
    with pytest.raises(ValueError, match="tune_masks: true for model type 'modernbert'"):
        make(
            tmp_path, tokenizer, tiny("modernbert"), tiny("modernbert"),
            pruning_config=PruningConfig(0.5, tune_masks=True),
        )  # fmt: skip
    with pytest.raises(ValueError, match="without labels"):
        make(tmp_path, tokenizer, config=TaskDistillationConfig(), data=dataset(labels=False)).train()


def test_what_would_train_something_else_is_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="model_init"):
        DistillationTrainer(None, tiny(), distillation_config=RELATIONS, model_init=tiny)
    student = create_student(tiny(), 2)
    with pytest.raises(ValueError, match="the student itself"):
        make(tmp_path, tokenizer, student, student)
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        make(tmp_path, tokenizer, label_smoothing_factor=0.1)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="optimizers"):
        make(tmp_path, tokenizer, student, pruning_config=PruningConfig(0.5), optimizers=(optimizer, None))
    with pytest.raises(ValueError, match="without a head"):
        make(tmp_path, tokenizer, BertModel(student.config), config=TaskDistillationConfig())
    with pytest.raises(ValueError, match="multi_label_classification"):
        make(tmp_path, tokenizer, tiny(problem_type="multi_label_classification"), config=TaskDistillationConfig())
    with pytest.raises(ValueError, match="does not reach layer 2"):
        make(tmp_path, tokenizer, pruning_config=PruningConfig(0.5)).train()


def test_two_configs_of_one_method_are_summed(tmp_path, tokenizer):
    configs = [MiniLMv2Config(teacher_layer=layer, relation_heads=8) for layer in (1, 3)]
    inputs = batch()
    losses = []
    for config in (*configs, configs):
        trainer = make(tmp_path, tokenizer, create_student(tiny(), 2).eval(), config=config)
        losses.append(trainer.compute_loss(trainer.model, inputs).item())
    assert losses[2] == pytest.approx(losses[0] + losses[1], rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("saliency", ["taylor", "taylor_weights", "fisher", "random"])
@pytest.mark.parametrize("schedule", ["cubic", "iterative"])
def test_units_are_masked_in_rounds_and_then_removed(tmp_path, tokenizer, schedule, saliency):
    config = PruningConfig(0.5, 0.5, saliency=saliency, schedule=schedule, start=0.2, end=0.8, rounds=3)
    counts, predictions = [], []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            pruner = trainer.callback_handler.callbacks[0]
            counts.append(sum(int(heads.sum() + neurons.sum()) for heads, neurons in pruner.masks))
            with torch.no_grad():
                predictions.append(model.eval()(**batch()).logits)
                model.train()

    trainer = make(
        tmp_path, tokenizer, config=TaskDistillationConfig(), pruning_config=config, max_steps=10,
        data=dataset(40),
    )  # fmt: skip
    trainer.add_callback(Look())
    trainer.train()
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 4 if schedule == "iterative" else len(set(counts)) >= 3
    assert counts[-1] == 2 * (2 + 32)
    # Without the masks and without the units it computes what it computed with them.
    torch.testing.assert_close(trainer.model.eval()(**batch()).logits, predictions[-1], rtol=1e-5, atol=1e-5)
    assert [layer.num_heads for layer in Encoder(trainer.model).layers] == [2, 2]


@pytest.mark.long
@pytest.mark.parametrize("saliency", ["magnitude", "gradient", "snip_momentum"])
@pytest.mark.parametrize("schedule", ["one_shot", "cubic"])
def test_neural_compressor_prunes(tmp_path, tokenizer, schedule, saliency):
    pytest.importorskip("neural_compressor")
    config = PruningConfig(0.5, 0.5, saliency=saliency, schedule=schedule, rounds=2, end=0.8)
    trainer = make(tmp_path, tokenizer, config=TaskDistillationConfig(), pruning_config=config, max_steps=8)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    saved = load_pruned(tmp_path / "saved")
    assert [layer.num_heads for layer in Encoder(saved).layers] == [2, 2]
    assert saved.config.intermediate_size == 32
    pruning = json.loads((tmp_path / "saved/inc_config.json").read_text())["pruning"]
    assert pruning["approach"] == saliency
    trainer.model.eval()
    torch.testing.assert_close(saved.eval()(**batch()).logits, trainer.model(**batch()).logits)


def test_neural_compressors_own_configuration_is_taken(tmp_path, tokenizer):
    inc = pytest.importorskip("neural_compressor")
    config = inc.WeightPruningConfig(
        [{"pattern": "mha", "op_names": ["attention"]}, {"pattern": "channelx1", "op_names": [r"output\.dense"],
         "excluded_op_names": ["attention"]}],
        target_sparsity=0.5, start_step=1, end_step=6, pruning_frequency=2, pruning_scope="local",
    )  # fmt: skip
    trainer = make(tmp_path, tokenizer, config=TaskDistillationConfig(), pruning_config=config, max_steps=8)
    trainer.train()
    layers = Encoder(trainer.model).layers
    assert all(layer.num_heads < 4 and layer.num_neurons < 64 for layer in layers)
    with pytest.raises(ValueError, match=r"pruning_config: .* beside quantization_config"):
        make(tmp_path, tokenizer, pruning_config=config, quantization_config=QuantizationConfig())


def test_a_budget_can_be_met_on_the_way(tmp_path, tokenizer):
    target = round(0.75 * create_student(tiny(), 2).num_parameters())
    config = PruningConfig(target_parameters=target, schedule="iterative", scope="model", rounds=3)
    trainer = make(tmp_path, tokenizer, config=TaskDistillationConfig(), pruning_config=config, max_steps=10)
    trainer.train()
    assert 0.9 * target < trainer.model.num_parameters() <= target


def test_masks_are_tuned_where_nothing_is_trained(tmp_path, tokenizer):
    trainers = [
        make(
            tmp_path, tokenizer, create_student(tiny(), 2, layers=[1, 3]), config=TaskDistillationConfig(),
            pruning_config=PruningConfig(0.25, 0.5, saliency="fisher", tune_masks=tune),
        )
        for tune in (True, False)
    ]  # fmt: skip
    for trainer in trainers:
        trainer.prepare()
    tuned, plain = (Encoder(trainer.model).layers[0] for trainer in trainers)
    torch.testing.assert_close(tuned.q.weight, plain.q.weight, rtol=0, atol=0)
    assert not torch.allclose(tuned.ffn_out.weight, plain.ffn_out.weight, rtol=1e-2)


@pytest.mark.long
@pytest.mark.parametrize("schedule", ["one_shot", "cubic"])
def test_training_again_does_not_prune_again(tmp_path, tokenizer, schedule):
    def trainer():
        return make(
            tmp_path, tokenizer, config=TaskDistillationConfig(),
            pruning_config=PruningConfig(0.5, 0.5, schedule=schedule),
            save_strategy="steps", save_steps=2,
        )  # fmt: skip

    first = trainer()
    first.train()
    first.train()
    if schedule != "one_shot":
        assert [layer.num_heads for layer in Encoder(first.model).layers] == [2, 2]
        return
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    resumed.prepare()
    for done in (first, resumed):
        assert [layer.num_heads for layer in Encoder(done.model).layers] == [2, 2]


def test_terms_of_an_evaluation_are_means_over_examples(tmp_path, tokenizer):
    config = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)
    trainer = make(tmp_path, tokenizer, config=config, eval_data=dataset(9), per_device_eval_batch_size=8)
    result = trainer.evaluate()
    assert result["eval_hard_labels"] == pytest.approx(result["eval_loss"], rel=1e-4)


def test_predictions_stand_in_the_datasets_order_and_need_no_labels(tmp_path, tokenizer):
    trainer = make(
        tmp_path, tokenizer, config=TaskDistillationConfig(), **group_by_length(), compute_metrics=lambda _: {}
    )
    rows = dataset(labels=False)
    predicted = trainer.predict(rows).predictions
    for row in (0, 7, 15):
        one = trainer.model(torch.tensor([rows[row]["input_ids"]])).logits[0]
        torch.testing.assert_close(torch.tensor(predicted[row]), one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", [RELATIONS, TaskDistillationConfig()], ids=["layers", "logits"])
def test_predictions_need_no_metric(tmp_path, tokenizer, config):
    trainer = make(tmp_path, tokenizer, config=config, eval_data=dataset(9))
    output = trainer.predict(dataset(9))
    one = trainer.model(torch.tensor([dataset(9)[8]["input_ids"]])).logits[0]
    torch.testing.assert_close(torch.tensor(output.predictions[8]), one, rtol=1e-3, atol=1e-4)
    assert output.label_ids.tolist() == [row["labels"] for row in dataset(9)]
    assert output.metrics["test_loss"] == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-5)


def test_rows_without_the_teachers_logits_are_measured_after_a_training_on_them(tmp_path, tokenizer):
    rows = dataset().add_column("teacher_logits", list(torch.randn(16, 3).numpy()))
    model = without_dropout(create_student(tiny(), 2))
    trainer = make(
        tmp_path, tokenizer, model, tiny(), TaskDistillationConfig(), rows, dataset(9),
        compute_metrics=lambda p: {"rows": len(p.predictions)},
    )  # fmt: skip
    trainer.teacher_model = None
    trainer.train()
    result = trainer.evaluate()
    assert result["eval_rows"] == 9
    assert result["eval_hard_labels"] > 0
    assert "eval_loss" not in result  # without the soft labels it would be another loss
    assert trainer.predict(dataset(9, labels=False)).predictions.shape == (9, 3)
    assert "eval_loss" in trainer.evaluate(rows)
    trainer.compute_metrics = None
    with pytest.raises(ValueError, match=r"without what soft_labels, hard_labels takes; expected: .* teacher"):
        trainer.evaluate(dataset(9, labels=False))


def test_an_evaluation_takes_all_rows_though_training_drops_the_last(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, config=TaskDistillationConfig(), dataloader_drop_last=True)
    assert len(trainer.predict(dataset(9)).predictions) == 9
    assert len(trainer.get_train_dataloader()) == 4
    trainer.train_dataset = dataset(18)
    assert len(trainer.get_train_dataloader()) == 4


@pytest.mark.parametrize("batch_eval_metrics", [False, True])
def test_metrics_see_what_they_ask_for(tmp_path, tokenizer, batch_eval_metrics):
    seen = []

    def metric(prediction, compute_result=True):
        seen.append((len(prediction.predictions), len(prediction.label_ids), len(prediction.inputs)))
        return {"mean_loss": float(np.mean(np.asarray(prediction.losses)))} if compute_result else {}

    trainer = make(
        tmp_path, tokenizer, config=TaskDistillationConfig(), eval_data=dataset(16), compute_metrics=metric,
        include_for_metrics=["inputs", "loss"], batch_eval_metrics=batch_eval_metrics,
    )  # fmt: skip
    result = trainer.evaluate()
    assert result["eval_mean_loss"] > 0
    assert seen == ([(8, 8, 3), (8, 8, 3)] if batch_eval_metrics else [(16, 16, 16)])


def test_evaluation_of_relations_gives_the_task_metric_too(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, eval_data=dataset(), compute_metrics=lambda p: {"rows": len(p.predictions)})
    result = trainer.evaluate()
    assert result["eval_rows"] == 16
    assert result["eval_minilmv2_qq"] > 0


def test_evaluation_before_training_is_that_of_the_calibrated_model(tmp_path, tokenizer):
    def loss(**extra):
        return make(tmp_path, tokenizer, config=TaskDistillationConfig(), eval_data=dataset(), **extra).evaluate()

    quantized = loss(quantization_config=QuantizationConfig())["eval_loss"]
    assert quantized == pytest.approx(loss()["eval_loss"], rel=0.1)


def test_the_teacher_gets_inputs_that_the_student_does_not_read(tmp_path, tokenizer):
    student = create_student(tiny(), 2, model_type="distilbert")
    rows = dataset().map(lambda row: {"token_type_ids": [1] * len(row["input_ids"])})
    trainer = make(tmp_path, tokenizer, student, data=rows)
    assert "token_type_ids" in next(iter(trainer.get_train_dataloader()))
    trainer.train()


def test_what_a_bf16_run_trained_exports_faithfully(tmp_path, tokenizer):
    trainer = make(
        tmp_path / "run",
        tokenizer,
        config=TaskDistillationConfig(),
        quantization_config=QuantizationConfig(),
        bf16=True,
    )
    trainer.train()
    made = export_onnx(trainer.model, tokenizer, tmp_path / "out", texts=["where is my card", "send the money now"])
    assert made.int8.error <= made.int8.limit
    with pytest.raises(ValueError, match="holds other things"):
        export_onnx(trainer.model, tokenizer, tmp_path)


def test_pruning_and_int4_in_one_bf16_run_export_faithfully(tmp_path, tokenizer):
    trainer = make(
        tmp_path / "run", tokenizer, config=TaskDistillationConfig(), pruning_config=PruningConfig(0.5, 0.5),
        quantization_config=QuantizationConfig("int4", "int4"), bf16=True,
    )  # fmt: skip
    before = weights(trainer)
    trainer.train()
    assert [layer.num_heads for layer in Encoder(trainer.model).layers] == [2, 2]
    after = weights(trainer)
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(after[name], before[name])
    made = export_onnx(trainer.model, tokenizer, tmp_path / "out", texts=["where is my card", "send the money now"])
    assert made.int4.error <= made.int4.limit


def test_units_do_not_go_at_the_end_where_int4_groups_would_change(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"schedule: cubic beside weights: int4, .*; allowed: one_shot"):
        make(tmp_path, tokenizer, pruning_config=GRADUAL, quantization_config=QuantizationConfig("int4"))


def test_gradient_checkpointing_changes_nothing(tmp_path, tokenizer):
    results = []
    for checkpointing in (True, False):
        model = without_dropout(create_student(tiny(), 2))
        trainer = make(tmp_path, tokenizer, model, gradient_checkpointing=checkpointing, optim="sgd")
        trainer.train()
        results.append(weights(trainer))
    assert_same(*results, rtol=1e-5, atol=1e-6)


def test_length_grouped_batches_cover_all_and_depend_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(3, 60, 1003)
    sampler = LengthGroupedBatches(lengths, 8, seed=1)
    order = list(sampler)
    assert sorted(order) == list(range(1003))
    assert order == list(LengthGroupedBatches(lengths, 8, seed=1))
    sampler.set_epoch(1)
    assert order != list(sampler)
    spread = [np.ptp(lengths[order[i : i + 8]]) for i in range(0, 1000, 8)]
    assert np.mean(spread) < 0.2 * np.ptp(lengths)


def test_trainer_moves_to_the_order_of_each_epoch(tmp_path, tokenizer):
    seen = []

    def collate(rows):
        seen.append(tuple(len(row["input_ids"]) for row in rows))
        return tokenizer.pad(rows, return_tensors="pt")

    trainer = make(tmp_path, tokenizer, max_steps=8, **group_by_length())
    trainer.data_collator = collate
    trainer.train()
    assert len(seen) >= 8
    assert seen[:4] != seen[4:8]
