"""`edgemin sensitivity`: where a fine-tuned model can be cut or quantised, measured on labelled rows, untrained."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from edgemin_hf.benchmark.rows import Score
from edgemin_hf.data.batches import token_lengths
from edgemin_hf.data.padding import COUNTED, PaddingCollator
from edgemin_hf.hub.checkpoints import checkpoint_files, resolve_checkpoint
from edgemin_hf.hub.configs import load_config
from edgemin_hf.modeling.auto_class import configured_for
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.families import first_position
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.pruning.saliency import MEASURES, Batches, Loss, Saliency, random_saliency
from edgemin_hf.sensitivity.figures import draw_heat_map, draw_sensitivity_curves
from edgemin_hf.sensitivity.kept import Kept
from edgemin_hf.sensitivity.outputs import kept_of, logits_of
from edgemin_hf.sensitivity.page import render_page
from edgemin_hf.sensitivity.pruning import Cut, cuts_of, predict_with_cuts
from edgemin_hf.sensitivity.quantization import ModuleSensitivity, quantization_sensitivity
from edgemin_hf.sensitivity.quantization_figure import draw_modules
from edgemin_hf.sensitivity.records import CutRow, ModuleRow, SensitivityRecord
from edgemin_hf.sensitivity.settings import CURVES, HEAT_MAP, MODULES, NUMBERS, PAGE, SensitivitySettings
from edgemin_hf.tasks.base import Outputs, Task
from edgemin_hf.tasks.checks import shared_rows
from edgemin_hf.tasks.known import task_of
from edgemin_hf.tasks.labels import labels_of
from edgemin_hf.tasks.metrics.choices import allowed_for
from edgemin_hf.tasks.metrics.known import MODULES as METRICS
from edgemin_hf.utils.atomic_files import atomic_folder
from edgemin_hf.utils.content import sha256_of, sha256_of_files
from edgemin_hf.utils.cpus import warn_if_busy
from edgemin_hf.utils.hardware import environment

logger = logging.getLogger(__name__)


def run_sensitivity(settings: SensitivitySettings) -> SensitivityRecord:
    """Measure a model's sensitivity and write numbers, pictures and a page, all of them or nothing.

    How long it takes is logged before. What was measured before a kill is kept beside the output, and taken up.

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
        ...     for file, more in ((files["train"], "phone card"), (files["data"], "card phone")):
        ...         _ = file.write_text(chr(10).join(["text,label", "card,LABEL_0", f"{more},LABEL_1"]))
        ...     places = {"model": folder, "output": Path(folder, "costs"), **files}
        ...     result = run_sensitivity(SensitivitySettings(**places, **columns, **size, **how))
        >>> result.base.n, sorted({row.kind for row in result.measurements})
        (2, ['heads', 'layers', 'neurons'])
    """
    task = settings.task
    config = _checked(settings, task)
    tokenizer = task.fitted(load_tokenizer(resolve_checkpoint(settings.model, weights=False).path, config))
    labels = labels_of(config)
    train = _rows(task, settings.train, settings.saliency_examples, settings.seed, tokenizer, labels)
    data = _rows(task, settings.data, settings.examples, settings.seed, tokenizer, labels)
    torch.set_num_threads(settings.threads)
    folder = resolve_checkpoint(settings.model).path
    model = load_pruned(folder, task.auto_class).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    batches = _batches(train, settings, tokenizer), _batches(data, settings, tokenizer)
    kept = Kept(settings.output, [_asked(settings), sha256_of_files(checkpoint_files(Path(folder)))])
    result = _measure(model, task, settings, *batches, data, kept)
    pictures: dict[str, str] = {}
    if result.measurements:
        pictures |= {HEAT_MAP: draw_heat_map(result), CURVES: draw_sensitivity_curves(result)}
    if result.quantization:
        pictures[MODULES] = draw_modules(result)
    with atomic_folder(settings.output.absolute()) as partial:
        page = render_page(settings.model, result, *(pictures.get(name) for name in (HEAT_MAP, CURVES, MODULES)))
        numbers = json.dumps(result.to_dict(), indent=2) + "\n"
        for name, text in {NUMBERS: numbers, **pictures, PAGE: page}.items():
            (partial / name).write_text(text, encoding="utf-8")
    kept.clear()
    return result


def _asked(settings: SensitivitySettings) -> dict[str, object]:
    """Return what the measurements depend on: the settings, and the rows by their content."""
    asked = {name: value for name, value in asdict(settings).items() if name not in ("model", "output")}
    return {**asked, "train": sha256_of(settings.train), "data": sha256_of(settings.data)}


def _checked(settings: SensitivitySettings, task: Task) -> PretrainedConfig:
    """Check files and model against each other, without weights; return the model's configuration."""
    config = load_config(settings.model)
    if not configured_for(config, task.auto_class):
        head = "a classification head" if task.problem_type else f"a head for {task.type}"
        raise ValueError(f"model: {settings.model}, without {head}; allowed: a fine-tuned classifier")
    if not task.compatible(config):
        raise ValueError(
            f"metric: {task.metric_name} for a model of {config.num_labels} label(s) and problem_type "
            f"{config.problem_type}; allowed: {allowed_for(task_of(config).answer)}"
        )
    # Whose code a run's folder names must not run because somebody asks what its model costs.
    if task.metrics[0].local is None:
        raise ValueError(f"metric: {task.metric_name}; allowed: {', '.join(METRICS)}")
    task.settle_metrics(Path(), labels_of(config))
    longest = config.max_position_embeddings - first_position(config)
    if task.max_length > longest:
        raise ValueError(f"max_length: {task.max_length}; allowed: 3 to {longest}, the model's positions")
    for name in ("train", "data") if task.learns_labels else ("data",):  # texts alone have nothing to be checked
        try:
            task.check_table(getattr(settings, name), config)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for note in shared_rows(task, {"train": settings.train, "data": settings.data}):
        logger.info(note)
    return config


