"""The metrics that ship, and what a metric of a recipe is: one of them, or any other module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from evaluate.loading import import_main_class

from edgemin_hf.tasks.metrics.base import Answer, LocalMetric
from edgemin_hf.tasks.metrics.counts import AVERAGES

Choice: TypeAlias = str | dict[str, Any]
"""A metric as a recipe writes it: a name, path or Hub id, or a mapping of `name` and settings."""
MODULES = (
    "accuracy", "f1", "precision", "recall", "matthews_correlation", "pearsonr", "spearmanr", "mse", "mae", "seqeval",
    "squad", "squad_v2", "exact_match", "ndcg_at_10", "mrr_at_10", "masked_accuracy", "pseudo_perplexity",
)  # fmt: skip
"""The modules of `evaluate` that ship, by their names there, each a file beside this one."""
DEFAULTS: Mapping[Answer, Choice] = {
    "label": "accuracy",
    "score": "pearsonr",
    "label set": "f1_micro",
    "tags": {"name": "seqeval", "mode": "strict", "scheme": "IOB2"},
    "answers": "squad",
    "ranking": "ndcg_at_10",
    "masked tokens": "masked_accuracy",
}
"""The metric of a task that names none."""
_WIDEST = 17
"""Characters of a value with its interval: the table is to fit a terminal."""


@dataclass(frozen=True)
class Metric:
    """A metric: a module of `evaluate`, its settings, and which of its results counts.

    Attributes:
        module: Its name, if it ships (`MODULES`), else a path or Hub id.
        settings: The module's own settings, such as `average`.
        result: Name of the result that counts; None takes the first, or the one that is called as the module is.
        greater_is_better: Whether more is better.

    Example:
        >>> from edgemin_hf.tasks.metrics import Metric
        >>> Metric("f1", {"average": "macro"}).name, Metric("f1", {"average": "macro"}).heading
        ('f1_macro', 'macro F1 % [95%]')
    """

    module: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    result: str | None = None
    greater_is_better: bool = True

    @property
    def local(self) -> type[LocalMetric] | None:
        """The module, where it ships."""
        return local_module(self.module) if self.module in MODULES else None

    @property
    def average(self) -> str | None:
        """The mean of labels that it takes; None where it is of all or of one."""
        average = self.settings.get("average")
        return None if average == "binary" else average

    @property
    def name(self) -> str:
        """Its name in a record: that in `evaluate`, with the mean and the result where they are not what is usual."""
        short = self.module if self.module in MODULES else Path(self.module).stem
        return "_".join(filter(None, [short, self.average, self.result]))

    @property
    def title(self) -> str:
        """Its name in a sentence."""
        if self.local is None:
            return self.name
        title = self.local.results[self.result or next(iter(self.local.results))]
        return title if self.average is None else f"{self.average} {title}"

    @property
    def unit(self) -> str:
        """What 100 times its value is written with; "" where that is written as it is."""
        return "×100" if self.local is None else self.local.unit

    @property
    def scale(self) -> int:
        """What its value is multiplied by to be written."""
        return 100 if self.unit else 1

    @property
    def heading(self) -> str:
        """What stands over a column of such values with their intervals: the fullest that is no wider than they are."""
        title = self.title.removesuffix(" correlation")
        forms = [f"{name} {self.unit}{ends}" for name in (title, self.name) for ends in (" [95%]", "")]
        short = f"{title[: _WIDEST - len(self.unit) - 1]} {self.unit}"
        return next((form for form in forms if len(form) <= _WIDEST), short)

    @property
    def axis(self) -> str:
        """What stands at an axis, or before a number."""
        return f"{self.title} {'in %' if self.unit == '%' else self.unit}".rstrip()

    @property
    def way_up(self) -> str:
        """Where in a figure better values are."""
        return "up" if self.greater_is_better else "down"

    def located(self, root: Path) -> Metric:
        """Return the same where its path is relative to a folder, if it is the path of something there.

        Raises:
            ValueError: If it is the path of a file that is not there, which no id of the Hub is meant by.
        """
        if self.local is not None:
            return self
        path = root / self.module
        if self.module.endswith(".py") and not path.is_file():
            raise ValueError(f"metric: {path}, which is no file; allowed: an existing one, or a Hub id (owner/name)")
        return replace(self, module=str(path)) if path.exists() else self


@cache
def local_module(name: str) -> type[LocalMetric]:
    """Import one of `MODULES`, as `evaluate` finds the class in a file, and without asking the Hub."""
    module: type[LocalMetric] = import_main_class(f"{__package__}.{name}")
    return module


def metric_named(name: str, greater_is_better: bool = True) -> Metric:
    """Return the metric that a name, such as one of a record, stands for.

    What does not ship is taken for another module of `evaluate`, of which a record says whether more is better.

    Example:
        >>> from edgemin_hf.tasks.metrics import metric_named
        >>> metric_named("f1_macro").title, metric_named("squad_v2_exact").title, metric_named("rouge").title
        ('macro F1', 'exact match', 'rouge')
    """
    for module in sorted(MODULES, key=len, reverse=True):
        if name == module or name.startswith(f"{module}_"):
            local, rest = local_module(module), name.removeprefix(module).removeprefix("_")
            better = local.greater_is_better
            if rest in AVERAGES:
                return Metric(module, {"average": rest}, greater_is_better=better)
            if not rest or rest in local.results:
                return Metric(module, result=rest or None, greater_is_better=better)
    return Metric(name, greater_is_better=greater_is_better)
