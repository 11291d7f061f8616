"""A teacher's outputs for the tokens of a fixed dataset: computed once, in one flat file that is mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from datasets import Dataset
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.batches import padded_batches
from edgemin_hf.data.padding import COUNTED
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.outputs import head_output
from edgemin_hf.utils.atomic_files import write_atomic


def cached_token_outputs(
    teacher: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    key: str,
    dtype: DTypeLike = np.float16,
) -> TokenOutputs:
    """Return what a teacher's head gives for the counted tokens of rows, from disk where it was computed before.

    Of a head that gives a vector a text there is one for each row.

    It is computed in full precision, without dropout, in batches of like length, and rounded when it is stored: whoever
    reads it later gets the same bits.

    Args:
        teacher: The teacher; set to evaluation mode.
        dataset: Tokenised rows, with `COUNTED` where the head answers for each token.
        tokenizer: The teacher's tokenizer, to pad with.
        path: The .npy file (counted tokens of all rows, width); a file beside it keeps the key.
        key: What the outputs depend on; a file with another key is computed anew.
        dtype: What they are stored as.

    Returns:
        The outputs, a row each.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf.distillation.token_outputs import cached_token_outputs
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> rows = {"input_ids": [[2, 1], [1, 2, 2]], "attention_mask": [[1, 1], [1, 1, 1]]}
        >>> rows |= {"counted": [[1, 0], [1, 1, 1]]}
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> teacher = BertForTokenClassification(BertConfig(vocab_size=3, num_labels=5, **shape))
        >>> with TemporaryDirectory() as folder:
        ...     found = cached_token_outputs(teacher, Dataset.from_dict(rows), tokenizer, Path(folder, "t.npy"), "v1")
        ...     [found[row].shape for row in range(len(found))], found[1].dtype
        ([(1, 5), (3, 5)], dtype('float16'))
    """
    told = path.with_suffix(".key")
    lengths = [1] * len(dataset)
    if COUNTED in dataset.column_names:
        lengths = [sum(counted) for counted in dataset[COUNTED]]
    if not (path.is_file() and told.is_file() and told.read_text(encoding="utf-8") == key):
        path.parent.mkdir(parents=True, exist_ok=True)
        told.unlink(missing_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        _compute(teacher, dataset, tokenizer, partial, lengths, dtype)
        partial.replace(path)
        write_atomic(told, key)
    return TokenOutputs([path], lengths)


@torch.inference_mode()
def _compute(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    lengths: Sequence[int],
    dtype: DTypeLike,
) -> None:
    """Write the outputs of a model into a flat file, as batches come."""
    model.eval()
    ends, flat = np.cumsum(lengths), None
    names = [name for name in dataset.column_names if name in (*tokenizer.model_input_names, COUNTED)]
    with tqdm(total=len(dataset), desc="Teacher's outputs", unit="row") as bar:
        for rows, batch in padded_batches(dataset.select_columns(names), tokenizer):
            batch = batch.to(model.device)
            found = head_output(model(**filter_forward_inputs(model, batch)))
            assert found is not None  # noqa: S101 - the caller's: a model with a head
            values = (found[batch[COUNTED]] if COUNTED in batch else found).float().cpu().numpy()
            if flat is None:
                flat = new_file(path, dtype, (int(ends[-1]), values.shape[-1]))
            of_row = np.split(values, np.cumsum([lengths[row] for row in rows])[:-1])
            for row, part in zip(rows, of_row, strict=True):
                flat[ends[row] - lengths[row] : ends[row]] = part
            bar.update(len(rows))
    assert flat is not None  # noqa: S101 - there are rows
    flat.flush()


def new_file(path: Path, dtype: DTypeLike, shape: tuple[int, int]) -> np.memmap[Any, Any]:
    """Make a flat file of a shape, mapped into memory."""
    made: np.memmap[Any, Any] = open_memmap(path, "w+", np.dtype(dtype), shape)  # type: ignore[no-untyped-call]
    return made


class TokenOutputs(Sequence[NDArray[np.floating[Any]]]):
    """Outputs for the counted tokens of rows, (counted, width) each, read from disk when they are asked for.

    Args:
        files: The flat files, one a teacher, whose mean it is.
        lengths: The counted tokens of each row.
        orders: For each file the columns in the order that is wanted; None takes them as they are.

    Raises:
        ValueError: When outputs are asked for of a file that holds another number of tokens.
    """

    def __init__(
        self, files: Sequence[Path], lengths: Sequence[int], orders: Sequence[list[int] | None] | None = None
    ) -> None:
        self.files, self.lengths = list(files), np.asarray(lengths)
        self.orders = list(orders or [None] * len(files))
        self._ends = np.cumsum(self.lengths)

    @cached_property
    def _flat(self) -> list[NDArray[np.floating[Any]]]:
        found = [np.load(file, mmap_mode="r") for file in self.files]
        for file, flat in zip(self.files, found, strict=True):
            if len(flat) != self.lengths.sum():
                raise ValueError(f"{file}: {len(flat):,} tokens; expected: {self.lengths.sum():,}, all that count")
        return found

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs: the files' names, not what they hold."""
        return {name: value for name, value in vars(self).items() if name != "_flat"}

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, row: int) -> NDArray[np.floating[Any]]: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[NDArray[np.floating[Any]]]: ...

    def __getitem__(self, row: int | slice) -> NDArray[np.floating[Any]] | Sequence[NDArray[np.floating[Any]]]:
        """Return the outputs of one row, or of several."""
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        place = slice(self._ends[row] - self.lengths[row], self._ends[row])
        found = [
            flat[place] if order is None else flat[place][:, order]
            for flat, order in zip(self._flat, self.orders, strict=True)
        ]
        return found[0] if len(found) == 1 else np.mean(found, axis=0, dtype=np.float32)
