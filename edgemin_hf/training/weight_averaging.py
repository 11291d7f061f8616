"""A training that ends with the mean of the weights of all its steps, at no cost (SWA, arXiv 1803.05407)."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgemin_hf.utils.processes import share_from_first

MEAN = "weights_mean.safetensors"
"""The mean so far, in each checkpoint: a run that goes on needs it."""


class WeightAveraging(TrainerCallback):
    """Ends a training with the mean of the weights after each of its steps.

    Steps at a constant learning rate wander around a good place, and their mean is nearer to it than the last of them
    (Izmailov et al. 2018, arXiv 1803.05407; Polyak and Juditsky 1992). The first steps count as all others: near what a
    checkpoint knew before, they hold the mean there a little (as in WiSE-FT, arXiv 2109.01903). So what a training
    begins with must know the task: a head that is new is fitted on the frozen encoder before.

    Evaluations on the way are of the weights of their step. Not beside `load_best_model_at_end`, which would take a
    step's, nor under FSDP, where no process holds a whole model.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
        >>> from edgemin_hf import WeightAveraging
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> before = model.classifier.weight.clone()
        >>> arguments = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "max_steps": 3, "report_to": []}
        >>> with TemporaryDirectory() as folder:
        ...     trainer = Trainer(
        ...         model,
        ...         TrainingArguments(folder, use_cpu=True, disable_tqdm=True, **arguments),
        ...         train_dataset=[{"input_ids": [2, 7, 8, 3], "labels": 0}],
        ...         callbacks=[WeightAveraging()],
        ...     )
        ...     trainer.train().global_step
        {'train_runtime': ...}
        3
        >>> f"{(model.classifier.weight - before).abs().max().item():.2f}"  # of steps of a hundredth: (1 + 2 + 3) / 3
        '0.02'
    """

    def __init__(self) -> None:
        self._mean: dict[str, Tensor] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Begin a mean, or take up that of the checkpoint.

        Raises:
            ValueError: If the best model is to be loaded at the end.
        """
        if args.load_best_model_at_end:
            raise ValueError("load_best_model_at_end: True beside WeightAveraging; allowed: False")
        if PartialState().is_main_process:
            self._mean = {name: tensor.detach().clone() for name, tensor in _trained(model).items()}
            if state.global_step:
                for name, tensor in load_file(_file(args, state)).items():
                    self._mean[name].copy_(tensor)

    @torch.no_grad()
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Take the step's weights in."""
        if PartialState().is_main_process:
            for name, tensor in _trained(model).items():
                self._mean[name].lerp_(tensor, 1 / state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Keep the mean so far in the checkpoint."""
        if PartialState().is_main_process:
            save_file({name: tensor.cpu().contiguous() for name, tensor in self._mean.items()}, _file(args, state))

    @torch.no_grad()
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Give the model the mean."""
        if PartialState().is_main_process:
            for name, tensor in _trained(model).items():
                tensor.copy_(self._mean[name])
        self._mean = {}
        share_from_first("model: its weights", [extract_model_from_parallel(model)])


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / MEAN


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what learns: all else stays as it is. What is shared has one name."""
    named = extract_model_from_parallel(model).named_parameters()
    return {name: tensor for name, tensor in named if tensor.requires_grad}
