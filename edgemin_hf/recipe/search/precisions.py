"""Which precision does each layer and table of a student get, so that its graph is as small as the recipe asks for?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

from edgemin_hf.data.padding import COUNTED, PaddingCollator
from edgemin_hf.export.graph import size_bytes
from edgemin_hf.export.onnx_graph import write_graph
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.integer import integer_copy
from edgemin_hf.quantization.native import prepare_qat
from edgemin_hf.quantization.precision import names_to_choose
from edgemin_hf.recipe.context import Context
from edgemin_hf.sensitivity.quantization import ModuleSensitivity, Precision, quantization_sensitivity
from edgemin_hf.sensitivity.target_size import meet_size
from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.processes import of_first
from edgemin_hf.utils.records import Record


@dataclass(frozen=True)
class ChosenPrecisions(Record):
    """Precisions that meet a target.

    Attributes:
        precisions: By the modules' names.
        notes: What they come to, in words.
    """

    precisions: dict[str, Precision]
    notes: tuple[str, ...]


def choose_precisions(
    context: Context,
    config: QuantizationConfig,
    student: Callable[[], PreTrainedModel],
    rows: Dataset,
    collator: PaddingCollator,
    batch_size: int,
    work: Path,
) -> ChosenPrecisions:
    """Measure on training rows what quantising each module costs, and choose precisions that meet the target.

    What was chosen before a kill is not chosen again.

    Args:
        context: The recipe at work.
        config: The settings, which have a `target_size_mb`.
        student: Loads the student.
        rows: Training rows.
        collator: What makes batches of them.
        batch_size: Rows of a pass.
        work: Folder for what was chosen.

    Returns:
        The precisions.

    Raises:
        ValueError: If the target can't be met.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from types import SimpleNamespace
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf import QuantizationConfig
        >>> from edgemin_hf.data.padding import PaddingCollator
        >>> from edgemin_hf.recipe.search import choose_precisions
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0}))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> student = BertForSequenceClassification(BertConfig(vocab_size=50, **shape)).eval()
        >>> rows = Dataset.from_dict({"input_ids": [[2, 7, 8, 3]], "attention_mask": [[1, 1, 1, 1]]})
        >>> config, seed = QuantizationConfig(target_size_mb=1.0), SimpleNamespace(seed=0)
        >>> with TemporaryDirectory() as folder:
        ...     context = SimpleNamespace(recipe=seed, output=Path(folder))  # what it reads of a `Context`
        ...     chosen = choose_precisions(
        ...         context, config, lambda: student, rows, PaddingCollator(tokenizer), 1, work=Path(folder)
        ...     )
        >>> chosen.precisions["classifier"]
        'int8'
    """
    file = work / "precisions.json"
    with PartialState().main_process_first():
        if not file.is_file():
            batches = list(_batches(rows, config.calibration_examples, batch_size, collator, context.recipe.seed))
            chosen = _choose(config, student(), batches, context.output)
            write_atomic(file, json.dumps(chosen.to_dict(), indent=2))
    return of_first(ChosenPrecisions.from_dict(json.loads(file.read_text(encoding="utf-8"))))


def _choose(
    config: QuantizationConfig, student: PreTrainedModel, batches: Sequence[dict[str, Tensor]], above: Path
) -> ChosenPrecisions:
    student.to(PartialState().device)
    measured = quantization_sensitivity(student, batches, batches, config).modules
    free = names_to_choose(student, config)
    candidates = [row for row in measured if row.name in free]
    precisions, size = precisions_for_size(student, config, candidates, above)
    chosen = [row for row in candidates if precisions[row.name] == row.precision]
    share = f"{sum(row.precision == 'int4' for row in chosen)} of {len(chosen)} modules in INT4"
    note = f"{share}, for a graph of {size / 1e6:.2f} MB and a summed loss of {sum(row.loss for row in chosen):.1e}"
    return ChosenPrecisions(precisions, (note,))


def _batches(rows: Dataset, count: int, size: int, collator: PaddingCollator, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield the rows that are measured, drawn by the recipe's seed, in batches of like length."""
    rows = rows.shuffle(seed=seed)
    rows = rows.select(range(min(count, len(rows))))
    columns = [name for name in rows.column_names if name in (*collator.tokenizer.model_input_names, COUNTED)]
    examples = sorted(rows.select_columns(columns), key=lambda row: len(row["input_ids"]))
    for start in range(0, len(examples), size):
        yield collator(examples[start : start + size])


def precisions_for_size(
    model: PreTrainedModel, config: QuantizationConfig, modules: Sequence[ModuleSensitivity], above: Path
) -> tuple[dict[str, Precision], int]:
    """Choose precisions with which a model's graph really is as small as asked for.

    The graph with all in INT8 is exported once. With other precisions its size follows by the bytes of weights and
    scales, but for what little its structure changes: it is exported again, and the choice repeated if that was too
    much.

    Args:
        model: The model in full precision; its weights are lost.
        config: The settings, with `target_size_mb`.
        modules: The modules that there is a choice for, as of `quantization_sensitivity`.
        above: A folder in which a graph may stand for a while.

    Returns:
        The precision of each module by name, and the size of the graph, in bytes, as exported before training.

    Raises:
        ValueError: If no precisions are small enough.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import QuantizationConfig
        >>> from edgemin_hf.recipe.search import precisions_for_size
        >>> from edgemin_hf.sensitivity import quantization_sensitivity
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape)).eval()
        >>> batch, config = {"input_ids": torch.tensor([[2, 7, 8, 3]])}, QuantizationConfig(target_size_mb=1.0)
        >>> modules = quantization_sensitivity(model, [batch], [batch]).modules
        >>> with TemporaryDirectory() as folder:
        ...     precisions, size = precisions_for_size(model, config, modules, Path(folder))
        >>> set(precisions.values()), size < 1e6
        ({'int8'}, True)
    """
    assert config.target_size_mb is not None  # noqa: S101 - the stage's
    # The exporter stores equal tensors once, and training makes them differ. The ranges stay equal: of two equal
    # numbers the second is a node of its own, which takes more bytes than the number.
    generator = torch.Generator().manual_seed(0)
    for parameter in model.cpu().parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator)
    precisions: dict[str, Precision] = {row.name: "int8" for row in modules}
    real = int8 = _graph_bytes(model, config, precisions, above)
    while real > 1e6 * config.target_size_mb:
        before, precisions = precisions, meet_size(modules, int8, config.target_size_mb)
        if precisions == before:
            least = f"{ceil(real / 1e3) / 1e3:.3f} or more, the size with all in INT4 that can be"
            raise ValueError(f"target_size_mb: {config.target_size_mb:g}; allowed: {least}")
        lowered = [row for row in modules if row.precision == precisions[row.name] == "int4"]
        predicted = int8 - sum(row.saved_bytes["int8"] for row in lowered)
        real = _graph_bytes(model, config, precisions, above)
        int8 += max(real - predicted, 0)
    return precisions, real


def _graph_bytes(
    model: PreTrainedModel, config: QuantizationConfig, precisions: Mapping[str, Precision], above: Path
) -> int:
    overrides = {**config.overrides, **precisions}
    prepare_qat(model, replace(config, overrides=overrides, target_size_mb=None))
    with TemporaryDirectory(dir=above) as folder:
        graph = Path(folder) / "onnx" / "graph.onnx"
        write_graph(integer_copy(model), graph)
        return size_bytes(graph)
