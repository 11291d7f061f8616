"""INT8 quantisation-aware training by Intel Neural Compressor (INC) 3.7: its fake quantisers, in our modules.

INC chooses the fake quantisers of every linear layer, by its own module swap on a copy of the model. They train where
the layers are: names, shapes and forward pass of the model stay, so checkpoints hold no tensor twice, any attention
implementation serves, and dropout still ends with training. Inputs: uint8 0..255 by tensor. Weights: int8 -64..64
(without `reduce_range` -128..127), symmetric by row. Both by moving averages of the extremes. INC is imported when it
is asked for, never before.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.neural_compressor.guest import importing_inc, write_inc_config
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.native import (
    FakeQuantLinear,
    fake_quantized_linears,
    linear_integers,
    prepare_embeddings,
)
from edgemin_hf.quantization.precision import precisions

if TYPE_CHECKING:
    from neural_compressor import QuantizationAwareTrainingConfig
    from torch.ao.quantization import QConfig


class IncLinear(FakeQuantLinear):
    """A linear layer on the grids that INC's fake quantisers learn; for all who read it a `FakeQuantLinear`.

    Args:
        linear: The layer; its parameters stay the same objects.
        qconfig: What INC's module swap gave it.
        momentum: Share of a training batch's range in the running range of the input.
        reduce_range: Whether its weights use 7 bits, -64..64.
    """

    def __init__(self, linear: nn.Linear, qconfig: QConfig, momentum: float, reduce_range: bool = False) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.momentum = momentum
        self.observing = True
        self.register_parameter("range_factors", None)
        self.weight_integers = linear_integers(reduce_range)
        least, largest = self.weight_integers
        # INC narrows inputs to 7 bits where the processor that trains lacks VNNI; the one that will run it counts, and
        # 7 bits of the weights serve as well.
        self.input_quantizer = qconfig.activation(reduce_range=False, averaging_constant=momentum)
        self.weight_quantizer = qconfig.weight(quant_min=least, quant_max=largest)
        self.to(linear.weight.device).train(linear.training)
        with torch.no_grad():
            self.weight_quantizer(self.weight)  # its first look, which also gives its state the shape that is saved

    def forward(self, input: Tensor) -> Tensor:
        """Compute the layer on the grids of its input and of its weight."""
        for quantizer in (self.input_quantizer, self.weight_quantizer):
            quantizer.enable_observer(self.training and self.observing)
        return F.linear(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)

    def widen_range(self, input: Tensor) -> None:
        """Widen the input's range until it holds every value of `input`: calibration."""
        quantizer, (low, high) = self.input_quantizer, torch.aminmax(input)
        observer = quantizer.activation_post_process
        observer.min_val.copy_(torch.minimum(observer.min_val, low))
        observer.max_val.copy_(torch.maximum(observer.max_val, high))
        scale, zero_point = quantizer.calculate_qparams()
        quantizer.scale.copy_(scale)
        quantizer.zero_point.copy_(zero_point)

    @property
    def input_low(self) -> Tensor:
        """The least value of the input's grid, ()."""
        return self._bounds()[0]

    @property
    def input_high(self) -> Tensor:
        """The largest value of the input's grid, ()."""
        return self._bounds()[1]

    def _bounds(self) -> tuple[Tensor, Tensor]:
        quantizer = self.input_quantizer
        return grid_bounds(quantizer.scale.squeeze(), quantizer.zero_point.squeeze())

    @property
    def weight_scale(self) -> Tensor:  # type: ignore[override]
        """Scale of the weight's rows (out_features, 1)."""
        return self.weight_quantizer.scale[:, None]

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        if f"{prefix}input_quantizer.scale" not in state_dict:  # a Trainer that resumes would merely warn
            raise ValueError(
                f"resume_from_checkpoint: has no state of INC for {prefix.rstrip('.')}; allowed: a checkpoint of a "
                "training with provider inc"
            )
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args, **kwargs)


def own_settings(config: QuantizationConfig | QuantizationAwareTrainingConfig) -> QuantizationConfig:
    """Return what an INC configuration asks for in our words; ours as it is.

    Raises:
        ValueError: If it is no such configuration, or asks for inputs of 7 bits.
    """
    if isinstance(config, QuantizationConfig):
        return config
    if not isinstance(config, _import_inc().config):
        raise ValueError(
            f"quantization_config: a {type(config).__name__}; allowed: QuantizationConfig, or Neural Compressor's "
            "QuantizationAwareTrainingConfig"
        )
    if config.reduce_range:
        raise ValueError("reduce_range: True; allowed: None: 7 bits of weights and 8 of inputs, or False: 8 of both")
    embedding = (config.op_type_dict or {}).get("Embedding", {}).get("weight", {}).get("dtype")
    embeddings: Literal["fp32", "int8"] = "fp32" if embedding == ["fp32"] else "int8"
    return QuantizationConfig(provider="inc", embeddings=embeddings, reduce_range=config.reduce_range is None)


def check_precision(args: TrainingArguments) -> None:
    """Check that training computes in fp32.

    Raises:
        ValueError: If not.
    """
    for name in ("bf16", "fp16"):
        if getattr(args, name):
            raise ValueError(f"{name}: True; allowed: False, since Neural Compressor's fake quantisers take fp32 alone")


