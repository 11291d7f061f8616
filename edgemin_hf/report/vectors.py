"""What a card tells of the vectors that a model gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from edgemin_hf.report.page import with_interval
from edgemin_hf.report.tables import Table
from edgemin_hf.tasks.given_out import GivenOut
from edgemin_hf.tasks.metrics import metric_named


class VectorsOfCard(NamedTuple):
    """Vectors, for a card.

    Attributes:
        given_out: What they are worth at each width and precision.
        principal: Whether they are in a space of the student's own: the teacher's principal directions.
        prompt: What stands before every text.
    """

    given_out: Sequence[GivenOut]
    principal: bool
    prompt: str

    def words(self) -> dict[str, str | None]:
        """Return what a template is told beside their table."""
        space = "they are not in the space of its teacher's" if self.principal else "and of its teacher"
        return {"prompt": json.dumps(self.prompt, ensure_ascii=False) if self.prompt else None, "space": space}


def vectors_table(rows: Sequence[GivenOut]) -> Table:
    """Format what vectors are worth at each width and precision."""
    heading = metric_named(rows[0].metric).heading
    cells = [[f"{row.dimensions}", row.precision, f"{row.bytes:,}", with_interval(row.value, row.ci95)] for row in rows]
    return Table(["dimensions", "precision", "bytes", heading], cells)
