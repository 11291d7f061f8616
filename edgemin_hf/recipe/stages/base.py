"""The seam of a recipe's stages: a stage is one file that says what it needs, leaves, checks, costs and does."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass
from transformers import PretrainedConfig

from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import ArtefactEstimate, Estimate
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.training_arguments import check_rest
from edgemin_hf.utils.atomic_files import atomic_folder


@dataclass(config=STRICT)
class Stage(ABC):
    """A stage of a recipe: its settings are its fields.

    Attributes:
        name: Its name in the recipe, by which `--set` and its record know it; "" is that of the stage. One that stands
            twice needs a name of its own.
        stage: Which stage it is.
        own_folder: Folder of its result where it has no name of its own; "" is the stage's name.
        needs: What must be there before it.
        leaves: What it leaves for those after it.
        not_after: What must not be there before it.
        every_process: Whether all processes run it together; else the first one does.
        resumes: Whether it goes on where it was killed.
        hub_tag: What it adds to the tags of the model on the Hub.
        minutes: What it takes, where nothing better is known.

    Example:
        >>> from typing import Literal
        >>> from pydantic.dataclasses import dataclass
        >>> from edgemin_hf.recipe import Outcome
        >>> from edgemin_hf.recipe.stages import Stage
        >>> @dataclass
        ... class Wait(Stage):
        ...     stage: Literal["wait"] = "wait"
        ...     seconds: float = 0.0
        ...     def run(self, context, folder, work):
        ...         return Outcome(notes=(f"waited {self.seconds:g} s",))
        >>> Wait(name="rest", seconds=2.0).folder, Wait().settings()
        ('rest', {'stage': 'wait', 'seconds': 0.0})
    """

    name: str = ""
    stage: str = ""
    own_folder: ClassVar[str] = ""
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK,)
    leaves: ClassVar[tuple[Product, ...]] = ()
    not_after: ClassVar[tuple[Product, ...]] = ()
    every_process: ClassVar[bool] = False
    resumes: ClassVar[bool] = True
    hub_tag: ClassVar[str | None] = None
    minutes: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        self.name = self.name or self.stage
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"name: {self.name}; allowed: letters, digits, _ and -")
        check_rest(Stage, self)

    @property
    def folder(self) -> str:
        """Name of the folder of its result, in that of the run."""
        return self.own_folder or self.stage if self.name == self.stage else self.name

    def settings(self) -> dict[str, object]:
        """Return its settings, defaults included, as plain values: all that its result depends on."""
        return {name: value for name, value in asdict(self).items() if name != "name"}

    def check(self, context: Context) -> None:  # noqa: B027 - most stages have nothing to check
        """Check the settings against files and models' shapes; load no weights.

        Raises:
            ValueError: If they do not fit; the message begins with the setting's name.
        """

    def check_run(self, context: Context) -> None:  # noqa: B027 - most stages need nothing more
        """Check what a run of the stage needs and a dry run does not, before any stage is run.

        Raises:
            ValueError: If it is not there; the message begins with the setting's name.
        """

    def notes(self, context: Context) -> Sequence[str]:
        """Return lines for the plan on what the stage will do."""
        return []

    def inputs(self, context: Context) -> dict[str, object]:
        """Return what its result depends on beside its settings and what earlier stages left, by name."""
        return {}

    def reshaped(self, student: PretrainedConfig) -> PretrainedConfig:
        """Return the configuration that it makes of the student's, as far as settings alone tell."""
        return student

    def estimate(self, context: Context) -> Estimate:
        """Return what it will cost here."""
        return Estimate(self.minutes)

    def foretold(self, context: Context) -> ArtefactEstimate | None:
        """Return what the artefact that it exports will take; None of a stage that exports none."""
        return None

    @abstractmethod
    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Run it.

        Args:
            context: The recipe at work.
            folder: Where its result is to stand.
            work: Where checkpoints are kept meanwhile.

        Returns:
            What is worth remembering.
        """

    def summary(self, context: Context) -> str | None:
        """Return what a run that ends with it tells at its end."""
        return None


@dataclass(config=STRICT)
class WritingStage(Stage):
    """A stage that the first process runs, and that fills its folder.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from typing import Literal
        >>> from pydantic.dataclasses import dataclass
        >>> from edgemin_hf.recipe import Outcome
        >>> from edgemin_hf.recipe.stages import WritingStage
        >>> @dataclass
        ... class Greet(WritingStage):
        ...     stage: Literal["greet"] = "greet"
        ...     def write(self, context, folder, work):
        ...         return Outcome(notes=(f"{(folder / 'hello.txt').write_text('hello')} characters",))
        >>> with TemporaryDirectory() as above:
        ...     outcome = Greet().run(None, Path(above, "greet"), Path(above, "work"))
        ...     outcome.notes, Path(above, "greet", "hello.txt").read_text()
        (('5 characters',), 'hello')
    """

    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Fill the folder; it appears complete. See `Stage.run`."""
        with atomic_folder(folder) as partial:
            return self.write(context, partial, work)

    @abstractmethod
    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write its result into an empty folder; as `run` in all else."""


def student_before(stage: Stage, context: Context) -> PretrainedConfig:
    """Return the student's configuration as the stages before one leave it, as far as their settings tell."""
    config = context.shapes.student
    for other in context.before(stage):
        config = other.reshaped(config)
    return config
