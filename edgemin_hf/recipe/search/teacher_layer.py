"""Which layer of the teacher should MiniLMv2's student learn from? Several are tried for a small budget."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import PartialState

from edgemin_hf.recipe.context import Context
from edgemin_hf.report.curves import Curve, draw_curves
from edgemin_hf.report.records import LayerSearch
from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.processes import of_first

logger = logging.getLogger(__name__)

SEARCH_CURVE = "stages/teacher_layers.svg"
"""The curve of the search, in the folder of the run."""


def search_teacher_layer(
    context: Context, layers: Sequence[int], try_layer: Callable[[int, Path], float], work: Path
) -> LayerSearch:
    """Try layers of the teacher, and take the one whose student then learns the task best.

    What counts is the task's metric on the validation rows, since the losses of different layers can't be compared.
    Layers that were tried before a kill are not tried again. The curve is logged, drawn into `stages/`, and returned.

    Args:
        context: The recipe at work.
        layers: The layers to try.
        try_layer: Distils for a small budget from a layer, with a folder for its checkpoints, and measures the task's
            metric.
        work: Folder for what was found so far.

    Returns:
        What was found.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from types import SimpleNamespace
        >>> from edgemin_hf.recipe.search import search_teacher_layer
        >>> from edgemin_hf.tasks import TextClassification
        >>> task, accuracies = TextClassification("train.csv", "test.csv"), {3: 0.5, 4: 0.75}
        >>> with TemporaryDirectory() as folder:
        ...     context = SimpleNamespace(task=task, output=Path(folder))  # what it reads of a `Context`
        ...     search_teacher_layer(context, [3, 4], lambda layer, work: accuracies[layer], Path(folder)).best
        4
    """
    main, name = PartialState().is_main_process, context.task.metric_name
    file = work / "teacher_layers.json"
    found: dict[int, float] = {}
    if file.is_file():
        found = {int(layer): value for layer, value in json.loads(file.read_text(encoding="utf-8")).items()}
    found = of_first(found)  # another machine may not see the file
    if main and found:
        logger.info("teacher layers %s were tried before: taken up", ", ".join(map(str, found)))
    for layer in layers:
        if layer in found:
            continue
        found[layer] = of_first(try_layer(layer, work / f"layer-{layer}"))
        PartialState().wait_for_everyone()
        shutil.rmtree(work / f"layer-{layer}", ignore_errors=True)
        if main:
            logger.info("teacher layer %d: validation %s %.4f", layer, name, found[layer])
            write_atomic(file, json.dumps(found))
    # Of equals the uppermost.
    sign = 1 if context.task.metrics[0].greater_is_better else -1
    best = max(found, key=lambda layer: (sign * found[layer], layer))
    if main:
        curve = Curve(name, list(found), [100 * value for value in found.values()])
        picture = draw_curves([curve], "teacher layer", f"validation {name} (%)", f"Layer {best} is taken")
        write_atomic(context.output / SEARCH_CURVE, picture)
    return LayerSearch(name, tuple(found), tuple(found.values()), best)
