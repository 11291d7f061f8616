"""What was measured so far, on disk: after a kill it is not measured again."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgemin_hf import __version__
from edgemin_hf.pruning.saliency import Saliency
from edgemin_hf.utils.atomic_files import write_atomic

logger = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]


class Kept:
    """Measurements in a hidden folder beside the output; those of anything else are deleted.

    Args:
        output: The folder of the result.
        asked: What the measurements depend on, as plain values.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from edgemin_hf.sensitivity.kept import Kept
        >>> with TemporaryDirectory() as folder:
        ...     Kept(Path(folder, "out"), ["a"]).take("cuts-0", lambda: {"x": np.ones(2)})["x"].tolist()
        ...     Kept(Path(folder, "out"), ["a"]).take("cuts-0", lambda: {"x": np.zeros(2)})["x"].tolist()
        [1.0, 1.0]
        [1.0, 1.0]
    """

    def __init__(self, output: Path, asked: Sequence[object]) -> None:
        self._folder = output.absolute().with_name(f".{output.absolute().name}.measured")
        content = json.dumps([__version__, *asked], sort_keys=True, default=str)
        key = hashlib.sha256(content.encode()).hexdigest()
        file = self._folder / "key"
        if not file.is_file() or file.read_text(encoding="utf-8") != key:
            self.clear()
            write_atomic(file, key)
        elif found := len(list(self._folder.glob("*.safetensors"))):
            logger.info("%d measurements of before are taken up", found)

    def take(self, name: str, measure: Callable[[], Arrays]) -> Arrays:
        """Return what was measured under a name, or measure it now."""
        file = self._folder / f"{name}.safetensors"
        if file.is_file():
            found: Arrays = load_file(file)
            return found
        measured = {key: np.ascontiguousarray(value) for key, value in measure().items()}
        partial = file.with_suffix(".partial")
        save_file(measured, partial)
        partial.replace(file)
        return measured

    def saliency(self, measure: Callable[[], Saliency]) -> Saliency:
        """Return the saliency, as `take` does."""

        def arrays() -> Arrays:
            found = measure()
            parts = {"heads": found.heads, "neurons": found.neurons}
            told = {
                f"{kind}.{layer}": one.numpy() for kind, layers in parts.items() for layer, one in enumerate(layers)
            }
            for layer, pair in enumerate(found.gradients or ()):
                told |= {f"gradients.{layer}.{part}": one.numpy() for part, one in enumerate(pair)}
            return told

        found = {name: torch.from_numpy(array) for name, array in self.take("saliency", arrays).items()}
        layers = range(sum(name.startswith("heads.") for name in found))
        pairs = [(found[f"gradients.{i}.0"], found[f"gradients.{i}.1"]) for i in layers if f"gradients.{i}.0" in found]
        return Saliency([found[f"heads.{i}"] for i in layers], [found[f"neurons.{i}"] for i in layers], pairs or None)

    def clear(self) -> None:
        """Delete all."""
        shutil.rmtree(self._folder, ignore_errors=True)
