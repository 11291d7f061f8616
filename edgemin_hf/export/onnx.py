"""Export to ONNX: full precision and, after quantisation-aware training, INT8 or INT4, all checked against PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.export.base import Target, TrainedModel
from edgemin_hf.export.checkpoint import CheckpointTarget
from edgemin_hf.export.derived import FixedShapeTarget, OpenVinoTarget
from edgemin_hf.export.fidelity import SAMPLE_TEXTS, float_copy
from edgemin_hf.export.manifest import Fidelity, Manifest, ManifestEntry
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH, Fp32Target
from edgemin_hf.export.onnx_graph import onnx_entry, write_graph
from edgemin_hf.export.onnx_quantized import INT8_GRAPH, FusedTarget, QuantizedTarget
from edgemin_hf.export.ort_config import write_dynamic_ort_config
from edgemin_hf.export.outputs import TEXTS
from edgemin_hf.export.ptq import quantize_dynamic
from edgemin_hf.modeling.families import family_of
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.masters import is_half
from edgemin_hf.modeling.tokenizers import fitted, load_tokenizer
from edgemin_hf.quantization.integer import plain_copy
from edgemin_hf.runtime.artefact import FORMAT, MANIFEST, NO_READING, Reading
from edgemin_hf.runtime.contexts import SHORTEST
from edgemin_hf.tasks.base import Task
from edgemin_hf.tasks.known import TASKS, task_of
from edgemin_hf.utils.atomic_files import atomic_folder, check_writable_folder
from edgemin_hf.utils.extras import check_extra

TARGETS: tuple[Target, ...] = (
    CheckpointTarget(), Fp32Target(), QuantizedTarget(), FusedTarget(), FixedShapeTarget(), OpenVinoTarget(),
)  # fmt: skip
"""What an export writes, in this order, which is that of the manifest and of all tables."""


@dataclass(frozen=True)
class Export:
    """What an export made.

    Attributes:
        folder: The folder, with the PyTorch model, its tokenizer and the graphs.
        manifest: What stands in it, with the outcome of each graph's check.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.export import Export, Fidelity, Manifest, ManifestEntry
        >>> checked = {"fidelity": Fidelity(error=2e-7, floor=1e-7, limit=4e-7, examples=16)}
        >>> entry = ManifestEntry("onnx/model.onnx", "onnxruntime", "fp32", 4096, "0" * 64, parameters=1000, **checked)
        >>> made = Export(Path("edge"), Manifest(1, "text_classification", "text-classification", (), (entry,)))
        >>> made.fp32.examples, made.int8
        (16, None)
    """

    folder: Path
    manifest: Manifest

    @property
    def fp32(self) -> Fidelity:
        """Outcome of the check of `onnx/model.onnx`."""
        fidelity = self._fidelity("fp32")
        assert fidelity is not None  # noqa: S101 - every export has this graph
        return fidelity

    @property
    def int8(self) -> Fidelity | None:
        """Outcome of the check of `onnx/model_quantized.onnx`; None where the linear layers are not INT8."""
        return self._fidelity("int8")

    @property
    def int4(self) -> Fidelity | None:
        """Outcome of the check of `onnx/model_q4.onnx`; None where they are not INT4."""
        return self._fidelity("int4")

    def _fidelity(self, precision: str) -> Fidelity | None:
        entry = self.manifest.entry("onnxruntime", precision)
        return None if entry is None else entry.fidelity


def export_onnx(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: str | Path,
    *,
    texts: Sequence[Text] = SAMPLE_TEXTS,
    task: type[Task] | None = None,
    max_length: int | None = None,
    fused_attention: bool = False,
    fixed_shape: tuple[int, int] | None = None,
    openvino: bool = False,
) -> Export:
    """Export a model to a folder that Optimum, ONNX Runtime and `transformers` load.

    The folder holds `config.json`, the tokenizer, `model.safetensors` (full precision), `onnx/model.onnx` and, for a
    model after quantisation-aware training, `onnx/model_quantized.onnx` where its linear layers are INT8, or
    `onnx/model_q4.onnx` where they are INT4, with Optimum's `ort_config.json`; embeddings are as they were trained.
    Batch and length are dynamic. `edgemin.json` lists what was written, with what runs it and what it should answer. A
    folder that is there already is replaced once the new one is complete and checked.

    Args:
        model: A plain model, or one with the fake-quantised modules of `DistillationTrainer`; it stays as it is. One in
            half precision is exported in float32.
        tokenizer: Its tokenizer. What is saved gives the tensors that the model takes, and tells the length that it can
            read.
        output: The folder to write.
        texts: Real texts, or pairs of texts, on which the graphs are checked against the PyTorch model.
        task: The task, for the manifest; None takes the one that the model has a head for.
        max_length: Tokens of the longest text that it will be given, on which the graphs are checked too; None takes
            what model and tokenizer allow.
        fused_attention: Whether a quantised model gets a second graph (`onnx/model_quantized_fused.onnx`) in operators
            that ONNX Runtime has from 1.24 on, attention as one node among them: the same numbers in about three
            quarters of the time.
        fixed_shape: Texts and tokens of a further graph, such as `onnx/model_quantized_1x128.onnx`, that takes no other
            shape, as NPUs want it; None makes none.
        openvino: Whether the quantised graph, or else that in full precision, is written in OpenVINO's format too
            (`openvino/openvino_model.xml`), by the package openvino.

    Returns:
        What was made and how exactly it computes what the model computes.

    Raises:
        FidelityError: If a graph differs from the PyTorch model by more than rounding; nothing is written then.
        ValueError: If `output` holds something else than an export, the model's family is not known, the tokenizer is
            not the model's, it can't read `fixed_shape`, or openvino is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf import export_onnx
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=3, **shape)).eval()
        >>> with TemporaryDirectory() as above:
        ...     export = export_onnx(model, tokenizer, f"{above}/edge", texts=["card", "card card"])
        >>> export.manifest.files
        ['model.safetensors', 'onnx/model.onnx']
        >>> export.fp32.error <= export.fp32.limit
        True
    """
    _check_given(model, tokenizer, texts)
    output = Path(output).resolve()
    check_writable_folder(output)
    # A graph alone makes no export of it: many a repository of others has an `onnx/model.onnx`.
    if output.exists() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise ValueError(f"output: {output}, which holds other things; allowed: a new folder, or one of an export")
    family_of(model.config)
    tokenizer = fitted(tokenizer, model.config)
    if is_half(model):
        model = float_copy(model)
    check_derived(fixed_shape, openvino, int(tokenizer.model_max_length))
    trained = TrainedModel(
        model, plain_copy(model), tokenizer, texts, max_length, fused_attention, fixed_shape, openvino
    )
    with atomic_folder(output) as folder:
        tokenizer.save_pretrained(folder)
        entries = [entry for target in TARGETS for entry in target.write(trained, folder)]
        if task is None and model is not model.base_model:
            task = task_of(model)
        manifest = _manifest(entries, task, Reading(max_length=max_length)).listing(folder)
        manifest.write(folder)
    return Export(output, manifest)


def _check_given(model: object, tokenizer: object, texts: Sequence[object]) -> None:
    """Check that an export is given a model with a head that a task knows, a tokenizer and texts; ValueError if not."""
    for name, given, kind in (("model", model, PreTrainedModel), ("tokenizer", tokenizer, PreTrainedTokenizerBase)):
        if not isinstance(given, kind):
            raise ValueError(f"{name}: {str(given)[:80]!r}; expected: a {name} that is loaded")
    if isinstance(texts, str):
        raise ValueError(f"texts: {texts[:80]!r}; expected: a list of texts")
    odd = [text for text in texts if not isinstance(text, str | tuple)]
    if odd:
        raise ValueError(f"texts: {odd[0]!r} among them; expected: texts, or pairs of texts as tuples")
    heads = dict.fromkeys(task.auto_class.__name__.removeprefix("AutoModel") for task in TASKS.values())
    if model is not getattr(model, "base_model", None) and not type(model).__name__.endswith(tuple(heads)):
        raise ValueError(f"model: {type(model).__name__}; allowed: a ...{', ...'.join(heads)}, or without a head")


def check_derived(fixed_shape: tuple[int, int] | None, openvino: bool, longest: int) -> None:
    """Check what further graphs are asked for, of a model that reads `longest` tokens; ValueError if not."""
    if fixed_shape is not None and not (fixed_shape[0] >= 1 and SHORTEST <= fixed_shape[1] <= longest):
        told = f"batch, length: {fixed_shape[0]}, {fixed_shape[1]}"
        raise ValueError(f"{told}; allowed: 1 or more, {SHORTEST} to {longest}")
    if openvino:
        check_extra("openvino", "openvino: true", "openvino")


def export_baseline(model: str | Path, output: str | Path, task: type[Task] | None = None) -> Manifest:
    """Export a model as anybody would in a minute: the fp32 graph, and dynamic INT8 by ONNX Runtime.

    INT8 has the settings of Optimum's AVX512-VNNI preset. Beside the graphs lie the configuration and the tokenizer.

    Args:
        model: Folder of a model with its tokenizer.
        output: Folder for `onnx/model.onnx`, `onnx/model_quantized.onnx` and `edgemin.json`.
        task: The task; None takes the one that the model has a head for.

    Returns:
        What stands in `edgemin.json`; the graphs are not checked.
    """
    task = task or task_of(AutoConfig.from_pretrained(model))
    tokenizer = load_tokenizer(model)
    loaded = load_pruned(model, task.auto_class, attn_implementation="eager", dtype=torch.float32)
    with atomic_folder(Path(output)) as folder:
        write_graph(loaded, folder / FP32_GRAPH, tokenizer, tied=False)
        quantize_dynamic(folder / FP32_GRAPH, folder / INT8_GRAPH)
        for part in (loaded.config, tokenizer):
            part.save_pretrained((folder / FP32_GRAPH).parent)
        write_dynamic_ort_config((folder / INT8_GRAPH).parent)
        made = {"fp32": FP32_GRAPH, "int8": INT8_GRAPH}
        entries = [onnx_entry(folder, file, precision, tokenizer) for precision, file in made.items()]
        manifest = _manifest(entries, task)
        manifest.write(folder)
    return manifest


def _manifest(entries: Sequence[ManifestEntry], task: type[Task] | None, reading: Reading = NO_READING) -> Manifest:
    """Return the manifest of a model for a task; without one it gives hidden states."""
    name, tag = ("feature_extraction", "feature-extraction") if task is None else (task.type, task.pipeline_tag)
    return Manifest(FORMAT, name, tag, TEXTS, tuple(entries), reading)
