"""The stage `push`: the artefact on the Hub, if it passes its gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from edgemin_hf.hub.access import check_access
from edgemin_hf.hub.files import published_files
from edgemin_hf.hub.identifiers import is_hub_id
from edgemin_hf.hub.push import check_names, push_artefact
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.stages.base import WritingStage

RECORD = "push.json"
"""What the stage leaves: where the artefact went."""


@dataclass(config=STRICT)
class Push(WritingStage):
    """Push the artefact to the Hub, if it passes the gate of `report`.

    Attributes:
        repo_id: The repository, such as "me/banking-edge"; it is made where it does not exist.
        private: Whether only its owners may see it.
        revision: The branch; None is the main branch.
        tags: Tags to give the commit.

    Example:
        >>> from edgemin_hf.recipe.stages import Push
        >>> Push(repo_id="me/banking-edge", private=True).needs
        (<Product.ARTEFACT: 'an artefact'>,)
    """

    stage: Literal["push"] = "push"
    repo_id: str = field(kw_only=True)
    private: bool = False
    revision: str | None = None
    tags: list[str] = field(default_factory=list)
    needs: ClassVar[tuple[Product, ...]] = (Product.ARTEFACT,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_hub_id(self.repo_id):
            raise ValueError(f"repo_id: {self.repo_id}; allowed: a repository's id, such as me/banking-edge")
        check_names(self.revision, self.tags)

    def check_run(self, context: Context) -> None:
        """Check that the Hub would let it push, before anything is trained."""
        check_access(self.repo_id)

    def notes(self, context: Context) -> Sequence[str]:
        """Return which files will be pushed, and where: with their sizes, if they are there."""
        place = f"{self.name}: to {self.repo_id}" + " (private)" * self.private
        folder = context.folder_with(Product.ARTEFACT)
        if not folder.is_dir():
            return [f"{place}: README.md, edgemin.json and what it lists: weights, graphs, tokenizer, report, figures"]
        try:
            published = published_files(folder)
        except ValueError as error:  # of an earlier version, or changed since: a run makes it anew, or says so
            return [f"{place}: not as it lies there now ({error})"]
        left_out = [] if published.left_out_line is None else [published.left_out_line]
        return [f"{place}, as it lies in {folder} now:", published.listing(), *left_out]

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Push it, and write down where it went."""
        url = push_artefact(
            context.folder_with(Product.ARTEFACT),
            self.repo_id,
            private=self.private,
            revision=self.revision,
            tags=self.tags,
        )
        (folder / RECORD).write_text(json.dumps({"repo_id": self.repo_id, "url": url}, indent=2) + "\n", "utf-8")
        return Outcome(notes=(f"pushed: {url}",))
