"""`edgemin.json`: which files an artefact holds, what runs each, and what each should answer.

Whoever measures, shows, publishes or runs an artefact reads this, and no names of files that are agreed on elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgemin_hf.runtime.artefact import CARD, FORMAT, MANIFEST, NO_READING, Reading, check_inside, variant_of
from edgemin_hf.utils.content import digest_of
from edgemin_hf.utils.records import Record

Output = tuple[float, ...] | tuple[tuple[float, ...], ...]
"""The logits of a text: (labels,), or (tokens, labels) of a model that answers for each token, the first 64 at most."""


@dataclass(frozen=True)
class Fidelity(Record):
    """Outcome of the check that a graph computes what the PyTorch model computes, in units of the model's output.

    A text's difference is the mean absolute difference of its outputs. Of all texts the median counts: a single value
    that lies on the edge between two points of a grid and falls to the other side shifts its text a little and all
    others not at all, while a wrong scale or weight shifts every text. `docs/experiments.md` has how often chance alone
    fails the check, and what it catches.

    Attributes:
        error: Median of the texts' differences between ONNX Runtime and PyTorch in float32.
        floor: Upper quartile of the differences that appear in PyTorch alone when the input of every linear layer is
            disturbed by noise of 2^-22 of each token's RMS, two units in the last place of float32: kernels that add in
            another order or approximate erf and exp otherwise differ by as much.
        limit: The largest error that is accepted: four times the floor, or 1e-4 of the output's size.
        examples: Number of texts compared.
        longest: Tokens of the longest text compared; such texts are compared apart. None where none were.

    Example:
        >>> from edgemin_hf.export import Fidelity
        >>> fidelity = Fidelity(error=2e-7, floor=1e-7, limit=4e-7, examples=16)
        >>> Fidelity.from_dict(fidelity.to_dict()) == fidelity
        True
    """

    error: float
    floor: float
    limit: float
    examples: int
    longest: int | None = None


@dataclass(frozen=True)
class ManifestEntry(Record):
    """One model of an artefact: a file, and what a target knows of it.

    Attributes:
        file: Its file, relative to the artefact's folder.
        runtime: What runs it: "pytorch", "onnxruntime" or "openvino".
        precision: Of its linear layers: "fp32", "int8" or "int4".
        bytes: Size on disk, with external data.
        sha256: Hash of the file, followed by its external data.
        parameters: Number of its parameters.
        external_data: Files with further weights, relative to the artefact's folder.
        opset: Version of ONNX's operators; None where it is no graph.
        ir_version: Version of ONNX's format, likewise.
        min_runtime: Least version of the runtime that is known to load it; None where that is not known.
        fidelity: Outcome of its check against the PyTorch model; None where it was not checked.
        outputs: Its logits of each of the manifest's texts, to five digits; empty where the model has no head.
        fused: Whether it is a second graph of the same model, in operators that its runtime alone has.
        shape: Texts and tokens of a pass, where they are fixed; such a one is for NPUs, and not measured.

    Example:
        >>> from edgemin_hf.export import ManifestEntry
        >>> entry = ManifestEntry("onnx/model.onnx", "onnxruntime", "fp32", bytes=400, sha256="0" * 64, parameters=1000)
        >>> entry.files
        ('onnx/model.onnx',)
    """

    file: str
    runtime: str
    precision: str
    bytes: int
    sha256: str
    parameters: int
    external_data: tuple[str, ...] = ()
    opset: int | None = None
    ir_version: int | None = None
    min_runtime: str | None = None
    fidelity: Fidelity | None = None
    outputs: tuple[Output, ...] = ()
    fused: bool = False
    shape: tuple[int, int] | None = None

    @property
    def variant(self) -> str:
        """What tells it from the others of its runtime: its precision, such as "int8", or "int8-fused"."""
        return variant_of(self.precision, self.fused, self.shape)

    @property
    def files(self) -> tuple[str, ...]:
        """All of its files, relative to the artefact's folder."""
        return (self.file, *self.external_data)


@dataclass(frozen=True)
class Bound(Record):
    """What an artefact must reach to be pushed, and what was measured.

    Attributes:
        name: The setting of a recipe's gate: one that begins with "max_" is an upper bound, any other a lower one.
        bound: The bound.
        measured: What was measured of the model to deploy; None where nothing could be.

    Example:
        >>> from edgemin_hf.export import Bound
        >>> Bound("retention", 0.97, measured=0.951).missed
        'retention: 0.951, which misses the 0.97 of the gate by 0.019'
        >>> Bound("max_size_mb", 10.0, measured=9.3).missed is None
        True
    """

    name: str
    bound: float
    measured: float | None

    @property
    def missed(self) -> str | None:
        """By how much it is missed, in a sentence without its full stop; None where it is not."""
        if self.measured is None:
            return f"{self.name}: not measured, and the gate asks for {self.bound:g}"
        short = (self.measured - self.bound) if self.name.startswith("max_") else (self.bound - self.measured)
        if short <= 0:
            return None
        return f"{self.name}: {self.measured:.4g}, which misses the {self.bound:g} of the gate by {short:.2g}"


