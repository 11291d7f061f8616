"""`edgemin_config.json`: beside a model's weights, how the model was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TypedDict

from edgemin_hf import __version__
from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.settings import Settings

EDGEMIN_CONFIG = "edgemin_config.json"


class TrainingRecord(TypedDict):
    """The settings of one training; None where it did not prune, or not quantise.

    Attributes:
        distillation: The settings of each method, and its name under "method".
        pruning: Those of `PruningConfig`.
        quantization: Those of `QuantizationConfig`.

    Example:
        >>> from edgemin_hf.utils import TrainingRecord
        >>> TrainingRecord(distillation=[], pruning={"head_sparsity": 0.5}, quantization=None)["pruning"]
        {'head_sparsity': 0.5}
    """

    distillation: list[dict[str, object]]
    pruning: dict[str, object] | None
    quantization: dict[str, object] | None


@dataclass
class EdgeminConfig(Settings):
    """How a model was made.

    Attributes:
        edgemin_version: The version of this package that wrote it.
        trainings: The trainings that it went through, the first first.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf import EdgeminConfig
        >>> made = EdgeminConfig()
        >>> made.trainings.append({"distillation": [], "pruning": {"head_sparsity": 0.5}, "quantization": None})
        >>> with TemporaryDirectory() as folder:
        ...     made.save_pretrained(folder)
        ...     EdgeminConfig.from_pretrained(folder) == made
        True
    """

    edgemin_version: str = __version__
    trainings: list[TrainingRecord] = field(default_factory=list)

    @property
    def quantization(self) -> Mapping[str, object] | None:
        """The settings of the last quantisation; None where there was none."""
        quantized = [training["quantization"] for training in self.trainings if training["quantization"] is not None]
        return quantized[-1] if quantized else None

    @classmethod
    def from_pretrained(cls, model: str | PathLike[str]) -> EdgeminConfig:
        """Read the file beside a model.

        Args:
            model: Folder or Hub id.

        Raises:
            ValueError: If there is no such file, or it is not of this kind.
        """
        file: Path | str = Path(model) / EDGEMIN_CONFIG
        if not Path(model).is_dir():
            from transformers.utils import cached_file

            try:
                file = str(cached_file(str(model), EDGEMIN_CONFIG))
            except OSError as error:
                reason = str(error).strip().splitlines()[0]
                raise ValueError(f"{model}: expected a model with {EDGEMIN_CONFIG} ({reason})") from error
        elif not Path(file).is_file():
            raise ValueError(f"{model}: expected {EDGEMIN_CONFIG} in it, which a training saves")
        return cls.from_dict(json.loads(Path(file).read_text(encoding="utf-8")))

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write the file beside a model, atomically."""
        write_atomic(Path(folder) / EDGEMIN_CONFIG, json.dumps(self.to_dict(), indent=2) + "\n")
