"""What the teachers say of the rows that a student learns the task from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.batches import token_hash
from edgemin_hf.data.padding import COUNTED
from edgemin_hf.distillation.principal import cached_principal_outputs
from edgemin_hf.distillation.teacher_logits import cached_teacher_logits
from edgemin_hf.distillation.token_outputs import TokenOutputs, cached_token_outputs
from edgemin_hf.hub.checkpoints import checkpoint_files
from edgemin_hf.modeling.embedder import SentenceHead
from edgemin_hf.recipe.run_models import RunModels, free_tokenizer
from edgemin_hf.tasks.labels import labels_of, numbers_in
from edgemin_hf.utils.content import sha256_of_files


def teacher_logits(run: RunModels, table: Dataset, rows: Dataset, part: str) -> Tensor:
    """Return the mean of the teachers' logits for a table, each one's computed once for all stages; or the predictions.

    Args:
        run: The models of the run.
        table: Rows of the task, as they are.
        rows: The same, as the student reads them.
        part: Which rows they are, for the names of the files that keep the logits.

    Returns:
        The logits (rows, labels), float32, in the table's order.
    """
    if run.predictions is not None:
        return run.predictions.logits(table)
    if run.shapes.own_tokens:
        rows = run.task.tokenized(table, run.teacher_tokenizer, run.label_ids, with_labels=False)
    said = [_said_by(run, run.teacher_folder, run.teacher_tokenizer, rows, f"{part}_logits")]
    for number, model in enumerate(run.recipe.teacher.ensemble, start=2):
        folder = run.shapes.checkpoint(model).path
        tokenizer = free_tokenizer(folder)
        rows = run.task.tokenized(table, tokenizer, run.label_ids, with_labels=False)
        said.append(_said_by(run, folder, tokenizer, rows, f"{part}_logits_{number}"))
    return torch.stack(said).double().mean(dim=0).float()


def teacher_vectors(run: RunModels, rows: Dataset, learned: int) -> TokenOutputs:
    """Return what a student learns of the teacher's vectors, computed once for all stages: they, or a narrower space.

    Args:
        run: The models of the run.
        rows: Rows as the teacher reads them: those that are learned from, then those of validation.
        learned: How many they are.
    """
    cache, width, key = run.output / "cache", run.shapes.student.hidden_size, _key(rows, run.teacher_folder)
    teacher = run.load(run.teacher_folder).to(PartialState().device)
    vectors = cached_token_outputs(teacher, rows, run.teacher_tokenizer, cache / "vectors.npy", key)
    if not run.task.is_principal(teacher.config, width):
        return vectors
    normalized = SentenceHead.of(teacher.config).normalized
    return cached_principal_outputs(vectors, learned, width, cache / "principal.npy", key, normalized=normalized)


def token_outputs(run: RunModels, rows: Dataset) -> TokenOutputs:
    """Return the mean of what the teachers' heads give for the counted tokens of rows, computed once for all stages.

    Args:
        run: The models of the run, all of the same tokens.
        rows: Rows of a ragged task.
    """
    folders = [run.teacher_folder, *(run.shapes.checkpoint(model).path for model in run.recipe.teacher.ensemble)]
    files, orders, lengths = list[Path](), list[list[int] | None](), list[int]()
    for number, folder in enumerate(folders, start=1):
        teacher = run.load(folder).to(PartialState().device)
        file = run.output / "cache" / (f"token_logits_{number}.npy" if number > 1 else "token_logits.npy")
        lengths = list(cached_token_outputs(teacher, rows, run.teacher_tokenizer, file, _key(rows, folder)).lengths)
        files.append(file)
        named = run.task.compares_label_names
        orders.append(numbers_in(labels_of(teacher.config), run.label_ids) if named else None)
    return TokenOutputs(files, lengths, orders)


def _said_by(run: RunModels, folder: str, tokenizer: PreTrainedTokenizerBase, rows: Dataset, name: str) -> Tensor:
    """Return one teacher's logits, in the order of the run's labels."""
    teacher = run.load(folder).to(PartialState().device)
    file = run.output / "cache" / f"{name}.safetensors"
    logits = cached_teacher_logits(teacher, rows, tokenizer, file, _key(rows, folder))
    if not run.task.compares_label_names:
        return logits
    return logits[:, numbers_in(labels_of(teacher.config), run.label_ids)]


def _key(rows: Dataset, folder: str) -> str:
    """Hash what logits are computed from: token ids, which of them count, the teacher's weights and configuration."""
    parts = [token_hash(rows), sha256_of_files(checkpoint_files(Path(folder)))]
    if COUNTED in rows.column_names:
        parts.append(token_hash(rows, COUNTED))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
