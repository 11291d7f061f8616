"""model2vec: an embedding for each token, distilled from the encoder and fine-tuned; no attention, and nearly no time.

Needs the extra `rivals` (model2vec, https://github.com/MinishLab/model2vec).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.rivals.base import Given, Made, folder_bytes, joined
from edgemin_hf.tasks.metrics import Arrays

_DIMENSIONS = 256
_NEVER = 1e-6
"""Probability of what no training row has."""


def static_embeddings(given: Given, folder: Path) -> list[Made]:
    """Distil the encoder's token embeddings and fine-tune them with a small head.

    Raises:
        ValueError: For scores, which it has no head for.
    """
    if given.task.problem_type == "regression":
        raise ValueError("static_embeddings: for scores; allowed: for labels")
    from model2vec.distill import distill
    from model2vec.train import StaticModelForClassification

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = StaticModelForClassification.from_static_model(model=distill(str(given.encoder), pca_dims=_DIMENSIONS))
        if given.labels.ndim > 1:
            # Of many labels none is likely at first: the share of right texts stays 0, and would stop it there.
            model.val_metric, model.early_stopping_direction = "val_loss", "min"
        train, validation = (_by_name(labels) for labels in (given.labels, given.validation_labels))
        model.fit(joined(given.train), train, X_val=joined(given.validation), y_val=validation, device="cpu")
        pipeline, names = model.to_pipeline(), [int(name) for name in model.classes_]
    model.to_static_model().save_pretrained(str(folder))
    head = [value.detach().numpy() for value in model.head.parameters()]
    np.savez(folder / "head.npz", *head)

    def scores(texts: list[str]) -> NDArray[np.float32]:
        likely = np.full((len(texts), len(given.label_ids)), _NEVER, dtype=np.float32)
        likely[:, names] = np.clip(pipeline.predict_proba(texts), _NEVER, 1 - _NEVER)
        return np.log(likely / (1 - likely))

    return [
        Made(
            "model2vec, fine-tuned",
            scores(joined(given.test)),
            folder_bytes(folder),
            lambda text: scores(joined([text])),
        )
    ]


def _by_name(labels: Arrays) -> list[str] | list[list[str]]:
    """Return labels as model2vec takes them: by name, or a list of names for each text."""
    if labels.ndim == 1:
        return [str(label) for label in labels]
    return [[str(label) for label in np.flatnonzero(row)] for row in labels]
