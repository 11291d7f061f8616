"""`edgemin sensitivity`: where a fine-tuned model can be cut or quantised, measured on labelled rows, untrained."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import DataCollatorWithPadding, PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from edgemin_hf.benchmark.rows import Score
from edgemin_hf.data.tables import read_table
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.hub.configs import load_config
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.families import first_position
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.loading import configured_for, load_pruned
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.pruning.saliency import MEASURES, Batches, Loss, Saliency, random_saliency
from edgemin_hf.sensitivity.figures import draw_heat_map, draw_sensitivity_curves
from edgemin_hf.sensitivity.page import render_page
from edgemin_hf.sensitivity.pruning import Cut, cuts_of, predict_with_cuts
from edgemin_hf.sensitivity.quantization import ModuleSensitivity, quantization_sensitivity
from edgemin_hf.sensitivity.quantization_figure import draw_modules
from edgemin_hf.sensitivity.records import CutRow, ModuleRow, SensitivityRecord
from edgemin_hf.tasks.known import TASKS, task_of, task_type
from edgemin_hf.tasks.metrics import METRICS, Answers
from edgemin_hf.tasks.text import TextTask
from edgemin_hf.utils.atomic_files import atomic_folder
from edgemin_hf.utils.hardware import environment

SALIENCIES = (*MEASURES, "random")
MEASURED = ("pruning", "quantization")
NUMBERS, HEAT_MAP, CURVES, MODULES, PAGE = FILES = (
    "sensitivity.json", "sensitivity.svg", "curves.svg", "quantization.svg", "sensitivity.html",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SensitivitySettings:
    """What is measured, and on which rows.

    Attributes:
        model: Folder or Hub id of a fine-tuned sequence classifier.
        train: Table whose rows tell the saliency, and the ranges of the inputs that are quantised.
        data: Table whose rows are measured; another than `train`.
        output: Folder for the result.
        measure: What is measured: "pruning" (cuts), "quantization" (modules on their grids), or both.
        text_column: As in `TextTask`; likewise `text_pair_column`, `label_column`, `metric`, `max_length`.
        label_columns: As in `MultiLabel`; None where labels stand in one column.
        examples: Number of rows of `data` that are drawn to be measured; 0 takes all.
        saliency_examples: Number of rows of `train` that are drawn for the saliency and the ranges.
        saliency: By what the units that go first are chosen: "taylor", "taylor_weights", "fisher" or "random".
        sparsities: Shares of units, above 0 to 1.
        batch_size: Rows of a pass.
        threads: Threads of PyTorch.
        seed: Seed of the two draws and of random saliency.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.sensitivity import SensitivitySettings
        >>> files = {"model": "me/model", "train": Path("train.csv"), "data": Path("dev.csv"), "output": Path("costs")}
        >>> columns = {"text_column": "text", "text_pair_column": None, "label_column": "label", "label_columns": None}
        >>> size = {"max_length": 128, "examples": 0, "saliency_examples": 256, "batch_size": 32, "threads": 1}
        >>> how = {"measure": ["pruning"], "saliency": "taylor", "sparsities": [0.25, 0.5], "seed": 0}
        >>> SensitivitySettings(**files, **columns, **size, **how, metric="accuracy").task.type
        'text_classification'
    """

    model: str
    train: Path
    data: Path
    output: Path
    measure: list[str]
    text_column: str
    text_pair_column: str | None
    label_column: str
    label_columns: list[str] | None
    metric: str
    max_length: int
    examples: int
    saliency_examples: int
    saliency: str
    sparsities: list[float]
    batch_size: int
    threads: int
    seed: int

    def __post_init__(self) -> None:
        least = {"examples": 0, "saliency_examples": 1, "batch_size": 1, "threads": 1, "seed": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: {lowest} or more")
        if not self.measure or not set(self.measure) <= set(MEASURED):
            allowed = f"{', '.join(MEASURED)}, one of them or the two"
            raise ValueError(f"measure: {' '.join(self.measure)}; allowed: {allowed}")
        if self.saliency not in SALIENCIES:
            raise ValueError(f"saliency: {self.saliency}; allowed: {', '.join(SALIENCIES)}")
        for share in self.sparsities:
            if not 0 < share <= 1:
                raise ValueError(f"sparsities: {share:g}; allowed: shares above 0 to 1")
        if len(set(self.sparsities)) < len(self.sparsities):
            raise ValueError(f"sparsities: {' '.join(f'{s:g}' for s in self.sparsities)}; allowed: each share once")
        if self.train.resolve() == self.data.resolve():
            raise ValueError(f"data: {self.data}, which is train too; allowed: rows that chose nothing")
        if self.output.exists() and not (
            self.output.is_dir() and {path.name for path in self.output.iterdir()} <= set(FILES)
        ):
            raise ValueError(f"output: {self.output}, which holds something else; allowed: a new folder")
        above = next(folder for folder in self.output.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise ValueError(f"output: {self.output}, which can't be made in {above}; allowed: a new folder")

    @property
    def task(self) -> TextTask:
        """The task, told by the metric and the columns."""
        names = ["text_column", "text_pair_column", "label_column", "metric", "max_length"]
        if self.label_columns is not None:
            names.append("label_columns")
        columns = {name: getattr(self, name) for name in names}
        kind = "multi_label" if self.label_columns is not None else task_type(columns)
        return TASKS[kind](str(self.train), str(self.data), **columns)


def run_sensitivity(settings: SensitivitySettings) -> SensitivityRecord:
    """Measure a model's sensitivity and write numbers, pictures and a page, all of them or nothing.

    Args:
        settings: What is measured.

    Returns:
        What `sensitivity.json` holds.

    Raises:
        ValueError: If a file or the model does not fit; before weights are loaded.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf.sensitivity import SensitivitySettings, run_sensitivity
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2, "phone": 3}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> columns = {"text_column": "text", "text_pair_column": None, "label_column": "label", "label_columns": None}
        >>> size = {"max_length": 128, "examples": 0, "saliency_examples": 2, "batch_size": 2, "threads": 1, "seed": 0}
        >>> how = {"measure": ["pruning"], "saliency": "taylor", "sparsities": [0.5], "metric": "accuracy"}
        >>> with TemporaryDirectory() as folder:
        ...     BertForSequenceClassification(BertConfig(vocab_size=4, **shape)).save_pretrained(folder)
        ...     _ = tokenizer.save_pretrained(folder)
        ...     files = {name: Path(folder, f"{name}.csv") for name in ("train", "data")}
        ...     for file in files.values():
        ...         _ = file.write_text(chr(10).join(["text,label", "card,LABEL_0", "phone,LABEL_1"]))
        ...     places = {"model": folder, "output": Path(folder, "costs"), **files}
        ...     result = run_sensitivity(SensitivitySettings(**places, **columns, **size, **how))
        >>> result.base.n, sorted({row.kind for row in result.measurements})
        (2, ['heads', 'layers', 'neurons'])
    """
    task = settings.task
    config = _checked(settings, task)
    tokenizer = load_tokenizer(resolve_checkpoint(settings.model, weights=False).path, config)
    train = _rows(settings.train, settings.saliency_examples, settings, tokenizer, config.label2id)
    data = _rows(settings.data, settings.examples, settings, tokenizer, config.label2id)
    torch.set_num_threads(settings.threads)
    model = load_pruned(resolve_checkpoint(settings.model).path, task.auto_class).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    result = _measure(model, task, settings, _batches(train, settings, tokenizer), _batches(data, settings, tokenizer))
    pictures: dict[str, str] = {}
    if result.measurements:
        pictures |= {HEAT_MAP: draw_heat_map(result), CURVES: draw_sensitivity_curves(result)}
    if result.quantization:
        pictures[MODULES] = draw_modules(result)
    with atomic_folder(settings.output.absolute()) as folder:
        page = render_page(settings.model, result, *(pictures.get(name) for name in (HEAT_MAP, CURVES, MODULES)))
        numbers = json.dumps(result.to_dict(), indent=2) + "\n"
        for name, text in {NUMBERS: numbers, **pictures, PAGE: page}.items():
            (folder / name).write_text(text, encoding="utf-8")
    return result


def _checked(settings: SensitivitySettings, task: TextTask) -> PretrainedConfig:
    """Check files and model against each other, without weights; return the model's configuration."""
    config = load_config(settings.model)
    if not configured_for(config, task.auto_class):
        raise ValueError(f"model: {settings.model}, without a classification head; allowed: a fine-tuned classifier")
    if not task.compatible(config):
        allowed = [name for name, metric in METRICS.items() if metric.answer == task_of(config).answer]
        raise ValueError(
            f"metric: {task.metric} for a model of {config.num_labels} label(s) and problem_type "
            f"{config.problem_type}; allowed: {', '.join(allowed)}"
        )
    if task.metric == "f1" and config.num_labels != 2:
        raise ValueError(f"metric: f1 for a model of {config.num_labels} labels; allowed: another, or two labels")
    longest = config.max_position_embeddings - first_position(config)
    if task.max_length > longest:
        raise ValueError(f"max_length: {task.max_length}; allowed: 3 to {longest}, the model's positions")
    for name in ("train", "data"):
        try:
            task.check_table(getattr(settings, name), config)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return config


