"""The linear models on top of features that nothing trained: LinearSVC for labels, ridge regression for scores."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.tasks.metrics import Answer, Arrays

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    Features: TypeAlias = csr_matrix | NDArray[np.float32]


class Linear:
    """A linear model: one against the rest for labels and label sets, least squares for scores.

    Args:
        features: (rows, width).
        labels: As of `Rows`.
        answer: What they are.
    """

    def __init__(self, features: Features, labels: Arrays, answer: Answer) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import Ridge
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.svm import LinearSVC

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            if answer in ("score", "ranking"):
                model = Ridge().fit(features, labels)
            elif answer == "label":
                model = LinearSVC(random_state=0).fit(features, labels)
            else:
                model = OneVsRestClassifier(LinearSVC(random_state=0)).fit(features, labels)
        parts = getattr(model, "estimators_", [model])
        rows = [(np.atleast_2d(part.coef_), np.atleast_1d(part.intercept_)) for part in parts]
        self.weight = np.concatenate([weight for weight, _ in rows]).astype(np.float32)
        self.bias = np.concatenate([bias for _, bias in rows]).astype(np.float32)
        if (
            answer == "label" and len(self.bias) == 1
        ):  # of two labels LinearSVC has one plane, above which the second is
            self.weight, self.bias = np.vstack([-self.weight, self.weight]), np.append(-self.bias, self.bias)

    def scores(self, features: Features) -> NDArray[np.float32]:
        """Return scores (rows, labels): the highest, or those above 0, are the answer."""
        return cast(NDArray[np.float32], np.asarray(features @ self.weight.T + self.bias, dtype=np.float32))

    def save(self, file: Path) -> None:
        """Write what it needs to answer."""
        np.savez(file, weight=self.weight, bias=self.bias)
