"""What the stages share that begin with a head which does not know the task yet."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from accelerate import PartialState
from pydantic import Field
from pydantic.dataclasses import dataclass

from edgemin_hf.data.drawing import drawn, within_tokens
from edgemin_hf.modeling.head_fitting import fit_head, frozen_features
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.out_of_scope import check_out_of_scope, shift_out_of_scope
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Positive
from edgemin_hf.recipe.stages.training import TrainingStage
from edgemin_hf.recipe.train import make_trainer, train
from edgemin_hf.tasks.head import labelled
from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.processes import of_first

_FITTED_ROWS = 20_000
"""Rows, at most, that the head is fitted on: its features lie in memory, and more tell a linear layer little."""


@dataclass(config=STRICT)
class HeadFirst(TrainingStage):
    """A training that may begin with the head.

    Attributes:
        fit_head: Whether the last layer of a head that does not know the task yet is first fitted on the frozen
            encoder's features, where the task's can be, so that the encoder is not bent by a random one (LP-FT, arXiv
            2202.10054).
        head_learning_rate: Learning rate of the head; None takes that of the encoder's last layer.
        layer_learning_rate_decay: What the learning rate of a layer is multiplied by for each layer above it; the
            embeddings have the lowest (ELECTRA, arXiv 2003.10555). Layers that share weights are one.
    """

    fit_head: bool = True
    head_learning_rate: Positive | None = None
    layer_learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    def check(self, context: Context) -> None:
        """Check its arguments, and that it trains more than a head where the task's is not fitted alone."""
        super().check(context)
        check_out_of_scope(context)
        if self.max_steps == 0 and not context.task.fits_head:
            raise ValueError(
                f"max_steps: 0 for {context.task.type}, whose head is not fitted alone; allowed: 1 or more"
            )

    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Fit the head, then train. See `Stage.run`."""
        parts = self.parts(context)
        parts.head_learning_rate = self.head_learning_rate
        parts.layer_learning_rate_decay = self.layer_learning_rate_decay
        trainer = make_trainer(context, self, work, parts)
        told = work / "head_fitted.txt"

        def prepare(resumed: bool) -> Outcome:
            if not (self.fit_head and parts.head_is_new and context.task.fits_head):
                return Outcome()
            if resumed:
                return Outcome(notes=of_first((told.read_text("utf-8"),) if told.is_file() else ()))
            known = parts.train
            if context.task.unlabelled_files:
                rows_known = [labelled(torch.tensor([labels])).all() for labels in known["labels"]]
                known = known.select(np.flatnonzero(rows_known))
            rows = (within_tokens(drawn(rows, _FITTED_ROWS, context.recipe.seed)) for rows in (known, parts.validation))
            learned, held_out = (frozen_features(trainer.model, trainer.batches_of(some)) for some in rows)
            fit_head(trainer.model, learned, held_out, context.label_loss)
            metric = self.metric(context)
            note = f"with its head fitted on the frozen encoder {trainer.evaluate()[f'eval_{metric}']:.4f}"
            if PartialState().is_main_process:
                write_atomic(told, note)
            return Outcome(notes=(note,))

        finish = partial(shift_out_of_scope, context, trainer, parts.validation)
        return train(self, trainer, folder, self.metric(context), prepare=prepare, finish=finish)
