"""Texts as token ids: without padding, and in memory that does not grow with what is cut off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

from datasets import Dataset
from transformers import BatchEncoding, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.runtime.cutting import count_bytes, cut

_AT_ONCE = 1000
"""Texts that are tokenised together."""


def tokenize(
    table: Dataset, column: str, tokenizer: PreTrainedTokenizerBase, max_length: int, pair_column: str | None = None
) -> Dataset:
    """Tokenise a column of texts, or two as pairs; rows keep their own lengths, without padding.

    Args:
        table: The table.
        column: Name of the column of texts.
        tokenizer: The tokenizer.
        max_length: Tokens after which a row is cut; of a pair the longer text first.
        pair_column: Name of the column of second texts, where rows are pairs.

    Returns:
        A dataset with the tokenizer's columns, and "labels" where the table has it; all others are dropped.

    Example:
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data import tokenize
        >>> rules = Tokenizer(models.WordLevel({"[UNK]": 0, "my": 1, "card": 2}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]")
        >>> table = Dataset.from_dict({"text": ["my card", "my my card"], "labels": [0, 1]})
        >>> tokenize(table, "text", tokenizer, max_length=2)["input_ids"][:]
        [[1, 2], [1, 1]]
    """
    dropped = [name for name in table.column_names if name != "labels"]

    def encoded(rows: dict[str, list[str]]) -> BatchEncoding:
        texts = rows[column] if pair_column is None else list(zip(rows[column], rows[pair_column], strict=True))
        return encode(tokenizer, texts, max_length)

    return table.map(encoded, batched=True, remove_columns=dropped, desc="Tokenising")


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_length: int, **options: object
) -> BatchEncoding:
    """Tokenise texts or pairs and cut each after some tokens; of a pair the longer text first.

    The ids are those that the tokenizer gives by itself. It would also build all that it cuts off, of a pair each part
    of the one text with each of the other, so texts that are far too long are cut beforehand.

    Args:
        tokenizer: The tokenizer.
        texts: Texts, or pairs of them.
        max_length: Tokens after which a text, or a pair together, is cut.
        **options: What else the tokenizer is to be told, such as `padding`.

    Returns:
        What the tokenizer returns for a batch.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data.tokenization import encode
        >>> rules = Tokenizer(models.WordLevel({"[UNK]": 0, "my": 1, "card": 2}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]")
        >>> encode(tokenizer, [("my " * 100_000, "card " * 100_000)], max_length=4)["input_ids"]
        [[1, 1, 2, 2]]
    """
    ids, left = partial(_ids, tokenizer=tokenizer), tokenizer.truncation_side == "left"
    short = [cut(text, ids, max_length, left) for text in texts]
    encoding: BatchEncoding = tokenizer(short, truncation=True, max_length=max_length, **options)
    return encoding


def count_cut(texts: Iterable[Text], tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """Count the texts or pairs of which `encode` cuts something off.

    Args:
        texts: Texts, or pairs of them.
        tokenizer: The tokenizer.
        max_length: Tokens after which a text, or a pair together, is cut.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data.tokenization import count_cut
        >>> rules = Tokenizer(models.WordLevel({"[UNK]": 0, "my": 1, "card": 2}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]")
        >>> count_cut(["my card", "my my card", "my"], tokenizer, max_length=2)
        1
    """
    count = 0
    special = tokenizer.num_special_tokens_to_add(pair=True)
    long = (text for text in texts if count_bytes(text) + special > max_length)
    while some := list(islice(long, _AT_ONCE)):
        ids = tokenizer(some, truncation=False, verbose=False)["input_ids"]
        count += sum(len(row) > max_length for row in ids)
    return count


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids
