"""Asking a model of any task: one text in, one answer out."""

from __future__ import annotations

from collections.abc import Callable

from edgemin_hf.runtime.answers import Answerer
from edgemin_hf.runtime.classifiers import Classifier, MultiLabelClassifier, Regressor
from edgemin_hf.runtime.cutting import Text
from edgemin_hf.runtime.embeddings import Embedder
from edgemin_hf.runtime.entities import Tagger
from edgemin_hf.runtime.model import Model

Call = Callable[[Text], object]
"""Answers a text, or a pair."""


def runtime_call(model: Model) -> Call:
    """Return what answers a text or a pair by the runtime: a label, scores, entities, an answer, or a vector.

    Raises:
        ValueError: If there is nothing that such a model can be asked.
    """
    match model:
        case Classifier() | MultiLabelClassifier() | Regressor():
            if len(model.artefact.reading.columns) < 2:
                return model.predict
            # Where a text stands for a pair, as the built-in sentences do, its second is empty.
            return lambda text: model.predict((text, "") if isinstance(text, str) else text)
        case Tagger():
            return lambda text: model.entities(_first(text))
        case Embedder():
            return lambda text: model.encode(_first(text))
        case Answerer():
            return lambda text: model.answer(*(text if isinstance(text, tuple) else (text, text)))
    raise ValueError(f"{model.task}: no whole call")


def _first(text: Text) -> str:
    return text if isinstance(text, str) else text[0]
