"""The folder of a run: what its stages leave for each other, and what they wrote down. It knows no stage by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgemin_hf.recipe.schema import Product, Recipe, StageSettings
from edgemin_hf.report.records import StageRecord


class RunFolder:
    """The folder of a recipe's run.

    Args:
        recipe: The recipe.
        output: The folder.
    """

    def __init__(self, recipe: Recipe, output: Path) -> None:
        self.recipe = recipe
        self.output = output

    def before(self, stage: StageSettings) -> Sequence[StageSettings]:
        """Return the stages before one; none before a stage that is not the recipe's own, as a search makes."""
        names = [other.name for other in self.recipe.stages]
        return self.recipe.stages[: names.index(stage.name)] if stage.name in names else []

    def maker(self, product: Product, before: StageSettings | None = None) -> StageSettings | None:
        """Return the last stage that leaves a product: of all, or of those before a stage."""
        stages = self.recipe.stages if before is None else self.before(before)
        return next((stage for stage in reversed(stages) if product in stage.leaves), None)

    def folder(self, stage: StageSettings) -> Path:
        """Return the folder of a stage's result."""
        return self.output / stage.folder

    def folder_with(self, product: Product) -> Path:
        """Return the folder of the stage that leaves a product."""
        stage = self.maker(product)
        assert stage is not None  # noqa: S101 - the order of the stages is checked
        return self.folder(stage)

    def record_file(self, stage: StageSettings) -> Path:
        """Return the file in which a stage writes down what it is made of, and when it has finished, what it did."""
        return self.output / "stages" / f"{stage.name}.json"

    def record(self, stage: StageSettings) -> StageRecord | None:
        """Read what a stage wrote down; None where it never began."""
        file = self.record_file(stage)
        return StageRecord.from_dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def finished_record(self, stage: StageSettings) -> StageRecord | None:
        """Read what a stage wrote down when it had finished; None where it has not."""
        record = self.record(stage)
        return record if record is not None and record.finished else None

    def finished_records(self) -> list[StageRecord]:
        """Read what the finished stages wrote down, in their order."""
        return [record for record in map(self.finished_record, self.recipe.stages) if record is not None]
