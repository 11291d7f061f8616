"""The model card of a training by a `DistillationTrainer`, instead of the one that `Trainer` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData, hf_hub_download
from transformers import PreTrainedModel

from edgemin_hf import __version__
from edgemin_hf.hub.identifiers import hub_id_of
from edgemin_hf.hub.inherited import Inherited, inherited_from
from edgemin_hf.modeling.pruned_shape import plain_releases
from edgemin_hf.modeling.student import auto_class_of
from edgemin_hf.report.card import markdown_table
from edgemin_hf.report.tables import Table
from edgemin_hf.report.templates import fill_template
from edgemin_hf.runtime.artefact import CARD
from edgemin_hf.tasks.known import task_of
from edgemin_hf.utils.compat import RELEASE
from edgemin_hf.utils.edgemin_config import TrainingRecord
from edgemin_hf.utils.network import DOWNLOAD_ERRORS

_NO_METRICS = ("_runtime", "_per_second")


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What the card of a training is told.

    Attributes:
        name: The model's name.
        repo_id: Where it is loaded from.
        model: The student.
        teacher: The name of its teacher, a Hub id or a folder; None of one without a name.
        trainings: Its trainings, the first first.
        logs: What `Trainer` logged.
        languages: Codes of its languages; empty takes those of the teacher's card.
        licence: The licence; None takes that of the teacher's card, or "unknown".
        datasets: Hub ids of datasets; empty takes those of the teacher's card.
        tags: Further tags.
    """

    name: str
    repo_id: str
    model: PreTrainedModel
    teacher: str | None
    trainings: Sequence[TrainingRecord]
    logs: Sequence[Mapping[str, Any]]
    languages: Sequence[str] = ()
    licence: str | None = None
    datasets: Sequence[str] = ()
    tags: Sequence[str] = ()


def render_training_card(told: TrainingFacts) -> str:
    """Render the card of a training from `model_cards/training.md`.

    Its metadata tells no folder of this machine as base model; what is not told is taken over of the teacher's card.

    Returns:
        The card: YAML front matter and Markdown.
    """
    base_model = None if told.teacher is None else hub_id_of(told.teacher)
    inherited = _inherited(told.teacher, base_model)
    licence = told.licence or inherited.licence or "unknown"
    terms: dict[str, Any] = {} if told.licence else dict(inherited.licence_terms)
    quantized = any(training["quantization"] is not None for training in told.trainings)
    pruned = any(training["pruning"] is not None for training in told.trainings)
    made = {"distillation": True, "pruning": pruned, "quantization-aware-training": quantized}
    data = ModelCardData(
        base_model=base_model,
        datasets=[*(told.datasets or inherited.datasets)] or None,
        language=[*(told.languages or inherited.languages)] or None,
        library_name="transformers",
        license=licence,
        model_name=told.name,
        pipeline_tag=_pipeline_tag(told.model),
        tags=[*dict.fromkeys([*(tag for tag, done in made.items() if done), *told.tags])],
        **terms,
    )
    described = json.dumps(list(told.trainings), indent=2, ensure_ascii=False)
    variables = {
        "name": told.name,
        "base_model": base_model,
        "version": __version__,
        "repo_id": json.dumps(told.repo_id, ensure_ascii=False),
        "quantized": quantized,
        "plain": RELEASE in plain_releases(told.model.config),
        "auto_class": auto_class_of(told.model).__name__,
        "measured": _measured(told.logs),
        "trainings": f"```json\n{described}\n```",
        "licence": licence,
    }
    with resources.as_file(resources.files("edgemin_hf.model_cards")) as templates:
        return fill_template(templates / "training.md", data, variables)


def _inherited(teacher: str | None, base_model: str | None) -> Inherited:
    """Read the teacher's card: in its folder, or on the Hub if that can be reached."""
    if teacher is None or Path(teacher).is_dir():
        return Inherited() if teacher is None else inherited_from(teacher)
    try:
        return Inherited() if base_model is None else inherited_from(Path(hf_hub_download(base_model, CARD)).parent)
    except DOWNLOAD_ERRORS:
        return Inherited()


def _pipeline_tag(model: PreTrainedModel) -> str | None:
    try:
        return None if model is model.base_model else task_of(model).pipeline_tag
    except ValueError:
        return None


def _measured(logs: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the last evaluation as a table; None where there was none."""
    evaluations = [log for log in logs if any(name.startswith("eval_") for name in log)]
    found = evaluations[-1] if evaluations else {}
    rows = [
        [name.removeprefix("eval_").replace("_", " "), f"{value:.4g}"]
        for name, value in found.items()
        if name.startswith("eval_") and not name.endswith(_NO_METRICS)
    ]
    return markdown_table(Table(["metric", "value"], rows)) if rows else None
