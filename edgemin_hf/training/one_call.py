"""Pruning and quantising in one call, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.masters import to_float_masters
from edgemin_hf.modeling.weights import not_finite
from edgemin_hf.neural_compressor.ptq import quantize_by_inc
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.native import calibrate, fake_quantized_linears, prepare_qat, widen_everywhere
from edgemin_hf.training.pruning import check_pruning, costs_of, prune_one_shot
from edgemin_hf.training.record import remember_training, training_record
from edgemin_hf.utils.processes import own_share, summed


def prune(model: PreTrainedModel, config: PruningConfig, dataloader: Iterable[Mapping[str, Tensor]]) -> PreTrainedModel:
    """Remove heads, feed-forward neurons and layers in one shot, as `DistillationTrainer` does before its first step.

    Saliency is measured by the model's own loss. Make an optimizer afterwards: the parameters are new ones. In a
    process group all processes must call it, each with its share of the batches: all remove the same.

    Args:
        model: The model; it is changed in place.
        config: What is to go, by which saliency.
        dataloader: Batches of its inputs with labels; `config.saliency_examples` are read, over all processes.

    Returns:
        The same model, smaller.

    Raises:
        ValueError: If the model can't be pruned so, the schedule is gradual, there is no batch or one without labels,
            or all parameters are frozen.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import PruningConfig, prune
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> batch = {"input_ids": torch.tensor([[2, 7, 8, 3], [2, 9, 6, 3]]), "labels": torch.tensor([0, 1])}
        >>> prune(model, PruningConfig(head_sparsity=0.5, ffn_sparsity=0.5), [batch])  # doctest: +ELLIPSIS
        BertForSequenceClassification(...)
        >>> model.bert.encoder.layer[0].intermediate.dense.out_features
        32
    """
    if not isinstance(config, PruningConfig):
        raise ValueError(f"config: a {type(config).__name__}; allowed: PruningConfig")
    if config.schedule != "one_shot":
        raise ValueError(
            f"schedule: {config.schedule}, which needs training steps; expected one_shot, or "
            "DistillationTrainer(pruning_config=...)"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        # As a Trainer leaves the teacher that it was given.
        raise ValueError("model: frozen, so it has no gradients; expected after model.requires_grad_(True)")
    check_pruning(model, config, (), None)
    if model is model.base_model:
        raise ValueError(f"model: {type(model).__name__}, without a head; expected: one, since saliency is of its loss")
    to_float_masters(model)
    batches = list(_first(dataloader, config.saliency_examples, model))
    _check_some(batches, "by which saliency is measured")

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        if "labels" not in batch:
            raise ValueError("dataloader: a batch without labels; expected some, since saliency is of the model's loss")
        loss: Tensor = model(**filter_forward_inputs(model, batch), labels=batch["labels"]).loss
        return loss

    problem_type = model.config.problem_type
    prune_one_shot(model, config, lambda: batches, loss_of, lambda: costs_of(model, config))
    model.config.problem_type = problem_type  # which a model without one guesses from the labels it sees
    remember_training(model, training_record([], config, None))
    return model


def quantize(
    model: PreTrainedModel,
    config: QuantizationConfig | None = None,
    dataloader: Iterable[Mapping[str, Tensor]] = (),
) -> PreTrainedModel:
    """Fake-quantise a model and calibrate it, as `DistillationTrainer` does before its first step.

    The result can be exported as it is, by `export_onnx`, or trained on in a loop of one's own. In a process group all
    processes must call it, each with its share of the batches: all get the same ranges, but for provider "inc".

    Args:
        model: The model; its linear layers and tables are swapped in place for ones with the same parameters.
        config: What to quantise; None takes the defaults, INT8. With the provider "inc" Neural Compressor's
            post-training quantisation finds the grids.
        dataloader: Batches of its inputs; `config.calibration_examples` are read, over all processes. Where all is INT4
            or fp32 none are needed, since inputs then have no ranges.

    Returns:
        The same model, fake-quantised.

    Raises:
        ValueError: If model and settings do not fit together, or there is no batch to calibrate on.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import quantize
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> batch = {"input_ids": torch.tensor([[2, 7, 8, 3], [2, 9, 6, 3]])}
        >>> type(quantize(model, dataloader=[batch]).classifier).__name__
        'FakeQuantLinear'
    """
    config = QuantizationConfig() if config is None else config
    if not isinstance(config, QuantizationConfig):
        raise ValueError(f"config: a {type(config).__name__}; allowed: QuantizationConfig")
    to_float_masters(model)
    if odd := not_finite(model):
        raise ValueError(f"model: weights that are NaN or infinite: {odd}; expected: numbers")
    batches = [filter_forward_inputs(model, batch) for batch in _first(dataloader, config.calibration_examples, model)]
    needs_batches = config.provider == "inc"
    if not needs_batches:
        had_ranges = bool(fake_quantized_linears(model))
        prepare_qat(model, config)
        needs_batches = bool(fake_quantized_linears(model)) and not had_ranges
    if needs_batches:
        _check_some(batches, "from which INT8 layers get their inputs' ranges")
    if config.provider == "inc":
        quantize_by_inc(model, config, batches)
    elif needs_batches:
        calibrate(model, batches, lambda batch: model(**batch))
        widen_everywhere(model)
    remember_training(model, training_record([], None, config))
    return model


def _first(
    dataloader: Iterable[Mapping[str, Tensor]], examples: int, model: PreTrainedModel
) -> Iterator[dict[str, Tensor]]:
    """Yield batches, on the model's device, that hold so many examples over all processes."""
    if not isinstance(dataloader, Iterable):
        raise ValueError(f"dataloader: {dataloader!r}; expected: batches of tensors, such as a DataLoader gives")
    for batch in own_share(map(_batch, dataloader), examples):
        yield {name: value.to(model.device) for name, value in batch.items()}


def _batch(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not isinstance(given, Mapping) or not all(isinstance(value, Tensor) for value in given.values()):
        raise ValueError("dataloader: rows instead of batches of tensors; expected: what a DataLoader gives")
    return given


def _check_some(batches: Sequence[Mapping[str, Tensor]], what_for: str) -> None:
    """Refuse a loader that gives no process a batch."""
    if not float(summed(torch.tensor(float(len(batches))))):
        raise ValueError(f"dataloader: no batches; expected some, {what_for}")
