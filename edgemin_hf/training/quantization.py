"""How a trainer quantises its student: what is swapped first, ranges while it trains, what is saved beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.neural_compressor.qat import check_precision, finish_inc, own_settings, prepare_inc, save_inc_config
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.native import calibrate, fake_quantized_linears, prepare_qat, widen_everywhere
from edgemin_hf.quantization.range_training import learn_ranges_apart, learned_ranges

if TYPE_CHECKING:
    from edgemin_hf.neural_compressor.guest import QuantizationAwareTrainingConfig


class StudentQuantization:
    """What a trainer does to quantise its student, whose modules are swapped when this is made.

    Args:
        model: The student; its modules are swapped in place.
        asked: The settings, ours or Neural Compressor's.
        args: The trainer's.
        pruned: Whether the same training prunes.

    Raises:
        ValueError: If model and settings do not fit together.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        asked: QuantizationConfig | QuantizationAwareTrainingConfig,
        args: TrainingArguments,
        *,
        pruned: bool,
    ) -> None:
        self.model, self.asked = model, asked
        self.config = own_settings(asked)
        # A student that was quantised before brings its ranges.
        had_ranges = bool(fake_quantized_linears(model))
        if self.config.provider == "inc":
            if pruned and not had_ranges:
                raise ValueError("pruning_config: beside provider inc; allowed: a training before or after it")
            check_precision(args)
            prepare_inc(model, asked)
        else:
            prepare_qat(model, self.config)
        self.calibrated = had_ranges or not fake_quantized_linears(model)

    @property
    def learns_ranges(self) -> bool:
        """Whether the optimizer is to train the ranges."""
        return self.config.ranges == "learned"

    def calibrate(self, batches: Callable[[int], Iterator[Mapping[str, Tensor]]]) -> None:
        """Set the first ranges, unless that was done before: the widest over all processes.

        Args:
            batches: Gives batches, on the device, that hold so many examples over all processes.
        """
        if not self.calibrated:
            examples = batches(self.config.calibration_examples)
            calibrate(self.model, examples, lambda batch: self.model(**filter_forward_inputs(self.model, batch)))
            widen_everywhere(self.model)
        self.calibrated = True

    @contextmanager
    def training(self) -> Iterator[None]:
        """Make ranges learnable while the student trains; afterwards its modules are plain fake-quantised ones."""
        if self.learns_ranges:
            with learned_ranges([self.model]):
                yield
        else:
            yield
        finish_inc(self.model)

    def place_ranges(self, optimizer: torch.optim.Optimizer) -> None:
        """Give learned ranges a rate of their own in a new optimizer."""
        learn_ranges_apart(optimizer, self.model, self.config.range_learning_rate)

    def save(self, folder: str) -> None:
        """Write what belongs beside the model: with Neural Compressor its configuration."""
        if self.config.provider == "inc":
            save_inc_config(self.asked, folder)