def _rows(task: Task, file: Path, count: int, seed: int, tokenizer: Tokenizer, labels: Mapping[str, int]) -> Dataset:
    """Read, draw and tokenise rows; the longest come first, so that what does not fit in memory fails at once."""
    table = task.read(file)
    if 0 < count < len(table):
        table = table.select(np.random.default_rng(seed).permutation(len(table))[:count])
    rows = task.tokenized(table, tokenizer, labels)
    return rows.select(np.argsort(-token_lengths(rows), kind="stable"))


def _batches(rows: Dataset, settings: SensitivitySettings, tokenizer: Tokenizer) -> list[dict[str, Tensor]]:
    collate = PaddingCollator(tokenizer)
    kept = rows.select_columns([n for n in rows.column_names if n in {*tokenizer.model_input_names, COUNTED, "labels"}])
    starts = range(0, len(kept), settings.batch_size)
    return [collate(list(kept.select(range(i, min(i + settings.batch_size, len(kept)))))) for i in starts]


def _measure(
    model: PreTrainedModel,
    task: Task,
    settings: SensitivitySettings,
    train: list[dict[str, Tensor]],
    data: list[dict[str, Tensor]],
    rows: Dataset,
    kept: Kept,
) -> SensitivityRecord:
    run = partial(logits_of, model)

    def loss_of(batch: Mapping[str, Tensor]) -> Tensor:
        return task.hard_loss(run(batch), batch["labels"].to(model.device))

    cuts = cuts_of(model, sorted(settings.sparsities)) if "pruning" in settings.measure else []
    _tell_minutes(model, settings, run, (train, data), len(cuts))
    truth = task.references(rows)
    measurements: list[CutRow] = []
    modules: list[ModuleRow] = []

    def change(own: Task, outputs: Outputs, base: float) -> dict[str, float]:
        value = own.value(truth, own.predictions(outputs, rows))
        return {"value": value, "change": value - base}

    if cuts:
        unpruned, found = predict_with_cuts(
            model,
            kept.saliency(lambda: _saliency(model, settings, train, loss_of)),
            cuts,
            data,
            lambda batch: kept_of(type(task), run(batch), batch),
            kept,
        )
        own = task.calibrated(unpruned, rows)
        base = Score.from_dict(own.measure(truth, own.predictions(unpruned, rows)))
        measurements = [_cut_row(cut, **change(own, found[cut], base.value)) for cut in cuts]
    if "quantization" in settings.measure:
        whole, costs = quantization_sensitivity(model, train, data, kept=kept)
        own = task.calibrated(whole, rows)
        base = Score.from_dict(own.measure(truth, own.predictions(whole, rows)))
        modules = [_module_row(row, **change(own, row.logits, base.value)) for row in costs]
    return SensitivityRecord(
        base=base,
        measurements=tuple(measurements),
        quantization=tuple(modules),
        quantization_loss=task.divergence_name,
        shared_layers=Encoder(model).shares_layers,
        settings={n: str(v) if isinstance(v, Path) else v for n, v in asdict(settings).items() if n != "output"},
        environment=environment(settings.threads, device=str(model.device)),
    )


def _tell_minutes(
    model: PreTrainedModel,
    settings: SensitivitySettings,
    run: Callable[[Mapping[str, Tensor]], Tensor],
    batches: tuple[Sequence[Mapping[str, Tensor]], Sequence[Mapping[str, Tensor]]],
    cuts: int,
) -> None:
    """Log how long it will take: a pass is timed, and of what is changed half of one runs on average."""
    train, data = batches
    encoder, modules = Encoder(model), 0
    if "quantization" in settings.measure:
        modules = 2 * sum(1 for _ in (*encoder.linears(), *encoder.embeddings()))
    middle = data[len(data) // 2]
    with torch.inference_mode():
        run(middle)
        start = time.perf_counter()
        run(middle)
    # A backward pass costs about two forward ones; ranges are taken from one.
    passes = len(data) * (1 + (cuts + modules) / 2) + len(train) * (3 * bool(cuts) + bool(modules))
    minutes = passes * (time.perf_counter() - start) / 60
    rows = sum(len(batch["input_ids"]) for batch in data)
    logger.info("About %.1f min: %d cuts and %d modules, on %d rows", minutes, cuts, modules, rows)
    warn_if_busy("the minutes are what it takes beside them")


def _saliency(model: PreTrainedModel, settings: SensitivitySettings, batches: Batches, loss_of: Loss) -> Saliency:
    if settings.saliency == "random":
        return random_saliency(model, settings.seed)
    return MEASURES[settings.saliency](model, batches, loss_of)


def _cut_row(cut: Cut, value: float, change: float) -> CutRow:
    layer = None if cut.layer is None else cut.layer + 1
    return CutRow(cut.kind, layer, cut.sparsity, cut.removed, cut.units, value=value, change=change)


def _module_row(row: ModuleSensitivity, value: float, change: float) -> ModuleRow:
    told = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "logits"}
    return ModuleRow(**told, value=value, change=change)