def _rows(
    file: Path, count: int, settings: SensitivitySettings, tokenizer: Tokenizer, labels: Mapping[str, int]
) -> Dataset:
    """Read, draw and tokenise rows; the longest come first, so that what does not fit in memory fails at once."""
    table = read_table(file)
    if 0 < count < len(table):
        table = table.select(np.random.default_rng(settings.seed).permutation(len(table))[:count])
    rows = settings.task.tokenized(table, tokenizer, labels)
    return rows.select(np.argsort([-len(ids) for ids in rows["input_ids"]], kind="stable"))


def _batches(rows: Dataset, settings: SensitivitySettings, tokenizer: Tokenizer) -> list[dict[str, Tensor]]:
    collate = DataCollatorWithPadding(tokenizer)
    kept = rows.select_columns([n for n in rows.column_names if n in {*tokenizer.model_input_names, "labels"}])
    starts = range(0, len(kept), settings.batch_size)
    return [collate(list(kept.select(range(i, min(i + settings.batch_size, len(kept)))))) for i in starts]


def _measure(
    model: PreTrainedModel,
    task: TextTask,
    settings: SensitivitySettings,
    train: list[dict[str, Tensor]],
    data: list[dict[str, Tensor]],
) -> SensitivityRecord:
    def logits_of(batch: Mapping[str, Tensor]) -> Tensor:
        return model(
            **{name: value.to(model.device) for name, value in filter_forward_inputs(model, batch).items()}
        ).logits.float()

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        labels, logits = batch["labels"].to(model.device), logits_of(batch)
        return task.hard_loss(logits, labels)

    labels = np.concatenate([batch["labels"].numpy() for batch in data])
    measurements: list[CutRow] = []
    modules: list[ModuleRow] = []

    def change(predictions: Answers, base: float) -> dict[str, float]:
        value = float(METRICS[task.metric].compute(labels, predictions))
        return {"value": value, "change": value - base}

    if "pruning" in settings.measure:
        cuts = cuts_of(model, sorted(settings.sparsities))
        unpruned, predictions = predict_with_cuts(
            model,
            _saliency(model, settings, train, loss_of),
            cuts,
            data,
            lambda batch: task.predictions(logits_of(batch).cpu().numpy()),
        )
        base = Score.from_dict(task.measure(labels, unpruned))
        measurements = [_cut_row(cut, **change(predictions[cut], base.value)) for cut in cuts]
    if "quantization" in settings.measure:
        found = quantization_sensitivity(model, _inputs(model, train), _inputs(model, data))
        base = Score.from_dict(task.measure(labels, task.predictions(found.logits.numpy())))
        modules = [
            _module_row(row, **change(task.predictions(row.logits.numpy()), base.value)) for row in found.modules
        ]
    return SensitivityRecord(
        base=base,
        measurements=tuple(measurements),
        quantization=tuple(modules),
        quantization_loss=task.divergence_name,
        shared_layers=Encoder(model).shares_layers,
        settings={n: str(v) if isinstance(v, Path) else v for n, v in asdict(settings).items() if n != "output"},
        environment=environment(settings.threads, device=str(model.device)),
    )


def _saliency(model: PreTrainedModel, settings: SensitivitySettings, batches: Batches, loss_of: Loss) -> Saliency:
    if settings.saliency == "random":
        return random_saliency(model, settings.seed)
    return MEASURES[settings.saliency](model, batches, loss_of)


def _inputs(model: PreTrainedModel, batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [
        {name: value.to(model.device) for name, value in filter_forward_inputs(model, batch).items()}
        for batch in batches
    ]


def _cut_row(cut: Cut, value: float, change: float) -> CutRow:
    layer = None if cut.layer is None else cut.layer + 1
    return CutRow(cut.kind, layer, cut.sparsity, cut.removed, cut.units, value=value, change=change)


def _module_row(row: ModuleSensitivity, value: float, change: float) -> ModuleRow:
    told = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "logits"}
    return ModuleRow(**told, value=value, change=change)
