"""Tokens of `TrainingArguments`, which `Trainer` writes into `training_args.bin` and uploads with it."""

from __future__ import annotations

from typing import Self

from transformers import TrainingArguments

_NAMES = ("hub_token", "push_to_hub_token")
"""The second is of transformers 4 alone, which copies it to the first."""


class UnwrittenToken(str):
    """A token that is used like any text, and pickled as None.

    Example:
        >>> import pickle
        >>> from edgemin_hf.training.tokens import UnwrittenToken
        >>> token = UnwrittenToken("hf_secret")
        >>> f"Bearer {token}", pickle.loads(pickle.dumps({"hub_token": token}))
        ('Bearer hf_secret', {'hub_token': None})
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> tuple[type, tuple[()]]:
        """Return what makes None."""
        return type(None), ()

    def __copy__(self) -> Self:
        """Return the token: a copy in this process still needs it."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the token, as `__copy__`."""
        return self


def keep_tokens_unwritten(args: TrainingArguments) -> None:
    """Have no token of a Trainer's arguments written with them."""
    for name in _NAMES:
        if (token := getattr(args, name, None)) is not None:
            setattr(args, name, UnwrittenToken(token))
