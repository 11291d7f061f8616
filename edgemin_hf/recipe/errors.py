"""What ends a recipe: errors of one line. Imports nothing heavy, since the command line knows them before PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager


class RecipeError(ValueError):
    """A recipe that can't be run: one line that names field, value and what is allowed."""


class StageError(RuntimeError):
    """A stage that failed for a reason that no check foresaw: one line; its traceback is in the run's folder."""


@contextmanager
def prefix(path: str) -> Iterator[None]:
    """Turn a ValueError into a RecipeError with the field's path before it."""
    try:
        yield
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{path}{error}") from None
