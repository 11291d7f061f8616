"""The checkpoints of a recipe, and the shapes of its models: their configurations, before any weights are loaded."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.hub.checkpoints import Checkpoint, resolve_checkpoint
from edgemin_hf.hub.configs import load_config_and_tokenizer
from edgemin_hf.modeling.embedder import SENTENCE, set_width
from edgemin_hf.modeling.embedder_files import keep_sentence_files
from edgemin_hf.modeling.families import family_of
from edgemin_hf.modeling.loading import set_pooling
from edgemin_hf.modeling.student_config import student_config
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.recipe.schema import Recipe, RecipeError, Student, model_name, student_shape


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
        """The teacher's, as the recipe names it; of a recipe whose teacher is a model."""
        return self._teacher[0]

    @property
    def teacher_tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer."""
        return self._teacher[1]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's tokenizer: the teacher's, or its checkpoint's own where that has other tokens."""
        return self._student[1]

    @property
    def own_tokens(self) -> bool:
        """Whether the student has other tokens than the teacher."""
        return self._recipe.teacher.model is None or self.tokenizer is not self.teacher_tokenizer

    @cached_property
    def _teacher(self) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
        teacher = self._recipe.teacher
        assert teacher.model is not None  # noqa: S101 - the order of the stages is checked
        return self._read("teacher.model", teacher.model, teacher.revision)

    @cached_property
    def ensemble(self) -> list[PretrainedConfig]:
        """Those of the further teachers."""
        return [self._read("teacher.ensemble", model)[0] for model in self._recipe.teacher.ensemble]

    def _read(
        self, field: str, given: str, revision: str | None = None
    ) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
        """Return the configuration and the tokenizer of a teacher that a field names."""
        name = model_name(given, self._root)
        try:
            if Path(name).is_dir() and Path(name).absolute().is_relative_to(Path(self._recipe.output_dir).absolute()):
                raise ValueError(f"{given}, which lies in output_dir; allowed: a folder outside, or a Hub id")
            found = self.checkpoint(given, revision, weights=False)
            config, tokenizer = load_config_and_tokenizer(given, found)
            if self._recipe.task is not None:
                set_pooling(config, found.path, self._recipe.task.auto_class)
            return config, tokenizer
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from None

    @cached_property
    def assistant(self) -> PretrainedConfig | None:
        """The assistant's; None where the recipe has none."""
        shape = self._recipe.assistant
        return None if shape is None else self._start(shape, None, "assistant")[0]

    @property
    def student(self) -> PretrainedConfig:
        """The student's, as it is made."""
        return self._student[0]

    @cached_property
    def _student(self) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
        return self._start(self._recipe.student, self.assistant, "student")

    def check_tokens(self, stage: str) -> None:
        """Check that assistant, student and further teachers have the teacher's tokens, by their numbers.

        Args:
            stage: What compares the models token by token, in a message.

        Raises:
            RecipeError: If one has not.
        """
        for model in self._recipe.teacher.ensemble:
            if self._read("teacher.ensemble", model)[1].get_vocab() != self.teacher_tokenizer.get_vocab():
                raise RecipeError(
                    f"teacher.ensemble: {model}, whose tokens are not those of teacher.model; allowed beside {stage}, "
                    "which compares them token by token: a model with the same tokens"
                )
        for name, shape in (("assistant", self._recipe.assistant), ("student", self._recipe.student)):
            if shape is None or shape.checkpoint is None:
                continue
            config, tokenizer = self._start(shape, None, name)
            if tokenizer is not self.teacher_tokenizer:
                raise RecipeError(
                    f"{name}.checkpoint: {shape.checkpoint}, whose vocabulary of {config.vocab_size} is not the "
                    f"teacher's; allowed beside {stage}, which compares the two token by token: a model with the "
                    f"teacher's {self.teacher.vocab_size} tokens and their ids"
                )

    def _start(
        self, shape: Student, assistant: PretrainedConfig | None, name: str
    ) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
        """Return the configuration of a model as it is made, and its tokenizer: the teacher's, if it has its tokens."""
        try:
            if shape.checkpoint is None:
                return student_config(
                    assistant or self.teacher, **student_shape(shape, self._recipe.task)
                ), self.teacher_tokenizer
            found = self.checkpoint(shape.checkpoint, shape.revision, weights=False)
            config = AutoConfig.from_pretrained(found.path)
            family_of(config)
            try:
                tokenizer = load_tokenizer(found.path, config)
            except ValueError as error:
                raise ValueError(f"checkpoint: {error}") from None
            if self._recipe.teacher.model is not None and config.vocab_size == self.teacher.vocab_size:
                same = tokenizer.get_vocab() == self.teacher_tokenizer.get_vocab()
                tokenizer = self.teacher_tokenizer if same else tokenizer
            if self._recipe.task is not None:
                pooling = None if shape.head == "auto" else shape.head
                set_pooling(config, found.path, self._recipe.task.auto_class, pooling)
                if self._recipe.teacher.model is not None and hasattr(self.teacher, SENTENCE):
                    set_width(config, self.teacher, self._recipe.task.embedding_width)
                    keep_sentence_files(config, self.teacher)
            return config, tokenizer
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
