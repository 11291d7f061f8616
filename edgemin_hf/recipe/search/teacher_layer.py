"""Which layer of the teacher should MiniLMv2's student learn from? Several are tried for a small budget."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel
from transformers.trainer_utils import SaveStrategy

from edgemin_hf.modeling.families import shape_of
from edgemin_hf.recipe.context import Run
from edgemin_hf.recipe.stages.settings import Distill, TaskDistill, TrainingStage
from edgemin_hf.recipe.train import make_trainer
from edgemin_hf.report.curves import Curve, draw_curves
from edgemin_hf.utils.atomic_files import write_atomic

SEARCH_CURVE = "stages/teacher_layers.svg"


def search_teacher_layer(run: Run, stage: Any, work: Path) -> tuple[Distill, dict[str, Any]]:
    """Try the layers that a stage names, and take the one whose student then learns the task best.

    Each try is `search_steps` of distillation from that layer, then as many of task distillation; what counts is the
    task's metric on the validation rows, since the losses of different layers can't be compared. Layers that were
    tried before a kill are not tried again. The curve is printed, drawn into `stages/`, and returned.

    Args:
        run: The recipe at work.
        stage: The stage `distill`, whose `teacher_layer` is "search".
        work: Folder for what was found so far.

    Returns:
        The stage with the best layer, and what is worth remembering: "search", with "layers" and their "values".
    """
    main, name = PartialState().is_main_process, run.task.metric
    file = work / "teacher_layers.json"
    found: dict[int, float] = {}
    if file.is_file():
        found = {int(layer): value for layer, value in json.loads(file.read_text(encoding="utf-8")).items()}
    PartialState().wait_for_everyone()
    for layer in stage.layers_to_try(shape_of(run.teacher(stage).config).num_hidden_layers):
        if layer in found:
            continue
        found[layer] = _try(run, stage.at(layer), work / f"layer-{layer}")
        if main:
            print(f"teacher layer {layer}: validation {name} {found[layer]:.4f}", flush=True)
            write_atomic(file, json.dumps(found))
    # Of equals the uppermost.
    best = max(found, key=lambda layer: (found[layer], layer))
    if main:
        curve = Curve(name, list(found), [100 * value for value in found.values()])
        picture = draw_curves([curve], "teacher layer", f"validation {name} (%)", f"Layer {best} is taken")
        write_atomic(run.output / SEARCH_CURVE, picture)
    search = {"metric": name, "layers": list(found), "values": list(found.values()), "best": best}
    return stage.at(best), {"search": search, "notes": [f"teacher layer {best} of {', '.join(map(str, found))}"]}


def _try(run: Run, stage: Any, work: Path) -> float:
    student = _train(run, replace(stage, max_steps=stage.search_steps), work)[0]
    task = next((other for other in run.recipe.stages if isinstance(other, TaskDistill)), TaskDistill())
    value = _train(run, replace(task, max_steps=stage.search_steps), work, student)[1][f"eval_{run.task.metric}"]
    PartialState().wait_for_everyone()
    shutil.rmtree(work, ignore_errors=True)
    return value


def _train(
    run: Run, stage: TrainingStage, work: Path, model: PreTrainedModel | None = None
) -> tuple[PreTrainedModel, dict[str, float]]:
    trainer = make_trainer(run, stage, work, model)
    trainer.args.save_strategy = SaveStrategy.NO
    trainer.train()
    return trainer.model, trainer.evaluate()