@dataclass(frozen=True)
class Manifest(Record):
    """What an artefact holds.

    Attributes:
        format: Version of the format.
        task: Name of the task, as a recipe has it.
        pipeline_tag: The Hub's name of the task.
        texts: The texts that the entries' `outputs` are of, each run alone, cut after 128 tokens or what the model (or
            a graph of one shape) can read. On a CPU without 8-bit dot products those of INT8 graphs may differ.
        entries: The models, in the order in which they are measured and told.
        reading: How the task reads texts, and what it makes of what a model gives.
        further_files: Every other file of the artefact but this one and the card, such as "config.json", with its
            SHA-256.
        gate: What it must reach to be pushed, and what was measured.

    Example:
        >>> from edgemin_hf.export import Manifest, ManifestEntry
        >>> entry = ManifestEntry("onnx/model.onnx", "onnxruntime", "fp32", bytes=400, sha256="0" * 64, parameters=1000)
        >>> manifest = Manifest(1, "text_classification", "text-classification", texts=("my card",), entries=(entry,))
        >>> manifest.entry("onnxruntime", "fp32").file, manifest.entry("onnxruntime", "int8")
        ('onnx/model.onnx', None)
    """

    format: int
    task: str
    pipeline_tag: str
    texts: tuple[str, ...]
    entries: tuple[ManifestEntry, ...]
    reading: Reading = NO_READING
    further_files: dict[str, str] = field(default_factory=dict)
    gate: tuple[Bound, ...] = ()

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format: {self.format}; allowed: {FORMAT}")
        seen = [(entry.runtime, entry.variant) for entry in self.entries]
        for runtime, variant in seen:
            if seen.count((runtime, variant)) > 1:
                raise ValueError(f"entries: two of {runtime} {variant}; expected: one of a runtime and precision")
        for file in (*self.files, *self.further_files):
            check_inside(file)

    @property
    def files(self) -> list[str]:
        """The files of all entries, relative to the artefact's folder."""
        return [file for entry in self.entries for file in entry.files]

    def listing(self, folder: Path) -> Manifest:
        """Return the manifest with what else lies in the artefact's folder, apart from the card, as it is now."""
        names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        further = {name: digest_of([path]) for name, path in names.items() if name not in (*self.files, MANIFEST, CARD)}
        return replace(self, further_files=further)

    def entry(self, runtime: str, variant: str) -> ManifestEntry | None:
        """Return the entry of a runtime and a precision such as "int8" or "int8-fused"; None where there is none."""
        return next((e for e in self.entries if (e.runtime, e.variant) == (runtime, variant)), None)

    def write(self, folder: Path) -> None:
        """Write the manifest into the artefact's folder."""
        (folder / MANIFEST).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def verify_files(self, folder: Path) -> None:
        """Check that every file is there and has the bytes that the manifest tells.

        Raises:
            ValueError: If not; it names the first file of which that is not true.
        """
        for entry in self.entries:
            paths = [folder / file for file in entry.files]
            missing = next((path for path in paths if not path.is_file()), None)
            if missing is not None:
                raise ValueError(f"{missing}: is missing; expected: a file, which {MANIFEST} lists")
            if size_of(paths) != entry.bytes or digest_of(paths) != entry.sha256:
                raise ValueError(f"{paths[0]}: has other bytes than {MANIFEST} tells; expected: the file as exported")

    def verify_further_files(self, folder: Path) -> None:
        """Check that every further file is there as it was.

        Raises:
            ValueError: If not; it names the first file of which that is not true.
        """
        for name, sha256 in self.further_files.items():
            if not (folder / name).is_file():
                raise ValueError(f"{folder / name}: is missing; expected: a file, which {MANIFEST} lists")
            if digest_of([folder / name]) != sha256:
                raise ValueError(f"{folder / name}: has other bytes than {MANIFEST} tells; expected: the file as made")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an artefact.

    Raises:
        ValueError: If the folder has none, or its format is not known; one line.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise ValueError(f"{folder}: holds no {MANIFEST}; expected: a folder that `edgemin run` or `export_onnx` made")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("format") != FORMAT:
            # Before all else: another format may have other fields.
            raise ValueError(f"format: {content.get('format')}; allowed: {FORMAT}")
        return Manifest.from_dict(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def size_of(paths: Sequence[Path]) -> int:
    """Return the bytes of files together."""
    return sum(path.stat().st_size for path in paths)
