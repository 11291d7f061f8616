"""What a training is given in rows, and what it leaves in weights: told before a device tells it in its own words."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from torch import nn
from transformers import DataCollatorWithPadding, PretrainedConfig, PreTrainedModel

from edgemin_hf.distillation.base import DistillationConfig
from edgemin_hf.modeling.families import first_position
from edgemin_hf.modeling.pruned_shape import pruned_shape
from edgemin_hf.modeling.weights import not_finite
from edgemin_hf.tasks.head import UNLABELLED
from edgemin_hf.tasks.known import task_of

_ROWS = 10_000
_LABELS = ("labels", "label", "label_ids")
"""Columns that a collator takes for labels."""


def check_rows(
    dataset: object, collator: object, models: Iterable[PreTrainedModel], labelled: bool, trained: bool = False
) -> None:
    """Check that models can take the rows of a dataset.

    Only a table that a `DataCollatorWithPadding` pads is looked at: others may be made of anything on the way.

    Args:
        dataset: The rows.
        collator: What makes batches of them.
        models: The models, the student first.
        labelled: Whether the student learns labels.
        trained: Whether it is trained on the rows: then some may have no label (`UNLABELLED`), not all.

    Raises:
        ValueError: If there are none, they are not tokenised, too long for a model, of tokens or labels that it has no
            row for; the message names what was found and what is allowed.
    """
    custom = isinstance(dataset, Dataset) and dataset.format["type"] == "custom"
    if not isinstance(dataset, Dataset) or custom or not isinstance(collator, DataCollatorWithPadding):
        return
    if not len(dataset):
        raise ValueError("dataset: no rows; expected: at least one")
    if "input_ids" not in dataset.column_names:
        columns = ", ".join(dataset.column_names)
        raise ValueError(f"dataset: columns {columns}; expected: input_ids and what else the tokenizer gives")
    student, *others = models
    longest, last = _longest_and_last(dataset)
    for model in (student, *others):
        most = _positions(model)
        if most is not None and longest > most:
            place = "the student's" if model is student else "the teacher's"
            raise ValueError(f"dataset: a row of {longest} tokens; allowed: up to {most}, {place} positions")
    if last >= student.config.vocab_size:
        raise ValueError(f"dataset: token {last}; allowed: below {student.config.vocab_size}, the student's vocabulary")
    column = next((name for name in _LABELS if name in dataset.column_names), None)
    if labelled and column is not None:
        _check_labels(dataset, column, student, some_lack=trained)


def learns_labels(config: DistillationConfig) -> bool:
    """Return whether a method's loss takes labels, such as the weight of the true ones may say."""
    own = getattr(config, "config", config)  # of `Weighted`
    return bool(getattr(own, "learns_labels", False) or getattr(own, "hard_weight", 0))


def _longest_and_last(dataset: Dataset) -> tuple[int, int]:
    """Return the number of tokens of the longest row, and the highest token id."""
    longest, last = 0, -1
    for part in dataset.select_columns("input_ids").with_format("arrow").iter(_ROWS):
        ids = part.column(0)
        longest = max(longest, pc.max(pc.list_value_length(ids)).as_py() or 0)
        highest = pc.max(pc.list_flatten(ids)).as_py()
        last = last if highest is None else max(last, highest)
    return longest, last


def _positions(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model has positions for; None where it tells positions otherwise than by a table."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            most: int = module.num_embeddings - first_position(model.config)
            return most
    return None


def _check_labels(dataset: Dataset, column: str, student: PreTrainedModel, *, some_lack: bool) -> None:
    classifies = type(student).__name__.endswith("ForSequenceClassification")
    if not classifies or task_of(student).problem_type != "single_label_classification":
        return
    values = pa.chunked_array(dataset.select_columns(column).with_format("arrow")[:].column(0))
    numbers = pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)
    wanted = f"0 to {student.config.num_labels - 1}, the numbers of the student's labels"
    if values.null_count or not numbers:
        found = "a missing one" if values.null_count else repr(values[0].as_py())
        raise ValueError(f"{column}: {found} in the dataset; allowed: {wanted}")
    found_labels = np.unique(values.to_numpy())
    lacking = [UNLABELLED] if some_lack and len(found_labels) > 1 else []
    odd = np.setdiff1d(found_labels, [*range(student.config.num_labels), *lacking])
    if len(odd):
        raise ValueError(f"{column}: {odd[0]} in the dataset; allowed: {wanted}")


def check_resumed(checkpoint: Path, saved: PretrainedConfig, student: PretrainedConfig, *, prunes: bool) -> None:
    """Check that a checkpoint to resume from is of this student, of which pruning may have removed parts.

    Raises:
        ValueError: If it has another width, more of what pruning removes, or less and nothing is pruned.
    """
    widths = [config.hidden_size for config in (saved, student)]
    kept, ours = pruned_shape(saved), pruned_shape(student)
    fewer = len(kept.heads) <= len(ours.heads)
    if widths[0] != widths[1] or not (fewer if prunes else kept == ours):
        found, expected = (
            f"{len(shape.heads)} layers, width {width}, {sum(map(len, shape.heads))} heads, {sum(shape.neurons)} units"
            for shape, width in zip((kept, ours), widths, strict=True)
        )
        raise ValueError(f"resume_from_checkpoint: {checkpoint}, of {found}; expected: the student's, {expected}")


def check_weights(model: PreTrainedModel) -> None:
    """Check that a training left numbers: a loss of NaN makes all weights NaN, and a Trainer logs it as 0.

    Raises:
        ValueError: If a weight is NaN or infinite.
    """
    if odd := not_finite(model):
        raise ValueError(
            f"model: training made weights NaN or infinite: {odd}; expected: a lower learning_rate, or a loss that is "
            "a number for each batch"
        )
