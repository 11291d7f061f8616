"""Static post-training quantisation of a graph by Optimum, from a few texts: the baseline beside its dynamic INT8."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.export.exporter import quiet_exporter


def quantize_static(graph: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], output: Path) -> None:
    """Quantise a float graph as anybody would with Optimum: static INT8, min-max ranges (AVX512-VNNI preset).

    Weights are int8 by channel. Activations are uint8 by tensor, in the range that they have on `texts`, wherever the
    preset's operators read them: in linear layers, attention's two products, LayerNorms and embeddings.

    Args:
        graph: An fp32 ONNX file, such as `export_baseline` writes.
        tokenizer: The model's tokenizer.
        texts: Texts, or pairs of texts, to calibrate on, cut after 128 tokens; nothing of them is padded.
        output: The file to write.

    Raises:
        ValueError: If there are no texts.
    """
    if not texts:
        raise ValueError("texts: none; allowed: 1 or more, which the ranges of the activations are taken from")
    longest = min(128, tokenizer.model_max_length)
    rows = [dict(tokenizer(*_parts(text), truncation=True, max_length=longest)) for text in texts]
    with tempfile.TemporaryDirectory() as scratch, quiet_exporter():
        quantizer = ORTQuantizer(graph)
        examples = quantizer.clean_calibration_dataset(Dataset.from_list(rows))
        preset = AutoQuantizationConfig.avx512_vnni(is_static=True, per_channel=True)
        ranges = quantizer.fit(
            examples,
            AutoCalibrationConfig.minmax(examples),
            onnx_augmented_model_name=Path(scratch) / "augmented.onnx",
            operators_to_quantize=preset.operators_to_quantize,
        )
        quantizer.quantize(preset, scratch, calibration_tensors_range=ranges)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(scratch) / f"{graph.stem}_quantized.onnx", output)


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text
