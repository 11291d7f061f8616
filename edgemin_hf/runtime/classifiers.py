"""Labels and scores of texts or pairs, with the names that scikit-learn's classifiers have."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.runtime.cutting import Text
from edgemin_hf.runtime.model import Model

DEFAULT_THRESHOLD = 0.5


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of logits on the last axis, float32, shaped as they are."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    found: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return found


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of yeses and noes, float32; no logit overflows."""
    small = np.exp(-np.abs(logits))
    found: NDArray[np.float32] = (np.where(logits >= 0, 1, small) / (1 + small)).astype(np.float32)
    return found


class Classifier(Model):
    """A model that gives a text, or a pair of texts, one label.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.runtime.classifiers import softmax
        >>> softmax(np.zeros((1, 4), np.float32)).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    methods: ClassVar = ("predict", "predict_proba")

    @cached_property
    def _names(self) -> NDArray[np.str_]:
        return np.array(self.labels, dtype=str)

    def predict(self, texts: Text | Iterable[Text]) -> Any:
        """Return the likeliest label.

        Args:
            texts: A text, a pair of texts as a tuple, or many of either.

        Returns:
            The label's name of one, else the names as an array of strings (texts,).

        Raises:
            ValueError: If one is no text, or a pair where the task is one of texts, or the other way round.
        """
        names = self._names
        found = self._answered(texts, len(names), lambda logits: names[logits.argmax(axis=-1)])
        return str(found) if found.ndim == 0 else found

    def predict_proba(self, texts: Text | Iterable[Text]) -> NDArray[np.float32]:
        """Return the probability of each label, in the order of `labels`.

        Args:
            texts: As of `predict`.

        Returns:
            float32 (labels,) of one, else (texts, labels), C-contiguous; their sum is 1.
        """
        return self._answered(texts, len(self.labels), softmax)


class MultiLabelClassifier(Model):
    """A model that gives a text, or a pair of texts, any number of labels.

    Example:
        >>> from edgemin_hf.runtime import MultiLabelClassifier
        >>> MultiLabelClassifier.methods
        ('predict', 'predict_proba')
    """

    methods: ClassVar = ("predict", "predict_proba")

    @property
    def threshold(self) -> float:
        """Probability from which a label is given."""
        return self.artefact.reading.threshold or DEFAULT_THRESHOLD

    def predict(self, texts: Text | Iterable[Text]) -> NDArray[np.int64]:
        """Return a 1 for each label whose probability reaches the threshold, in the order of `labels`.

        Args:
            texts: A text, a pair of texts as a tuple, or many of either.

        Returns:
            int64 (labels,) of one, else (texts, labels), as of scikit-learn's multi-label classifiers; C-contiguous.
        """
        edge = np.log(self.threshold / (1 - self.threshold))
        return self._answered(texts, len(self.labels), lambda logits: (logits >= edge).astype(np.int64))

    def predict_proba(self, texts: Text | Iterable[Text]) -> NDArray[np.float32]:
        """Return the probability of each label by itself, float32 (labels,) or (texts, labels), C-contiguous."""
        return self._answered(texts, len(self.labels), sigmoid)


class Regressor(Model):
    """A model that gives a text, or a pair of texts, a score.

    Example:
        >>> from edgemin_hf.runtime import Regressor
        >>> Regressor.methods
        ('predict',)
    """

    methods: ClassVar = ("predict",)

    def predict(self, texts: Text | Iterable[Text]) -> Any:
        """Return the score, as a float of one text or pair, else as float32 (texts,), C-contiguous."""
        found = self._answered(texts, 1, self._scores)
        return float(found) if found.ndim == 0 else found

    def _scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits[:, 0].copy()


class Reranker(Regressor):
    """A cross-encoder: a model that gives a query with a passage a score, by which passages are ranked.

    The score is what sentence-transformers' CrossEncoder makes of the logit by the `activation_fn` that `config.json`
    tells: its sigmoid, also where none is told, or else the logit itself.

    Example:
        >>> from edgemin_hf.runtime import Reranker
        >>> Reranker.methods
        ('predict',)
    """

    def _scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        told = (self.artefact.config.get("sentence_transformers") or {}).get("activation_fn")
        scores = super()._scores(logits)
        return sigmoid(scores) if told is None or told.endswith(".Sigmoid") else scores
