"""The teacher's logits for a fixed dataset: computed once, kept on disk, not once an epoch."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.batches import padded_batches
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.outputs import head_output


def cached_teacher_logits(
    teacher: PreTrainedModel, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, path: Path, key: str
) -> Tensor:
    """Return the teacher's logits for a dataset, from disk where they were computed before.

    Args:
        teacher: The teacher.
        dataset: Tokenised rows.
        tokenizer: The teacher's tokenizer, to pad with.
        path: The safetensors file that keeps them; it appears complete or not at all.
        key: What the logits depend on; a file with another key is computed anew.

    Returns:
        The logits (rows, labels), float32, in the dataset's order.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf import cached_teacher_logits
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> rows = Dataset.from_dict({"input_ids": [[2, 1], [1, 2, 2]], "attention_mask": [[1, 1], [1, 1, 1]]})
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> teacher = BertForSequenceClassification(BertConfig(vocab_size=3, num_labels=4, **shape))
        >>> with TemporaryDirectory() as folder:
        ...     cached_teacher_logits(teacher, rows, tokenizer, Path(folder, "logits.safetensors"), key="v1").shape
        torch.Size([2, 4])
    """
    if path.is_file():
        with safe_open(path, "pt") as stored:
            if (stored.metadata() or {}).get("key") == key:
                return stored.get_tensor("logits")
    logits = compute_logits(teacher, dataset, tokenizer)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file({"logits": logits}, partial, {"key": key})
    partial.replace(path)
    return logits


@torch.inference_mode()
def compute_logits(model: PreTrainedModel, dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Compute a model's logits in full precision, without dropout, in batches of like length.

    Args:
        model: The model; set to evaluation mode.
        dataset: Tokenised rows.
        tokenizer: Its tokenizer, to pad with.

    Returns:
        The logits (rows, labels), float32, in the dataset's order.
    """
    model.eval()
    names = [name for name in dataset.column_names if name in tokenizer.model_input_names]
    logits = None
    with tqdm(total=len(dataset), desc="Teacher's logits", unit="row") as bar:
        for rows, batch in padded_batches(dataset.select_columns(names), tokenizer):
            found = head_output(model(**filter_forward_inputs(model, batch.to(model.device))))
            assert found is not None  # noqa: S101 - it has a head
            logits = torch.empty(len(dataset), found.shape[1]) if logits is None else logits
            logits[rows] = found.float().cpu()
            bar.update(len(rows))
    assert logits is not None  # noqa: S101 - tables have rows
    return logits
