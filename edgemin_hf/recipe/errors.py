"""What ends a recipe: errors of one line. Imports nothing heavy, since the command line knows them before PyTorch."""


class RecipeError(ValueError):
    """A recipe that can't be run: one line that names field, value and what is allowed."""


class StageError(RuntimeError):
    """A stage that failed for a reason that no check foresaw: one line; its traceback is in the run's folder."""
