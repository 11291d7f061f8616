"""Texts as token ids: without padding, and in memory that does not grow with what is cut off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from datasets import Dataset
from transformers import BatchEncoding, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text

_AT_ONCE = 1000
"""Texts that are tokenised together."""
_SPARE = 16
"""Tokens that are left after those that are kept, since the last word of a text that was cut may have others."""


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
    cut = [text if _bytes(text) <= 4 * max_length else _cut(text, tokenizer, max_length) for text in texts]
    encoding: BatchEncoding = tokenizer(cut, truncation=True, max_length=max_length, **options)
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
    long = (text for text in texts if _bytes(text) + special > max_length)
    while some := list(islice(long, _AT_ONCE)):
        ids = tokenizer(some, truncation=False, verbose=False)["input_ids"]
        count += sum(len(row) > max_length for row in ids)
    return count


def _bytes(text: Text) -> int:
    """Count what a tokenizer makes no more tokens of."""
    return sum(len(part.encode(errors="replace")) for part in ([text] if isinstance(text, str) else text))


def _cut(text: Text, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Text:
    """Cut a text or a pair so that the tokenizer's own cut gives the same ids."""
    if isinstance(text, str):
        return _beginning(text, _ids(text, tokenizer), max_length, tokenizer)[0]
    first, second = (_ids(part, tokenizer) for part in text)
    # Which of the two has the odd token depends on which is the longer one: that one stays so.
    if len(first) > len(second):
        end, tokens = _beginning(text[1], second, max_length, tokenizer)
        return _beginning(text[0], first, max(max_length, tokens + 1), tokenizer)[0], end
    start, tokens = _beginning(text[0], first, max_length, tokenizer)
    return start, _beginning(text[1], second, max(max_length, tokens), tokenizer)[0]


def _beginning(text: str, ids: list[int], keep: int, tokenizer: PreTrainedTokenizerBase) -> tuple[str, int]:
    """Return a part of a text that begins with its own first tokens (ends with its last, where the left is cut).

    Args:
        text: The text.
        ids: Its ids.
        keep: How many of them the part must have.
        tokenizer: The tokenizer.

    Returns:
        The part, or all of the text, and the number of its tokens.
    """
    left = tokenizer.truncation_side == "left"
    size = keep + _SPARE
    while size < len(ids):
        characters = -(-len(text) * size // len(ids))
        part = text[-characters:] if left else text[:characters]
        found = _ids(part, tokenizer)
        if len(found) >= keep and (found[-keep:] == ids[-keep:] if left else found[:keep] == ids[:keep]):
            return part, len(found)
        size *= 2
    return text, len(ids)


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids
