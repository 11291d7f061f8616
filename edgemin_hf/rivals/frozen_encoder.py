"""The teacher as it comes, frozen, with a linear layer fitted on what it is read by: fp32, and dynamic INT8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from edgemin_hf.benchmark.whole_call import WholeCall
from edgemin_hf.data.tables import Text
from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.modeling.head_fitting import fit_head, frozen_features
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.rivals.base import Given, Made
from edgemin_hf.tasks.metrics import Answers

_BATCH = 64


def frozen_encoder(given: Given, folder: Path) -> list[Made]:
    """Fit the last layer of a new head, and quantise the graph in one minute."""
    torch.manual_seed(given.seed)
    task, labels = given.task, given.task.model_kwargs(given.label_ids)
    tokenizer = load_tokenizer(given.encoder)
    model = load_pruned(given.encoder, task.auto_class, ignore_mismatched_sizes=True, **labels).eval()
    kept = {"train": (given.train, given.labels), "validation": (given.validation, given.validation_labels)}
    seen = {
        part: frozen_features(model, _batches(texts, truths, tokenizer, task.max_length))
        for part, (texts, truths) in kept.items()
    }
    fit_head(model, seen["train"], seen["validation"], task.hard_loss)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    manifest = export_baseline(folder / "model", folder / "graphs", type(task))
    made = []
    for entry in manifest.entries:
        graph, words = folder / "graphs" / entry.file, folder / "model" / "tokenizer.json"
        call = WholeCall(graph, words, task.max_length)
        scores = np.concatenate([call(text) for text in given.test])
        name = f"frozen encoder, linear head, {entry.precision.upper().replace('FP32', 'fp32')}"
        made.append(Made(name, scores, entry.bytes + words.stat().st_size, call))
    return made


def _batches(
    texts: Sequence[Text], labels: Answers, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[Mapping[str, Tensor]]:
    """Yield batches of texts of like lengths, with their labels."""
    order = sorted(range(len(texts)), key=lambda row: len("".join(texts[row])))
    truths = torch.from_numpy(np.asarray(labels))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        some = [texts[row] for row in rows]
        sides = [some] if isinstance(some[0], str) else [list(side) for side in zip(*some, strict=True)]
        inputs = tokenizer(*sides, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        yield {**inputs, "labels": truths[rows]}