def prepare_inc(model: PreTrainedModel, config: QuantizationConfig | QuantizationAwareTrainingConfig) -> None:
    """Give a model's linear layers, in place, INC's fake quantisers, and its embeddings ours; before an optimizer.

    Args:
        model: The model; its parameters stay the same objects. What is prepared, or finished, stays as it is.
        config: What to quantise: our settings, or INC's own, of which the layers that it excludes are heeded.

    Raises:
        ValueError: If the model is not plain and fp32, `overrides` do not fit it or ask for INT4 layers, INC leaves a
            linear layer as it is that is to be INT8, or it is not installed.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import QuantizationConfig
        >>> from edgemin_hf.neural_compressor import prepare_inc
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> prepare_inc(model, QuantizationConfig(provider="inc"))
        >>> type(model.classifier).__name__, model(torch.tensor([[2, 7, 8, 3]])).logits.shape
        ('IncLinear', torch.Size([1, 2]))
    """
    settings = own_settings(config)
    prepared = fake_quantized_linears(model)
    if any(linear.weight_scale is None for linear in prepared):
        raise ValueError("model: quantised already, not by Neural Compressor; allowed: a plain one")
    if prepared:
        return
    if model.dtype != torch.float32:
        raise ValueError(f"model: of {model.dtype}; allowed: torch.float32")
    names = {module: name for name, module in model.named_modules()}
    wanted = precisions(model, settings)
    linears = [found for found in Encoder(model).linears() if wanted[found[2]] == "int8"]
    qconfigs = _qconfigs(model, config)
    left = [names[linear] for _, _, linear in linears if names[linear] not in qconfigs]
    if left:
        raise ValueError(
            f"{', '.join(left)} of model type {model.config.model_type!r}: not quantised by Neural Compressor; "
            "allowed: plain linear layers, none of them fp32 by op_type_dict or op_name_dict, but by our overrides"
        )
    for parent, name, linear in linears:
        made = IncLinear(linear, qconfigs[names[linear]], settings.range_momentum, settings.reduce_range)
        setattr(parent, name, made)
    prepare_embeddings(model, settings)


def finish_inc(model: PreTrainedModel) -> None:
    """Read what INC learned into plain `FakeQuantLinear` layers, in place: what native training would leave.

    INC's own end of training, which converts to PyTorch's int8 kernels, is not used.

    Args:
        model: A model after `prepare_inc` and training; any other stays as it is.

    Raises:
        ValueError: If a layer has seen no input.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import QuantizationConfig
        >>> from edgemin_hf.neural_compressor import finish_inc, prepare_inc
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> prepare_inc(model, QuantizationConfig(provider="inc"))
        >>> _ = model(input_ids=torch.tensor([[2, 7, 8, 3]]))  # a training
        >>> finish_inc(model)
        >>> type(model.classifier).__name__
        'FakeQuantLinear'
    """
    names = {module: name for name, module in model.named_modules()}
    for parent, name, linear in list(Encoder(model).linears()):
        if not isinstance(linear, IncLinear):
            continue
        if linear.input_quantizer.activation_post_process.min_val.isinf():
            raise ValueError(f"{names[linear]}: has seen no input; allowed: after training, or calibration")
        made = FakeQuantLinear(linear, linear.momentum)
        made.weight_integers = linear.weight_integers
        made.input_low.copy_(linear.input_low)
        made.input_high.copy_(linear.input_high)
        made.weight_scale = linear.weight_scale.clone()
        made.observing = linear.observing
        setattr(parent, name, made.train(linear.training))


def save_inc_config(config: QuantizationConfig | QuantizationAwareTrainingConfig, folder: str | Path) -> None:
    """Write `inc_config.json`, which Optimum Intel's INCTrainer puts beside a model, with its class.

    Args:
        config: What the model was trained by.
        folder: The model's folder.
    """
    inc = _import_inc()
    write_inc_config(folder, quantization=inc.config() if isinstance(config, QuantizationConfig) else config)


def grid_bounds(scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
    """Return the range, () each, from which `input_grid` makes the same zero point, and the same scale to rounding."""
    width = 255 * scale
    # All on the float grid of the width, where their differences are exact.
    low = -((width + zero_point * scale) - width)
    return low, width + low


def _qconfigs(
    model: PreTrainedModel, config: QuantizationConfig | QuantizationAwareTrainingConfig
) -> dict[str, QConfig]:
    """Return, by the name of each linear layer that INC quantises, what makes its fake quantisers."""
    inc = _import_inc()
    # On a copy: INC puts traced modules instead of the model's, in which conditions and dropout stay as they were.
    swapped = copy.deepcopy(model)
    names = {id(m.weight): name for name, m in swapped.named_modules() if isinstance(m, nn.Linear)}
    asked = inc.config() if isinstance(config, QuantizationConfig) else copy.deepcopy(config)
    try:
        with torch.random.fork_rng():  # INC seeds PyTorch
            manager = inc.prepare(swapped, asked)
            manager.callbacks.on_train_begin()
    except Exception as error:  # of whatever type: it comes from the tracing of foreign code
        raise ValueError(
            f"model type {model.config.model_type!r}: Neural Compressor can't trace it ({error}); allowed: models of "
            "plain linear layers"
        ) from error
    modules = manager.model.model.modules()
    return {names[id(m.weight)]: m.qconfig for m in modules if isinstance(m, inc.linear) and id(m.weight) in names}


def _import_inc() -> SimpleNamespace:
    with importing_inc("provider: inc"):
        from neural_compressor import QuantizationAwareTrainingConfig, training
        from torch.ao.nn.qat import Linear
    return SimpleNamespace(config=QuantizationAwareTrainingConfig, prepare=training.prepare_compression, linear=Linear)
