"""What an artefact's files say of how it is run: `edgemin.json`, `config.json` and the tokenizer's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import onnxruntime

MANIFEST = "edgemin.json"
CARD = "README.md"
"""The model card: on the Hub people change it, so no manifest lists it."""
FORMAT = 1
"""Version of the manifest's format; a reader of another version refuses it."""
FIRST = 64
"""Numbers that the manifest has of each token: its tags, or of a vocabulary the first tokens."""
PROMPTS = "config_sentence_transformers.json"
SMALL_FILES = (MANIFEST, "config.json", "tokenizer.json", "tokenizer_config.json", PROMPTS)
"""What is read beside the graph; the last two need not be there."""
_MOST = 10**9
"""From so many tokens on a `model_max_length` says nothing."""


@dataclass(frozen=True)
class Reading:
    """How texts are read, and what is made of what the graph gives: the settings of the task that it learned.

    Attributes:
        columns: Names of the columns of texts in a table: one, or two for pairs.
        max_length: Tokens after which a text is cut, or of a window; None takes what the tokenizer allows.
        stride: Tokens that two windows of a long text have in common; None takes the task's default.
        threshold: Probability from which a label is given, where a text may get any number of them.
        max_answer_length: Tokens of an answer, at most.
        no_answer_threshold: By how much the score of "no answer" must be above that of the best span for there to be no
            answer; None always answers.
    """

    columns: tuple[str, ...] = ()
    max_length: int | None = None
    stride: int | None = None
    threshold: float | None = None
    max_answer_length: int | None = None
    no_answer_threshold: float | None = None


NO_READING = Reading()
"""Of an artefact that says nothing of it."""


FUSED = "-fused"


def variant_of(precision: str, fused: bool, shape: Sequence[int] | None) -> str:
    """Return what tells the graphs of a runtime apart, such as "int8", "int8-fused" or "int8-1x128"."""
    return precision + FUSED * fused + (f"-{'x'.join(map(str, shape))}" if shape else "")


def is_fused(variant: str) -> bool:
    """Tell a second graph for new versions of its runtime alone by its variant."""
    return variant.endswith(FUSED)


def preference(variant: str) -> tuple[bool, bool]:
    """Return what variants are sorted by: fused ones first, then other quantised ones, then those in full precision.

    Example:
        >>> from edgemin_hf.runtime.artefact import preference
        >>> sorted(["fp32", "int8", "int8-fused"], key=preference)
        ['int8-fused', 'int8', 'fp32']
    """
    return not is_fused(variant), variant == "fp32"


def unfused(variant: str) -> str:
    """Return the precision of a variant: "int8" of "int8-fused"."""
    return variant.removesuffix(FUSED)


@dataclass(frozen=True)
class GraphFile:
    """A graph for ONNX Runtime, as the manifest lists it; see `edgemin_hf.export.manifest.ManifestEntry`."""

    file: str
    precision: str
    min_runtime: str | None
    external_data: tuple[str, ...]
    outputs: tuple[Any, ...]
    fused: bool = False
    shape: tuple[int, int] | None = None

    @property
    def variant(self) -> str:
        """What tells it from the others: its precision, such as "int8", or "int8-fused"."""
        return variant_of(self.precision, self.fused, self.shape)

    @property
    def files(self) -> tuple[str, ...]:
        """All of its files, relative to the artefact's folder."""
        return (self.file, *self.external_data)

    @property
    def runs(self) -> bool:
        """Whether the ONNX Runtime that is installed is new enough."""
        return self.min_runtime is None or _numbers(onnxruntime.__version__) >= _numbers(self.min_runtime)


