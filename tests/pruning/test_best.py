"""The best model, and early stopping, of trainings in which units go on the way."""

import pytest
from transformers import EarlyStoppingCallback, TrainerCallback

from edgemin_hf import PruningConfig, QuantizationConfig, TaskDistillationConfig
from edgemin_hf.modeling.encoder import Encoder
from tests.helpers.training import dataset, make

LABELS_ALONE = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)


def trainer_of(tmp_path, tokenizer, saliency="taylor", **changes):
    """A training that is measured and saved at each of its 8 steps; units go from step 2 to step 4."""
    if saliency == "snip_momentum":
        pytest.importorskip("neural_compressor")
    pruning = {"schedule": "iterative", "start": 0.25, "end": 0.5, "rounds": 2, **changes.pop("pruning", {})}
    arguments = {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    arguments |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False}
    return make(
        tmp_path, tokenizer, config=LABELS_ALONE, eval_data=dataset(),
        pruning_config=PruningConfig(0.5, 0.5, saliency=saliency, **pruning), **{**arguments, **changes},
    )  # fmt: skip


def losses(trainer):
    return {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}


@pytest.mark.long
@pytest.mark.parametrize("quantization", [None, QuantizationConfig(range_momentum=0.3)], ids=["fp32", "int8"])
@pytest.mark.parametrize("saliency", ["taylor", "snip_momentum"])
def test_the_best_model_is_returned_as_it_was_measured(tmp_path, tokenizer, saliency, quantization):
    trainer = trainer_of(tmp_path, tokenizer, saliency, learning_rate=0.1, quantization_config=quantization)
    trainer.train()
    seen = losses(trainer)
    if quantization is None:
        assert min(seen, key=seen.get) <= 4  # the best of all is one from which units were still to go
    assert trainer.state.best_metric == min(loss for step, loss in seen.items() if step > 4)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-5)
    assert [layer.num_heads for layer in Encoder(trainer.model).layers] == [2, 2]


@pytest.mark.long
@pytest.mark.parametrize("saliency", ["taylor", "snip_momentum"])
def test_early_stopping_counts_from_the_last_masks_on(tmp_path, tokenizer, saliency):
    trainer = trainer_of(tmp_path, tokenizer, saliency, learning_rate=0.1)
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=1))
    trainer.train()
    seen = losses(trainer)
    assert seen[2] > seen[1] or seen[3] > seen[2] or seen[4] > seen[3]
    assert 5 < trainer.state.global_step <= 8
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-5)


@pytest.mark.parametrize(("saliency", "end", "steps"), [("random", 1.0, 1), ("random", 0.9, 3), ("magnitude", 0.9, 3)])
def test_what_could_have_no_best_model_is_refused_before_the_first_step(tmp_path, tokenizer, saliency, end, steps):
    if saliency == "magnitude":
        pytest.importorskip("neural_compressor")
    trainer = trainer_of(
        tmp_path, tokenizer, saliency, pruning={"end": end}, max_steps=5, eval_steps=steps, save_steps=steps
    )
    with pytest.raises(ValueError, match="load_best_model_at_end: true, but no evaluation follows step"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_best_of_an_epoch_may_be_the_last(tmp_path, tokenizer):
    by_epoch = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    trainer = trainer_of(tmp_path, tokenizer, "random", **by_epoch)  # 4 steps an epoch
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-8")
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-5)


@pytest.mark.parametrize("saliency", ["taylor", "snip_momentum"])
def test_who_ends_a_training_before_its_units_are_gone_is_told(tmp_path, tokenizer, saliency, caplog):
    class Stop(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            control.should_training_stop = state.global_step == 3

    caplog.set_level("WARNING", "edgemin_hf")
    trainer = trainer_of(tmp_path, tokenizer, saliency)
    trainer.add_callback(Stop())
    trainer.train()
    assert "training ended at step 3 of 8" in caplog.text
    assert trainer.state.best_model_checkpoint is None
    assert [layer.num_heads for layer in Encoder(trainer.model).layers] == [2, 2]


@pytest.mark.parametrize("ranges", [None, "observed", "learned"])
def test_what_keeps_its_shape_counts_from_the_start(tmp_path, tokenizer, ranges):
    quantization = None if ranges is None else QuantizationConfig(ranges=ranges, range_momentum=0.3)
    trainer = trainer_of(
        tmp_path, tokenizer, "random", learning_rate=0.1, pruning={"schedule": "one_shot"},
        quantization_config=quantization,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_metric == min(losses(trainer).values())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-5)
