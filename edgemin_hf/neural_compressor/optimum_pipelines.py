"""Whole calls through Optimum's pipelines, which the runtime's are measured beside. Optimum is a guest too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from transformers import AutoTokenizer

from edgemin_hf.data.tables import Text
from edgemin_hf.runtime.artefact import read_artefact
from edgemin_hf.runtime.one_call import Call
from edgemin_hf.runtime.sessions import session_options
from edgemin_hf.tasks.known import TASKS


def optimum_call(artefact: Path, file: str, threads: int) -> Call | None:
    """Return what answers a text, or a pair, through Optimum's pipeline.

    Args:
        artefact: The folder.
        file: The graph, relative to it.
        threads: Threads of a pass.

    Returns:
        The call; None where Optimum is not installed, or has no pipeline for the task.
    """
    read = read_artefact(artefact)
    if find_spec("optimum") is None or find_spec("optimum.onnxruntime") is None or read.task not in TASKS:
        return None
    import optimum.onnxruntime as classes
    from optimum.pipelines import pipeline
    from transformers.pipelines import get_supported_tasks

    task = TASKS[read.task]
    head = getattr(classes, f"ORT{task.auto_class.__name__.removeprefix('Auto')}", None)
    if head is None or task.pipeline_tag not in get_supported_tasks():
        return None
    folder, name = Path(file).parent.as_posix(), Path(file).name
    model = head.from_pretrained(artefact, subfolder=folder, file_name=name, session_options=session_options(threads))
    tokenizer = AutoTokenizer.from_pretrained(artefact)
    answers = pipeline(task.pipeline_tag, model=model, tokenizer=tokenizer, accelerator="ort")
    cut: dict[str, object] = {} if task.ragged else {"truncation": True, "max_length": read.max_length}
    asks = read.task == "question_answering"

    def call(text: Text) -> object:
        if asks:
            question, context = (text, text) if isinstance(text, str) else text
            return answers(question=question, context=context)
        if isinstance(text, str):
            return answers(text, **cut, **task.pipeline_arguments)
        return answers({"text": text[0], "text_pair": text[1]}, **cut, **task.pipeline_arguments)

    return call
