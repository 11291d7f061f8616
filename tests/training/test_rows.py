import json

import pytest
import torch
from accelerate.state import GradientState
from accelerate.utils import DistributedType

from edgemin_hf import QuantizationConfig, TaskDistillationConfig, create_student
from edgemin_hf.training.rows import ROW_WEIGHT, ROWS, own_rows, weighted_batches
from edgemin_hf.utils.compat import group_by_length
from tests.helpers.models import tiny
from tests.helpers.training import RELATIONS, assert_same, dataset, make, weights, without_dropout

BOTH = [RELATIONS, TaskDistillationConfig()]


def trainer(folder, tokenizer, size, accumulation, rows=16, config=BOTH, **arguments):
    settings = {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": -1, "num_train_epochs": 2, **arguments}
    return make(
        folder, tokenizer, without_dropout(create_student(tiny(), 2)), config=config, data=dataset(rows),
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, **settings,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "accumulation", "rows"),
    [(2, 4, 11), *(pytest.param(*case, marks=pytest.mark.long) for case in ((2, 4, 9), (3, 3, 13), (4, 2, 14)))],
)
def test_a_short_last_batch_weighs_as_its_rows_do(tmp_path, tokenizer, size, accumulation, rows):
    together = trainer(tmp_path, tokenizer, size * accumulation, 1, rows)
    parts = trainer(tmp_path, tokenizer, size, accumulation, rows)
    for one in (together, parts):
        one.train()
    assert together.state.global_step == parts.state.global_step == 4
    assert_same(weights(parts), weights(together), rtol=1e-4, atol=1e-6)
    losses = [[log["loss"] for log in one.state.log_history if "loss" in log] for one in (parts, together)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_terms_of_uneven_batches_add_up_to_the_loss(tmp_path, tokenizer):
    parts = trainer(tmp_path, tokenizer, 2, 4, rows=9)
    parts.train()
    logs = [log for log in parts.state.log_history if "loss" in log]
    assert len(logs) == 4
    for log in logs:
        terms = [log[name] for name in log if name.startswith("minilmv2") or name.endswith("_labels")]
        assert sum(terms) == pytest.approx(log["loss"], abs=2e-4)


@pytest.mark.long
@pytest.mark.parametrize(("split", "grouped"), [((8, 1), False), ((8, 1), True), ((1, 8), True)])
def test_a_run_goes_on_with_the_same_rows_in_other_batches(tmp_path, tokenizer, split, grouped):
    extra = {**(group_by_length() if grouped else {}), "rows": 21, "num_train_epochs": 3}
    whole = trainer(tmp_path, tokenizer, 2, 4, save_strategy="steps", save_steps=4, **extra)
    whole.train()
    resumed = trainer(tmp_path / "resumed", tokenizer, *split, save_strategy="steps", save_steps=4, **extra)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert whole.state.global_step == resumed.state.global_step == 9
    assert_same(weights(resumed), weights(whole), rtol=1e-4, atol=1e-6)
    # What was resumed once can be resumed again, in the first run's order.
    again = trainer(tmp_path / "again", tokenizer, *split, **extra)
    again.train(resume_from_checkpoint=str(tmp_path / "resumed" / "checkpoint-8"))
    assert_same(weights(again), weights(whole), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 8, "accumulation": 1}, r"per_device_train_batch_size.*: 8 \* 1 .*; expected: any that make 4"),
        ({"accumulation": 1}, r"gradient_accumulation_steps: 2 \* 1 .*; expected: any that make 4"),
        ({"rows": 17}, "train_dataset: 17 rows an epoch; expected: 16"),
        ({"rows": 17, "size": 4, "accumulation": 1, "dataloader_drop_last": True}, None),
        ({"seed": 4}, "seed: 4; expected: 3"),
        ({"data_seed": 5}, "data_seed: 5; expected: 3"),
        (group_by_length(), "group_by_length: True; expected: False"),
    ],
)
def test_what_would_take_other_rows_is_refused_before_it_starts(tmp_path, tokenizer, changes, message):
    arguments = {"size": 2, "accumulation": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trainer(tmp_path, tokenizer, **arguments).train()
    other = trainer(tmp_path / "other", tokenizer, **{**arguments, **changes})
    before = weights(other)
    if message is None:  # as many rows in as many steps
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        return
    with pytest.raises(ValueError, match=message) as error:
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert "\n" not in str(error.value)
    assert_same(weights(other), before)


@pytest.mark.long
def test_a_checkpoint_that_tells_no_rows_wants_its_own_batch_size(tmp_path, tokenizer):
    arguments = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trainer(tmp_path, tokenizer, 2, 2, **arguments).train()
    (tmp_path / "checkpoint-2" / ROWS).unlink()
    with pytest.raises(ValueError, match="per_device_train_batch_size: 4; expected: 2"):
        trainer(tmp_path / "other", tokenizer, 4, 1, **arguments).train(str(tmp_path / "checkpoint-2"))
    same = trainer(tmp_path / "other", tokenizer, 2, 2, **arguments)
    same.train(str(tmp_path / "checkpoint-2"))
    assert same.state.global_step == 4
    (tmp_path / "checkpoint-2" / "trainer_state.json").unlink()
    with pytest.raises(ValueError, match=r"holds no trainer_state\.json"):
        same.train(str(tmp_path / "checkpoint-2"))


@pytest.mark.parametrize("extra", [{}, {"quantization_config": QuantizationConfig(calibration_examples=8)}])
def test_a_run_that_was_complete_takes_no_step_more(tmp_path, tokenizer, extra):
    arguments = {"max_steps": 3, "save_strategy": "steps", "save_steps": 3, **extra}
    whole = trainer(tmp_path, tokenizer, 4, 1, **arguments)
    whole.train()
    resumed = trainer(tmp_path / "resumed", tokenizer, 4, 1, **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 3
    assert_same(weights(resumed), weights(whole))


def test_a_stream_of_rows_is_trained_on_and_gone_on_with(tmp_path, tokenizer):
    arguments = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "sgd", "max_grad_norm": 0.0}
    results = []
    for folder, size, accumulation, checkpoint in (("whole", 2, 2, None), ("resumed", 4, 1, "whole/checkpoint-2")):
        student = without_dropout(create_student(tiny(), 2))
        one = make(
            tmp_path / folder, tokenizer, student, config=BOTH, data=dataset(11).to_iterable_dataset(),
            per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, **arguments,
        )  # fmt: skip
        one.train(resume_from_checkpoint=checkpoint and str(tmp_path / checkpoint))
        assert one.state.global_step == 4
        results.append(weights(one))
    assert_same(*results, rtol=1e-4, atol=1e-6)


def test_checkpoints_without_an_optimizer_are_refused(tmp_path, tokenizer):
    arguments = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_only_model": True}
    trainer(tmp_path, tokenizer, 4, 1, **arguments).train()
    with pytest.raises(ValueError, match="save_only_model"):
        trainer(tmp_path / "other", tokenizer, 4, 1, **arguments).train(str(tmp_path / "checkpoint-2"))


class Processes:
    """What the counting of rows asks of an accelerator, at the end of a loader's epoch."""

    distributed_type = DistributedType.MULTI_CPU

    def __init__(self, processes, index, rows, size):
        self.num_processes, self.process_index = processes, index
        self.gradient_state = GradientState()
        loader = type("Loader", (), {"end_of_dataloader": True, "remainder": rows % (size * processes)})()
        loader.total_batch_size = size * processes
        self.loader = loader
        self.gradient_state.dataloader_references = [None, loader]


@pytest.mark.parametrize(("rows", "own"), [(8, [4, 4]), (9, [1, 0]), (12, [4, 0]), (14, [4, 2]), (16, [4, 4])])
def test_rows_that_fill_a_batch_in_several_processes_do_not_count(rows, own):
    batch = {"input_ids": torch.arange(4)}
    for index in (0, 1):
        processes = Processes(2, index, rows, 4)
        found, together = own_rows(batch, processes)
        assert (found, together) == (own[index], sum(own))
        (weighted,) = weighted_batches(iter([batch]), 1, processes)
        assert weighted.get(ROW_WEIGHT, 1) == pytest.approx(2 * own[index] / sum(own))
        assert len(weighted["input_ids"]) == (own[index] or 4)


def test_rows_are_in_the_checkpoint(tmp_path, tokenizer):
    trainer(tmp_path, tokenizer, 2, 2, max_steps=2, save_strategy="steps", save_steps=2).train()
    found = json.loads((tmp_path / "checkpoint-2" / ROWS).read_text())
    assert found == {"rows_of_epoch": 16, "rows_of_step": 4, "batch_size": 2, "grouped": False, "seed": 3}
