"""Loading a model that quantisation-aware training saved, as it was trained."""

from __future__ import annotations

from os import PathLike

from safetensors.torch import load_model
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.native import prepare_qat
from edgemin_hf.utils.edgemin_config import EDGEMIN_CONFIG, EdgeminConfig


def load_quantized(
    model: str | PathLike[str], auto_class: AutoClass = AutoModelForSequenceClassification
) -> PreTrainedModel:
    """Load a fake-quantised model that `DistillationTrainer` saved: it predicts what the trained one did, bit for bit.

    Its linear layers and tables are those of quantisation-aware training, with their ranges, so it can be exported or
    trained on. That of Neural Compressor's quantisation loads alike, without Neural Compressor.

    Args:
        model: Folder or Hub id.
        auto_class: The `AutoModel...` class of its head.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If it holds no quantised model.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from safetensors.torch import save_model
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import EdgeminConfig, QuantizationConfig, load_quantized, quantize
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> config = QuantizationConfig(weights="int4")
        >>> model = quantize(BertForSequenceClassification(BertConfig(vocab_size=50, **shape)), config)
        >>> training = {"distillation": [], "pruning": None, "quantization": config.to_dict()}
        >>> with TemporaryDirectory() as folder:  # as `DistillationTrainer.save_model` does
        ...     model.save_pretrained(folder)
        ...     EdgeminConfig(trainings=[training]).save_pretrained(folder)
        ...     type(load_quantized(folder).classifier).__name__
        'FakeInt4Linear'
    """
    settings = EdgeminConfig.from_pretrained(model).quantization
    if settings is None:
        raise ValueError(f"{model}: expected a quantised model, but its {EDGEMIN_CONFIG} tells of none")
    loaded = load_pruned(model, auto_class)
    prepare_qat(loaded, QuantizationConfig.from_dict(settings))
    try:
        load_model(loaded, str(cached_file(str(model), SAFE_WEIGHTS_NAME)))
    except RuntimeError as error:  # of names that are missing, such as those of ranges
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{model}: expected the weights of a quantised model, found others ({reason})") from error
    return loaded