@dataclass(frozen=True)
class Artefact:
    """An artefact's folder, read.

    Attributes:
        folder: The folder.
        task: The task, as a recipe has it.
        texts: The texts that graphs' `outputs` are of.
        graphs: The graphs for ONNX Runtime.
        reading: How texts are read.
        config: The contents of `config.json`.
        tokenizer_config: Those of `tokenizer_config.json`.
        prompts: What may stand before texts, by name; under "" what does unless another is named.
    """

    folder: Path
    task: str
    texts: tuple[str, ...]
    graphs: tuple[GraphFile, ...]
    reading: Reading
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    prompts: dict[str, str]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in the order of their numbers."""
        # `transformers` writes neither names nor number where there are two labels by the names that it gives them.
        count = int(self.config.get("num_labels") or 2)
        names = self.config.get("id2label") or {str(number): f"LABEL_{number}" for number in range(count)}
        return tuple(names[number] for number in sorted(names, key=int))

    @property
    def longest_text(self) -> int:
        """Tokens that the tokenizer allows, and the model has positions for."""
        allowed = [self.tokenizer_config.get("model_max_length"), self.config.get("max_position_embeddings")]
        known = [int(most) for most in allowed if most and most < _MOST]
        return min(known) if known else 512

    @property
    def max_length(self) -> int:
        """Tokens after which a text is cut."""
        return self.reading.max_length or self.longest_text

    def graph(self, file: str | None = None) -> GraphFile:
        """Return a graph.

        Args:
            file: Its file; None takes the first that is fused, or else quantised, or else the first, of those that take
                any shape and that the ONNX Runtime which is installed can load.

        Raises:
            ValueError: If there is none; one line.
        """
        listed = ", ".join(graph.file for graph in self.graphs) or "none"
        if file is not None:
            found = next((graph for graph in self.graphs if file in (graph.file, Path(graph.file).name)), None)
            if found is None:
                raise ValueError(f"file: {file}; allowed: {listed}")
            return found
        able = [graph for graph in self.graphs if graph.runs and graph.shape is None]
        if not able:
            free = (graph for graph in self.graphs if graph.shape is None)
            least = ", ".join(f"{graph.file} needs {graph.min_runtime}" for graph in free)
            raise ValueError(
                f"{self.folder}: no graph that ONNX Runtime {onnxruntime.__version__} loads"
                f"{f' ({least})' if least else ''}; expected: one in {MANIFEST}, or a newer onnxruntime"
            )
        return min(able, key=lambda graph: preference(graph.variant))


def read_artefact(folder: Path) -> Artefact:
    """Read what an artefact's files say.

    Raises:
        ValueError: If one is missing or is not what was expected; one line.
    """
    manifest = read_object(folder, MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{folder / MANIFEST}: format: {manifest.get('format')}; allowed: {FORMAT}")
    known = {field.name for field in fields(Reading)}
    told = {name: value for name, value in (manifest.get("reading") or {}).items() if name in known}
    if "columns" in told:
        told["columns"] = tuple(told["columns"])
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: holds no tokenizer.json; expected: an artefact with a fast tokenizer")
    try:
        graphs = tuple(_graph(entry) for entry in manifest["entries"] if entry["runtime"] == "onnxruntime")
        task, texts = str(manifest["task"]), tuple(manifest["texts"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST}: {error} is missing; expected: what `edgemin run` writes") from None
    tokenizer, prompts = (read_object(folder, name, {}) for name in ("tokenizer_config.json", PROMPTS))
    return Artefact(
        folder, task, texts, graphs, Reading(**told), read_object(folder, "config.json"), tokenizer, _prompts(prompts)
    )


def _graph(entry: dict[str, Any]) -> GraphFile:
    found = GraphFile(
        entry["file"],
        entry["precision"],
        entry.get("min_runtime"),
        tuple(entry.get("external_data", ())),
        tuple(entry.get("outputs", ())),
        bool(entry.get("fused")),
        tuple(entry["shape"]) if entry.get("shape") else None,
    )
    for file in found.files:
        check_inside(file)
    return found


def check_inside(file: object) -> None:
    """Check that a file that a manifest lists lies in the artefact's folder.

    Raises:
        ValueError: If not; one line.
    """
    if not isinstance(file, str) or PurePath(file).is_absolute() or ".." in PurePath(file).parts or "\\" in file:
        raise ValueError(f"{MANIFEST}: file: {file}; allowed: one in the artefact's folder")


def _prompts(told: dict[str, Any]) -> dict[str, str]:
    prompts = dict(told.get("prompts") or {})
    default = told.get("default_prompt_name")
    return prompts | ({"": prompts[default]} if default in prompts else {})


def read_object(folder: Path, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a JSON object of an artefact's folder; without a default it must be there.

    Raises:
        ValueError: If it is not, or is not what was expected; one line.
    """
    file = folder / name
    if not file.is_file():
        if default is not None:
            return default
        raise ValueError(f"{folder}: holds no {name}; expected: a folder that `edgemin run` or `export_onnx` made")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: {type(content).__name__}; expected: an object")
    return content


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
