"""The checkpoints of a recipe, and the shapes of its models: their configurations, before any weights are loaded."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.hub.checkpoints import Checkpoint, resolve_checkpoint
from edgemin_hf.hub.configs import load_config_and_tokenizer
from edgemin_hf.modeling.families import family_of
from edgemin_hf.modeling.loading import set_pooling
from edgemin_hf.modeling.student import check_vocabulary
from edgemin_hf.modeling.student_config import student_config
from edgemin_hf.recipe.schema import Recipe, Student, model_name, student_shape


class Shapes:
    """Where the checkpoints are, and the configurations of teacher, assistant and student.

    What can't be raises ValueError, with its field.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
    """

    def __init__(self, recipe: Recipe, root: Path) -> None:
        self._recipe, self._root = recipe, root
        self._commits: dict[tuple[str, str | None], str] = {}

    def checkpoint(self, model: str, revision: str | None = None, *, weights: bool = True) -> Checkpoint:
        """Find a model as `resolve_checkpoint` does: of the Hub the same commit each time, also if a branch moves."""
        commit = self._commits.get((model, revision), revision)
        found = resolve_checkpoint(model_name(model, self._root), revision=commit, weights=weights)
        if found.commit is not None:
            self._commits[model, revision] = found.commit
        return found

    @property
    def teacher(self) -> PretrainedConfig:
        """The teacher's, as the recipe names it."""
        return self._teacher[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer, which is the student's too."""
        return self._teacher[1]

    @cached_property
    def _teacher(self) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
        name, given = model_name(self._recipe.teacher.model, self._root), self._recipe.teacher.model
        try:
            if Path(name).is_dir() and Path(name).absolute().is_relative_to(Path(self._recipe.output_dir).absolute()):
                raise ValueError(f"{given}, which lies in output_dir; allowed: a folder outside, or a Hub id")
            found = self.checkpoint(given, self._recipe.teacher.revision, weights=False)
            config, tokenizer = load_config_and_tokenizer(given, found)
            if self._recipe.task is not None:
                set_pooling(config, found.path, self._recipe.task.auto_class)
            return config, tokenizer
        except ValueError as error:
            raise ValueError(f"teacher.model: {error}") from None

    @cached_property
    def assistant(self) -> PretrainedConfig | None:
        """The assistant's; None where the recipe has none."""
        shape = self._recipe.assistant
        return None if shape is None else self._config(shape, self.teacher, "assistant")

    @cached_property
    def student(self) -> PretrainedConfig:
        """The student's, as it is made."""
        return self._config(self._recipe.student, self.assistant or self.teacher, "student")

    def _config(self, shape: Student, teacher: PretrainedConfig, name: str) -> PretrainedConfig:
        try:
            if shape.checkpoint is None:
                return student_config(teacher, **student_shape(shape))
            found = self.checkpoint(shape.checkpoint, shape.revision, weights=False)
            config = AutoConfig.from_pretrained(found.path)
            family_of(config)
            if config.vocab_size != teacher.vocab_size:
                raise ValueError(
                    f"checkpoint: {shape.checkpoint}, whose vocabulary has {config.vocab_size} tokens; "
                    f"allowed: one with the teacher's, of {teacher.vocab_size}"
                )
            try:
                check_vocabulary(found.path, config, self.tokenizer)
            except ValueError as error:
                raise ValueError(f"checkpoint: {error}") from None
            if self._recipe.task is not None:
                pooling = None if shape.head == "auto" else shape.head
                set_pooling(config, found.path, self._recipe.task.auto_class, pooling)
            return config
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
