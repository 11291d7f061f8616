"""A rival that is a graph beside a tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from edgemin_hf.benchmark.measure import predict_rows
from edgemin_hf.benchmark.runners import OnnxRunner
from edgemin_hf.benchmark.whole_call import WholeCall
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.rivals.base import Given, Made
from edgemin_hf.tasks.table_task import TableTask

TOKENIZER = "tokenizer.json"


def made_of_call(name: str, call: WholeCall, size_bytes: int, given: Given) -> Made:
    """Answer the test texts, one at a time as they would be served; of a ragged task its rows.

    Args:
        name: What it is, in a table.
        call: A whole call.
        size_bytes: Size of all that it needs.
        given: What rivals are made of.
    """
    if given.tables is None:
        return Made(name, np.concatenate([call(text) for text in given.test]), size_bytes, call)
    names = ["input_ids", "token_type_ids", "attention_mask"]  # a graph is fed those that it has
    special = load_tokenizer(given.encoder).special_tokens_map  # a tokenizer's rules don't tell which masks
    reader = PreTrainedTokenizerFast(tokenizer_object=call.reader.tokenizer, model_input_names=names, **special)
    task = given.task
    _, validation, test = given.tables
    if task.chooses(validation):
        held_out = task.tokenized(validation, reader, given.label_ids)
        task = task.calibrated(_outputs(task, call, held_out, reader), held_out)
    rows = task.tokenized(test, reader, given.label_ids)
    return Made(name, _outputs(task, call, rows, reader), size_bytes, call, rows, task)


def _outputs(
    task: TableTask, call: WholeCall, rows: Dataset, reader: PreTrainedTokenizerFast
) -> list[NDArray[np.float32]]:
    inputs = rows.select_columns([name for name in rows.column_names if name in reader.model_input_names])
    arrays = [{name: np.array([value], dtype=np.int64) for name, value in row.items()} for row in inputs]
    return predict_rows(task, call.runner, arrays, rows, "Predictions of a rival")


def made_of_graph(
    name: str, graph: Path, precision: str, size_bytes: int, given: Given, tokenizer: Path | None = None
) -> Made:
    """Run a graph in ONNX Runtime at one thread.

    Args:
        name: What it is; its precision is added.
        graph: The ONNX file.
        precision: Of its linear layers, as a manifest tells it.
        size_bytes: Its size.
        given: What rivals are made of.
        tokenizer: Its `tokenizer.json`; None where it lies beside the graph.
    """
    tokenizer = tokenizer or graph.with_name(TOKENIZER)
    call = WholeCall(OnnxRunner(graph, threads=1), tokenizer, given.task.max_length)
    precision = precision if precision == "fp32" else precision.upper()
    return made_of_call(f"{name}, {precision}", call, size_bytes + tokenizer.stat().st_size, given)
