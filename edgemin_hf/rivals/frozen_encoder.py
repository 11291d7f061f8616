"""The teacher as it comes, frozen, with a linear layer fitted on what it is read by: fp32, and dynamic INT8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.batches import padded_batches
from edgemin_hf.data.drawing import drawn, within_tokens
from edgemin_hf.data.tokenization import encode
from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.modeling.head_fitting import fit_head, frozen_features
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.rivals.base import Given, Made
from edgemin_hf.rivals.graphs import made_of_graph


def frozen_encoder(given: Given, folder: Path) -> list[Made]:
    """Fit the last layer of a new head, and quantise the graph in one minute.

    Of a task that asks about each token the layer is fitted on `FITTED_TOKENS` at most, of rows drawn by the seed; its
    name then tells of how many.
    """
    torch.manual_seed(given.seed)
    task, labels = given.task, given.task.model_kwargs(given.label_ids)
    tokenizer = load_tokenizer(given.encoder)
    model = load_pruned(given.encoder, task.auto_class, ignore_mismatched_sizes=True, **labels).eval()
    tokenizer = task.fitted(tokenizer)
    tables = list(_rows(given, tokenizer))
    sampled = [within_tokens(drawn(rows, len(rows), given.seed)) if task.ragged else rows for rows in tables]
    train, validation = (frozen_features(model, _batches(rows, tokenizer)) for rows in sampled)
    fit_head(model, train, validation, given.loss or task.hard_loss)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    manifest = export_baseline(folder / "model", folder / "graphs", type(task))
    name = "fine-tuned encoder, new linear head" if given.knows_task else "frozen encoder, linear head"
    if len(sampled[0]) < len(tables[0]):
        name += f" on {len(sampled[0]):,} of {len(tables[0]):,} rows"
    return [
        made_of_graph(name, folder / "graphs" / entry.file, entry.precision, entry.bytes, given)
        for entry in manifest.entries
    ]


def _rows(given: Given, tokenizer: PreTrainedTokenizerBase) -> Iterator[Dataset]:
    """Yield the training and the validation rows, tokenised, with labels."""
    if given.tables is not None:
        for table in given.tables[:2]:
            yield given.task.tokenized(table, tokenizer, given.label_ids)
        return
    for texts, labels in ((given.train, given.labels), (given.validation, given.validation_labels)):
        yield Dataset.from_dict({**encode(tokenizer, texts, given.task.max_length), "labels": labels})


def _batches(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[Mapping[str, Tensor]]:
    return (batch for _, batch in padded_batches(rows, tokenizer))
