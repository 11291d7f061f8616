"""Measuring a finished artefact again, on this machine."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

from edgemin_hf.benchmark.alone import measured_alone
from edgemin_hf.benchmark.latencies import Asked, measure_latencies
from edgemin_hf.benchmark.measure import benchmark_rows, files_of, in_openvino
from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.benchmark.whole_call import PipelineMaker, runs
from edgemin_hf.data.tables import Text
from edgemin_hf.export.fidelity import SAMPLE_TEXTS
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.export.outputs import inputs_of_each
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.tasks.known import TASKS
from edgemin_hf.utils.extras import check_extra
from edgemin_hf.utils.hardware import environment
from edgemin_hf.utils.weight_files import WEIGHTS


def benchmark_artefact(
    artefact: Path,
    teacher: Path | None,
    texts: Path | None,
    *,
    threads: int,
    rounds: int,
    openvino: bool = False,
    pipeline: PipelineMaker | None = None,
) -> Benchmark:
    """Measure latency and size of an artefact, and of its teacher where one is given.

    Args:
        artefact: Folder with an `edgemin.json`, what that lists, and the tokenizer.
        teacher: Folder of the teacher's checkpoint; its graphs are exported for the occasion.
        texts: File with a text a line, or a pair with a tab between; None takes built-in sentences.
        threads: Threads of a pass.
        rounds: Number of counted rounds over the sentences.
        openvino: Whether the graphs of ONNX Runtime are measured in OpenVINO too. A graph in OpenVINO's own format is
            measured wherever that is installed.
        pipeline: Makes whole calls through Optimum's pipeline, beside those of the runtime.

    Returns:
        The contents of a `benchmark.json`, without the task's metric.

    Raises:
        ValueError: If a file or OpenVINO is missing, or a number is below 1.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf import export_onnx
        >>> from edgemin_hf.benchmark import benchmark_artefact
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=3, **shape)).eval()
        >>> with TemporaryDirectory() as above:
        ...     artefact = export_onnx(model, tokenizer, f"{above}/edge", texts=["card"]).folder
        ...     benchmark = benchmark_artefact(artefact, None, None, threads=1, rounds=1)
        >>> [row.label for row in benchmark.rows]
        ['student · pytorch · fp32', 'student · onnxruntime · fp32']
    """
    for name, value in (("threads", threads), ("rounds", rounds)):
        if value < 1:
            raise ValueError(f"--{name} {value}; allowed: 1 or more")
    if openvino:
        check_extra("openvino", "--openvino", "openvino")
    if teacher is not None and not all((teacher / name).is_file() for name in ("config.json", WEIGHTS)):
        raise ValueError(f"--teacher {teacher}; expected: a folder with config.json and {WEIGHTS}")
    files, name = files_of("student", artefact), read_manifest(artefact).task
    if (task := TASKS.get(name)) is None:
        raise ValueError(f"{artefact}: for {name}; allowed: an artefact for {', '.join(TASKS)}")
    if find_spec("openvino") is None:
        files = {row: file for row, file in files.items() if row[1] != "openvino"}
    sentences = SAMPLE_TEXTS if texts is None else _read_lines(texts)
    with tempfile.TemporaryDirectory() as scratch:
        if teacher is not None:
            export_baseline(teacher, Path(scratch) / "teacher", task)
            files = files_of("teacher", Path(scratch) / "teacher", teacher) | files
        if openvino:
            files |= in_openvino(files)
        folders = {"student": artefact} if teacher is None else {"student": artefact, "teacher": teacher}
        inputs = {model: inputs_of_each(load_tokenizer(folder), sentences) for model, folder in folders.items()}
        asked = Asked(files, inputs, artefact, sentences, task.auto_class, threads, rounds, pipeline)
        found = measure_latencies(asked)
    return Benchmark(
        benchmark_rows(files, found.passes, threads, calls=found.calls),
        environment(threads, *sorted({row[1] for row in files} & {"openvino"})),
        found.by_length,
        measured_alone(artefact, threads, sentences) if runs(artefact) else None,
    )


def _read_lines(path: Path) -> list[Text]:
    if not path.is_file():
        raise ValueError(f"--texts {path}, which is no file; allowed: a text file with a sentence a line")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"--texts {path}, which is empty; allowed: a text file with a sentence a line")
    return [(first, second) if tab else first for first, tab, second in (line.partition("\t") for line in lines)]
