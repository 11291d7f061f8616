"""What our modules of `evaluate` share: what they take, and values of examples that count so many times each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from datasets import Features, Value
from datasets import Sequence as Listed
from evaluate import Metric, MetricInfo
from numpy.typing import NDArray

Answer = Literal["label", "score", "label set", "tags", "answers", "ranking", "masked tokens"]
"""What predictions are: numbers of labels (examples,), scores (examples,), 0 and 1 (examples, labels), tags (a
list an example), answers (a text an example; its truth is a list of texts that are right, empty without one), scores
that rank the rows of groups (rows,), whose truth is how relevant each is, and the number of its group (rows, 2), or
what is said of masked tokens (`MaskedToken`, a list an example; its truth is a list of tokens)."""
Arrays: TypeAlias = NDArray[np.int64 | np.float32 | np.float64]
"""Labels or predictions that are numbers, one an example, as `Answer` says."""
Answers: TypeAlias = Arrays | Sequence[Any]
"""Labels or predictions of any kind, one an example."""
Values: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Values], Values]
"""A value of examples that count so many times each, float64 (resamples, examples) -> (resamples,)."""
Statistics: TypeAlias = Callable[[Values], dict[str, Values]]
"""Several of them by name."""

FEATURES: Mapping[Answer, Features] = {
    "label": Features({"predictions": Value("int64"), "references": Value("int64")}),
    "score": Features({"predictions": Value("float64"), "references": Value("float64")}),
    "label set": Features({"predictions": Listed(Value("int64")), "references": Listed(Value("int64"))}),
    "tags": Features({"predictions": Listed(Value("string")), "references": Listed(Value("string"))}),
    "ranking": Features({"predictions": Value("float64"), "references": Listed(Value("float64"))}),
    "masked tokens": Features({"predictions": Listed(Listed(Value("float64"))), "references": Listed(Value("int64"))}),
}
"""What `evaluate` is told of each kind of answers."""


class LocalMetric(Metric, ABC):
    """A module of `evaluate` that knows what it is worth when each example counts any number of times.

    That is what a bootstrap asks 2,000 times: where a metric is made of sums over examples, many resamples are one
    product of matrices. What would be 0 / 0, such as a correlation with a constant, is 0.

    Attributes:
        results: What it gives, by the names of `evaluate`, and what each is called in a sentence; the first decides.
        answers: What labels and predictions may be.
        unit: What 100 times a value is written with; "" of a value that is written as it is.
        greater_is_better: Whether more is better.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics import LocalMetric, Metric
        >>> accuracy = Metric("accuracy").local
        >>> values = accuracy.statistic(np.array([0, 1, 1]), np.array([0, 1, 0]))
        >>> issubclass(accuracy, LocalMetric), values(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))["accuracy"].tolist()
        (True, [1.0, 0.5])
    """

    results: ClassVar[Mapping[str, str]]
    answers: ClassVar[tuple[Answer, ...]]
    unit: ClassVar[Literal["%", "×100", ""]] = "%"
    greater_is_better: ClassVar[bool] = True

    @staticmethod
    def examples(references: Any) -> int:
        """Return of how many examples it is a value: of each row of the truth."""
        return len(references)

    @staticmethod
    @abstractmethod
    def statistic(*sides: Any, **settings: Any) -> Statistics:
        """Return what tells each result of examples that count so many times.

        Args:
            *sides: "references", the truth, one an example, and "predictions", likewise.
            **settings: The metric's own.

        Returns:
            From how many times each example counts, float64 (resamples, examples), to each of `results` (resamples,).
        """

    def _info(self) -> MetricInfo:
        features = [FEATURES[answer] for answer in self.answers if answer in FEATURES]
        return MetricInfo(description=self.__doc__ or "", citation="", features=features)

    def _compute(self, predictions: Any, references: Any, **settings: Any) -> dict[str, float]:
        """Compute what `evaluate` gives, from lists."""
        if isinstance(predictions[0], list) and not isinstance((predictions[0] or [""])[0], str):
            predictions, references = np.array(predictions), np.array(references)
        found = self.statistic(references, predictions, **settings)(np.ones((1, self.examples(references))))
        return {name: float(values[0]) for name, values in found.items()}


def total(statistics: Any, weights: Values) -> Values:
    """Sum statistics (examples, k), dense or sparse, over examples that count so many times -> (resamples, k)."""
    sums: Values = np.asarray((statistics.T @ weights.T).T)
    return sums
