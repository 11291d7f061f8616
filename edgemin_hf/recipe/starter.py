"""A first recipe from a few answers: commented YAML, for a person to go on with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from edgemin_hf.recipe.errors import RecipeError
from edgemin_hf.utils.atomic_files import check_writable_folder, write_atomic


class _Kind(NamedTuple):
    """What a first recipe of a task says.

    Attributes:
        gives: What a text gets.
        columns: The task's setting that each flag of a column stands for.
        finetunes: Whether the teacher learns the task first; else it is what it is.
        learns: What the student learns.
        length: The default of `max_length`, and what it is.
    """

    gives: str
    columns: Mapping[str, str]
    finetunes: bool = True
    learns: str = "what the teacher answers, and what the table says"
    length: str = "128   # tokens after which an example is cut; the fewer, the faster"


_WINDOWS = "tokens of a window; a longer text is read in several"
_TEXT, _PAIR, _LABEL = "text_column", "text_pair_column", "label_column"
_COLUMNS = {_TEXT: _TEXT, _PAIR: _PAIR, _LABEL: _LABEL}
_KINDS = {
    "text_classification": _Kind("one of several labels", _COLUMNS),
    "regression": _Kind("a score", _COLUMNS),
    "multi_label": _Kind("any number of labels, a list; where each has a column, label_columns names them", _COLUMNS),
    "token_classification": _Kind(
        "a tag for each word", {_TEXT: "tokens_column", _LABEL: "tags_column"}, length=f"128   # {_WINDOWS}"
    ),
    "question_answering": _Kind("a span that answers a question", {}, length=f"384   # {_WINDOWS}"),
    "reranking": _Kind("a score for a query with a passage", _COLUMNS),
    "sentence_embedding": _Kind("a vector", _COLUMNS, finetunes=False, learns="the teacher's vectors"),
    "masked_lm": _Kind(
        "a token at each masked place",
        {_TEXT: _TEXT},
        finetunes=False,
        learns="what the teacher says of masked tokens, and the true ones",
    ),
}

_HEAD = """\
# A first recipe, by `edgemin recipe new`. `edgemin run {file} --dry-run` checks it and prints the plan;
# `edgemin recipe --reference` explains every setting. Paths are relative to this file, output_dir to where you call
# from.
{run}seed: 0

teacher:
{teacher}
task:   # what a text gets: {gives}
{task}  # max_length: {length}

# Without a number of layers the student is as deep as the teacher; half of them are a good start.
{student}

stages:"""

_FINETUNE = """
  # The teacher learns the task. Leave this out where it knows your labels already.
  - stage: finetune
    num_train_epochs: 3
    learning_rate: 5e-5
    best_model: true   # of the epochs the best, by the validation rows
"""

_STAGES = """
  # The student learns {learns}.
  - stage: task_distill
    num_train_epochs: 4
    learning_rate: 2e-4

  # Half of the heads and feed-forward neurons go, and what is left learns again. Take less where too much is lost.
  - stage: prune
    head_sparsity: 0.5
    ffn_sparsity: 0.5
    num_train_epochs: 4
    learning_rate: 2e-4

  # INT8 weights and embeddings, trained as the graph will compute.
  - stage: quantize
    num_train_epochs: 1
    learning_rate: 5e-5

  - stage: export      # ONNX, fp32 and INT8, compared with PyTorch
  - stage: evaluate    # the metric on the test file
  - stage: benchmark   # latency and size
  - stage: report      # the artefact: graphs, model card, report
    # title: My edge model
    # Left out, these are what the teacher's card says, if it says it; your data may ask for another licence.
    # language: en
    # license: apache-2.0
"""

_NO_STUDENT = "# student:\n#   num_hidden_layers: 3"


@dataclass(frozen=True)
class Starter:
    """What a first recipe is made from. Files and folders are named from the working folder.

    Attributes:
        task: Type of the task, of `TASKS`.
        teacher: Hub id or folder.
        train_file: Table or texts to train on.
        test_file: Table or texts to test on.
        validation_file: Table for every choice; None holds out a share of the training table.
        text_column: Column of the texts, words or queries; None is the task's default, likewise of the next two.
        text_pair_column: Column of the second texts.
        label_column: Column of the labels, scores or tags.
        layers: Layers of the student; None leaves it as deep as the teacher.
    """

    task: str
    teacher: str
    train_file: str
    test_file: str
    validation_file: str | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    layers: int | None = None

    def __post_init__(self) -> None:
        known = _KINDS[self.task].columns
        for flag in _COLUMNS:
            if getattr(self, flag) is not None and flag not in known:
                allowed = ", ".join(map(_flag, known)) or "none, its columns have set names"
                raise RecipeError(f"{_flag(flag)}: {getattr(self, flag)} for {self.task}; allowed: {allowed}")
        if self.task == "sentence_embedding" and self.validation_file is None:
            raise RecipeError("--validation-file: missing; expected: a table of pairs with scores, which choose")
        if self.layers is not None and self.layers < 1:
            raise RecipeError(f"--layers: {self.layers}; allowed: 1 or more")
        for part, file in self._files().items():
            if not Path(file).is_file():
                raise RecipeError(f"{_flag(part)}: {file}, which is no file; allowed: an existing one")

    def text(self, path: Path) -> str:
        """Return the recipe as it stands in a file at `path`, which the paths in it are relative to."""
        kind = _KINDS[self.task]
        files = {part: _seen_from(path, file) for part, file in self._files().items()}
        columns = {setting: getattr(self, flag) for flag, setting in kind.columns.items()}
        named = {setting: column for setting, column in columns.items() if column is not None}
        model = _seen_from(path, self.teacher) if Path(self.teacher).is_dir() else self.teacher
        head = _HEAD.format(
            file=path.name,
            run=_yaml({"name": path.stem, "output_dir": f"runs/{path.stem}"}),
            teacher=_yaml({"model": model}, indent=2),
            gives=kind.gives,
            length=kind.length,
            task=_yaml({"type": self.task, **files, **named}, indent=2),
            student=f"student:\n  num_hidden_layers: {self.layers}" if self.layers else _NO_STUDENT,
        )
        stages = _STAGES.format(learns=kind.learns)
        return f"{head}{_FINETUNE if kind.finetunes else ''}{stages}"

    def _files(self) -> dict[str, str]:
        parts = ("train_file", "validation_file", "test_file")
        return {part: getattr(self, part) for part in parts if getattr(self, part) is not None}


def write_starter(starter: Starter, path: Path) -> None:
    """Write a first recipe; a file that is there already stays as it is.

    Args:
        starter: What it is made from.
        path: Where it is to stand.

    Raises:
        RecipeError: If something stands there, or nothing can be written there.
    """
    if os.path.lexists(path):
        raise RecipeError(f"--output: {path}, which is there already; allowed: a new file")
    try:
        check_writable_folder(path.parent)
    except ValueError as error:
        raise RecipeError(f"--output: {error}") from None
    write_atomic(path, starter.text(path))


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _seen_from(recipe: Path, file: str) -> str:
    """Return a path as the recipe names it: an absolute one as it is."""
    return file if Path(file).is_absolute() else Path(os.path.relpath(file, recipe.parent)).as_posix()


def _yaml(settings: Mapping[str, object], indent: int = 0) -> str:
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=1000)
    return "".join(f"{' ' * indent}{line}\n" for line in text.splitlines())
