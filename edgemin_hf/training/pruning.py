"""How a trainer prunes its student: what is due before training, what happens on the way, what is saved beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedModel, Trainer
from transformers.utils import ModelOutput

from edgemin_hf.benchmark.layer_latency import LatencyTable, measure_latency_table
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.surgery import Selection, check_prunable, remove
from edgemin_hf.neural_compressor.pruning import IncPruner, save_inc_config, select_once
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.pruning.feasible import check_removal
from edgemin_hf.pruning.gradual import GradualPruner, costs_state
from edgemin_hf.pruning.one_shot import prune_layers, prune_units, select_by_saliency
from edgemin_hf.pruning.saliency import Batches, Loss
from edgemin_hf.pruning.selection import Costs, Parameters
from edgemin_hf.pruning.tuning import check_tunable
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.precision import precisions
from edgemin_hf.utils.processes import of_first

if TYPE_CHECKING:
    from edgemin_hf.neural_compressor.guest import WeightPruningConfig


def check_pruning(
    model: PreTrainedModel,
    config: PruningConfig | WeightPruningConfig,
    student_activations: Collection[Activation],
    quantization: QuantizationConfig | None,
) -> None:
    """Check that a student can be pruned as is asked for, beside what else is done with it.

    Args:
        model: The student.
        config: What is to go.
        student_activations: Inner tensors of the student that objectives read.
        quantization: What it is quantised to in the same training, if it is.

    Raises:
        ValueError: If not.
    """
    if not isinstance(config, PruningConfig):
        if quantization is not None:
            raise ValueError(
                "pruning_config: Neural Compressor's own beside quantization_config, whose layers it does not find; "
                "allowed: a PruningConfig"
            )
        return
    if quantization is not None:
        check_schedule(model, config, quantization)
    layers = config.layer_sparsity > 0
    check_prunable(model.config, heads=config.removes_heads, layers=layers)
    check_removal(model, config)
    if layers and student_activations:
        raise ValueError(
            "layer_sparsity: above 0 beside a method that reads inner layers; allowed: 0, or task distillation"
        )
    if config.tune_masks:
        check_tunable(model)


def check_schedule(model: PreTrainedModel, pruning: PruningConfig, quantization: QuantizationConfig) -> None:
    """Check that pruning leaves weights on the grids that they are trained on.

    Args:
        model: The student; it may be on the meta device.
        pruning: What is to go, and when.
        quantization: What is quantised beside it.

    Raises:
        ValueError: If not, or if overrides do not fit the model.
    """
    if pruning.schedule == "one_shot":
        return
    wanted = precisions(model, quantization)
    source = None if quantization.target_size_mb is None else f"target_size_mb: {quantization.target_size_mb:g}"
    if any(wanted[linear] == "int4" for _, _, linear in Encoder(model).linears()):
        source = "weights: int4"
    if source is not None:
        raise ValueError(
            f"schedule: {pruning.schedule} beside {source}, whose groups would change when units are removed at "
            "the end; allowed: one_shot, or a training of its own before"
        )


def costs_of(model: PreTrainedModel, config: PruningConfig) -> Costs | None:
    """Return the costs that a budget counts; latencies are measured now. None where there is no budget."""
    if config.target_parameters is not None:
        return Parameters(model)
    return None if config.target_latency_ms is None else measure_latency_table(model)


def prune_one_shot(
    model: PreTrainedModel,
    config: PruningConfig,
    batches: Callable[[], Batches],
    loss_of: Loss,
    costs: Callable[[], Costs | None],
    accumulation: int = 1,
) -> None:
    """Remove layers, and with the schedule "one_shot" heads and neurons, by whoever provides their saliency; in place.

    All processes remove the same, by what all of them measure.

    Args:
        model: The model.
        config: What is to go.
        batches: Returns, each time, the batches that losses and saliency are measured on, this process's share.
        loss_of: Computes the loss of a batch, a mean over its examples.
        costs: Returns the costs that a budget counts, of the model without the layers that went.
        accumulation: Batches of a training step, which Neural Compressor's criteria go by.
    """
    prune_layers(model, config, batches(), loss_of)
    if config.schedule != "one_shot":
        return
    budget = costs()

    def select_units(batches: Callable[[], Batches]) -> Selection:
        if config.uses_inc:
            return select_once(model, batches(), loss_of, config, accumulation)
        return select_by_saliency(model, config, batches, loss_of, budget)

    prune_units(model, config, batches, select_units, _forward)


class StudentPruning:
    """Prune the student of a trainer, once.

    Args:
        trainer: The trainer.
        config: What is to go: our settings, or Neural Compressor's own.

    Attributes:
        config: The same.
    """

    def __init__(self, trainer: Trainer, config: PruningConfig | WeightPruningConfig) -> None:
        self.config = config
        self._trainer = trainer
        self._one_shot_done = self._gradually_done = False
        self._pruner: GradualPruner | IncPruner | None = None

    def resume(self) -> None:
        """Take note that a checkpoint brings a student from which layers, and in one shot units, are gone."""
        self._one_shot_done = True

    def one_shot(self, batches: Callable[[int], Batches], loss_of: Loss) -> None:
        """Remove what is due before training: layers, and with the schedule "one_shot" heads and neurons.

        Args:
            batches: Returns batches of at least as many training examples.
            loss_of: Computes the loss of a batch.
        """
        config = self.config
        if self._one_shot_done or not isinstance(config, PruningConfig):
            return
        self._one_shot_done = True
        prune_one_shot(
            self._model,
            config,
            lambda: batches(config.saliency_examples),
            loss_of,
            lambda: self._costs(None),
            self._trainer.args.gradient_accumulation_steps,
        )

    def watch(self, loss: Tensor, examples: int) -> None:
        """Note of what the next backward pass is: of a loss that is a mean over so many examples."""
        if self._pruner is not None:
            self._pruner.watch(loss, examples)

    def after_backward(self) -> None:
        """Score units by a backward pass, where they go while the student trains."""
        if self._pruner is not None:
            self._pruner.after_backward(complete=self._trainer.accelerator.sync_gradients)

    @contextmanager
    def gradually(self, checkpoint: Path | None) -> Iterator[None]:
        """Mask units while the student trains, and remove them when that is done; no second time.

        Args:
            checkpoint: The checkpoint that training goes on from; None for a run of its own.
        """
        config = self.config
        if self._gradually_done or (isinstance(config, PruningConfig) and config.schedule == "one_shot"):
            yield
            return
        self._gradually_done = True
        pruner: GradualPruner | IncPruner
        if isinstance(config, PruningConfig) and not config.uses_inc:
            pruner = GradualPruner(config, self._model, self._costs(checkpoint))
        else:
            pruner = IncPruner(config, self._gradient_scale)
        pruner.resume_from, self._pruner = checkpoint, pruner
        # Before all others: whoever marks a checkpoint as complete does so when the masks are in it.
        self._trainer.callback_handler.callbacks.insert(0, pruner)
        yield
        self._trainer.remove_callback(pruner)
        self._pruner = None
        remove(self._model, pruner.selection(self._model))

    def save(self, folder: str | Path) -> None:
        """Write Optimum Intel's `inc_config.json` beside a model that Neural Compressor pruned."""
        ours = isinstance(self.config, PruningConfig) and not self.config.uses_inc
        if not ours and self._trainer.args.should_save:
            save_inc_config(self.config, folder)

    @property
    def _model(self) -> PreTrainedModel:
        model: PreTrainedModel = self._trainer.model
        return model

    def _gradient_scale(self) -> float:
        """Return what gradients are multiplied with until they are clipped or used: with fp16 the loss was."""
        scaler = self._trainer.accelerator.scaler
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _costs(self, checkpoint: Path | None) -> Costs | None:
        """Return the costs that a budget counts, as the checkpoint keeps them if there is one."""
        if self.config.target_latency_ms is None:
            return costs_of(self._model, self.config)
        if checkpoint is not None:
            return LatencyTable(**costs_state(checkpoint))
        # Each process would measure other numbers, and by them choose other units.
        return of_first(costs_of(self._model, self.config) if self._trainer.is_world_process_zero() else None)


def _forward(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> ModelOutput:
    return model(**filter_forward_inputs(model, batch))
