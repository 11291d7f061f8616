"""Where a task's rows come from: files, or the splits of a dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from dataclasses import field as setting
from pathlib import Path
from typing import Any

from datasets import Dataset

from edgemin_hf.data.sources import files_of, one_file, split_file
from edgemin_hf.data.tables import read_table
from edgemin_hf.tasks.base import PARTS, Files, Part, Split


@dataclass
class TableSource(ABC):
    """The tables of a task.

    Attributes:
        train_file: Table to train on, relative to the recipe; or a pattern (data/*.csv), or a list of several.
        test_file: Table that only the final evaluation predicts; likewise.
        validation_file: Table for every choice; None holds out a share of the training table.
        dataset: Id of a dataset on the Hub, or a folder of one, instead of the files.
        dataset_config: Configuration of the dataset; None where it has one.
        train_split: Split to train on, or a part of one (`train[-10%:]`), of which the first rows (`train[:10000]`) are
            streamed.
        validation_split: Split for every choice; None holds out a share of the split to train on.
        test_split: Split that only the final evaluation predicts.
        further_tests: Further tables, or splits of `dataset`, that the final evaluation measures, by a name for each (a
            language's). A split of another configuration, dataset or revision is a mapping.
        revision: Branch, tag or commit of a dataset on the Hub; None takes the newest.
    """

    train_file: Files = ""
    test_file: Files = ""
    validation_file: Files | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    train_split: str = "train"
    validation_split: str | None = None
    test_split: str = "test"
    revision: str | None = None
    further_tests: dict[str, Files | Split] = setting(default_factory=dict)

    def check_source(self) -> None:
        """Check that there are files, or a dataset; ValueError where not."""
        for part in PARTS:
            file = getattr(self, f"{part}_file")
            if self.dataset and file:
                raise ValueError(f"dataset: {self.dataset} beside {part}_file: {file}; allowed: one of the two")
            if not self.dataset and not file and (part != "validation" or file is not None):
                raise ValueError(f"{part}_file: missing; expected: a file, or a dataset")
        for name, named in self.further_tests.items():
            if isinstance(named, Split) and not (named.dataset or self.dataset):
                raise ValueError(f"further_tests.{name}.dataset: missing; expected: one, where the task has files")
        defaults = {field.name: field.default for field in fields(TableSource)}
        for name in ("dataset_config", "train_split", "validation_split", "test_split", "revision"):
            value = getattr(self, name)
            if not self.dataset and value != defaults[name]:
                raise ValueError(f"{name}: {value} beside train_file; allowed: beside dataset alone")

    def field(self, part: Part) -> str:
        """Return the name of the setting that says where a part's rows come from."""
        return f"{part}_split" if self.dataset else f"{part}_file"

    def path(self, root: Path, part: Part) -> Path:
        """Return the file of a part's rows: the one that is named, or one that is made of several, or of a split.

        Args:
            root: The folder that paths are relative to.
            part: Which rows; validation only where they are not held out.

        Raises:
            ValueError: If there is no such file, dataset or split.
        """
        return self.named_path(root, getattr(self, self.field(part)))

    def train_paths(self, root: Path) -> list[Path]:
        """Return the files that the training rows depend on, which may be read each by itself. See `path`."""
        return [self.path(root, "train")]

    def named_path(self, root: Path, named: Files | Split, *, with_labels: bool = True) -> Path:
        """Return the file of rows that are named as a part's are: by files, or by a split.

        Args:
            root: The folder that paths are relative to.
            named: The files or the split.
            with_labels: Whether rows of a split whose class is not told are left out.
        """
        if (split := self._split(named)) is None:
            return self.joined(self.files(root, named))
        assert split.dataset is not None  # noqa: S101 - `check_source`
        label_column = self.labels_column if with_labels else ""
        of_split = str(split.split or self.test_split), split.revision, label_column
        return split_file(root, split.dataset, split.dataset_config, *of_split)

    def files(self, root: Path, named: Files | Split) -> list[Path]:
        """Return the files of rows that are named; none of those of a split."""
        return [] if isinstance(named, Split) or self.dataset else files_of(root, named)

    def joined(self, files: Sequence[Path]) -> Path:
        """Return one file of the rows of several; ValueError where that can't be made."""
        return one_file(files)

    def _split(self, named: Files | Split) -> Split | None:
        """Return the split that rows are named by, with what is the task's own; None of files."""
        if not isinstance(named, Split):
            own = Split(str(named), self.dataset, self.dataset_config, self.revision)
            return own if self.dataset else None
        if named.dataset not in (None, self.dataset):
            return named
        config, revision = named.dataset_config or self.dataset_config, named.revision or self.revision
        return Split(named.split, self.dataset, config, revision)

    @property
    def submissions(self) -> Mapping[str, Files]:
        """Rows without labels whose predictions are wanted, by the names of the files for them; here none."""
        return {}

    def submitted(self, predictions: Any, names: Sequence[str]) -> list[str]:
        """Return predictions of such rows as they are to be written; `names` are those of the labels, by number."""
        return [str(one) for one in predictions]

    def table(self, root: Path, part: Part) -> Dataset:
        """Read a part's rows as they are. See `path`."""
        return self.read(self.path(root, part))

    @property
    def holds_out(self) -> bool:
        """Whether validation rows are held out from those to train on."""
        return getattr(self, self.field("validation")) is None

    @property
    @abstractmethod
    def labels_column(self) -> str:
        """Name of the column that holds the labels."""

    def read(self, path: Path) -> Dataset:
        """Read one of the task's tables; ValueError where that can't be done."""
        return read_table(path)
