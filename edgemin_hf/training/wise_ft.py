"""WiSE-FT: a training ends between the weights that it began with and those that it came to (arXiv 2109.01903)."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgemin_hf.utils.processes import share_from_first

BEGINNING = "wise_ft_beginning.safetensors"
"""The weights that a training began with, beside its checkpoints: a run that goes on needs them too."""


class WiseFT(TrainerCallback):
    """Ends a training with (1 - alpha) of the weights that it began with and alpha of those that it came to.

    Fine-tuning bends what a checkpoint knew to the rows that it sees. On the straight line between both ends a model
    keeps more of it, and is often better than at either (Wortsman et al. 2021, arXiv 2109.01903, section 3, who advise
    alpha 0.5 where nothing is known). What it begins with must know the task: a head that is new is fitted on the
    frozen encoder before. Where the Trainer loads its best model in the end, alpha is the share of that one.

    Not under FSDP, where no process holds a whole model.

    Args:
        alpha: The share of the trained weights, above 0 and below 1.

    Raises:
        ValueError: If alpha is not.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
        >>> from edgemin_hf import WiseFT
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> before = model.classifier.weight.clone()
        >>> with TemporaryDirectory() as folder:
        ...     trainer = Trainer(
        ...         model,
        ...         TrainingArguments(
        ...             folder, max_steps=1, learning_rate=1e-2, report_to=[], use_cpu=True, disable_tqdm=True
        ...         ),
        ...         train_dataset=[{"input_ids": [2, 7, 8, 3], "labels": 0}],
        ...         callbacks=[WiseFT(0.5)],
        ...     )
        ...     trainer.train().global_step
        {'train_runtime': ...}
        1
        >>> f"{(model.classifier.weight - before).abs().max().item():.3f}"  # Adam's first step is as long as its rate
        '0.005'
    """

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: {alpha}; allowed: above 0 and below 1")
        self.alpha = alpha

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Keep the weights that a training begins with; one that goes on kept them when it began."""
        if PartialState().is_main_process and not state.global_step:
            folder = Path(str(args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f"{BEGINNING}.partial"
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in _trained(model).items()}, partial)
            partial.replace(folder / BEGINNING)

    @torch.no_grad()
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Go back to where it is to end."""
        if PartialState().is_main_process:
            began = load_file(Path(str(args.output_dir)) / BEGINNING)
            for name, tensor in _trained(model).items():
                tensor.copy_(torch.lerp(began[name].to(tensor), tensor, self.alpha))
        share_from_first("model: its weights", [extract_model_from_parallel(model)])


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what learns: all else is the same at both ends. What is shared has one name."""
    named = extract_model_from_parallel(model).named_parameters()
    return {name: tensor for name, tensor in named if tensor.requires_grad}
