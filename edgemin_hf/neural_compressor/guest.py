"""Intel Neural Compressor (INC) as a guest: importing it without its noise, and its configuration beside a model."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgemin_hf.utils.extras import check_extra

if TYPE_CHECKING:  # for those outside of this package, which alone imports INC
    from neural_compressor.config import QuantizationAwareTrainingConfig as QuantizationAwareTrainingConfig
    from neural_compressor.config import WeightPruningConfig as WeightPruningConfig

INC_CONFIG = "inc_config.json"


@contextmanager
def importing_inc(setting: str) -> Iterator[None]:
    """Silence what INC says when it is imported, and from then on what it says of every mask of every step.

    Unless the user sets LOGLEVEL, which INC reads.

    Args:
        setting: What asks for it, such as "saliency: magnitude".

    Raises:
        ValueError: If it is not installed.
    """
    check_extra("inc", setting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of pkg_resources
        yield
    if "LOGLEVEL" not in os.environ:
        logging.getLogger("neural_compressor").setLevel(logging.WARNING)


def merge_inc_configs(sources: Iterable[str | Path], folder: str | Path) -> None:
    """Write one `inc_config.json` for a model that several trainings made; none where INC had no part in them.

    Args:
        sources: The folders that the trainings left, in their order.
        folder: The model's folder.
    """
    parts: dict[str, object] = {}
    for file in (Path(source) / INC_CONFIG for source in sources):
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            parts |= {part: found[part] for part in ("pruning", "quantization") if found[part]}
    if parts:
        write_inc_config(folder, **parts)


def write_inc_config(folder: str | Path, **parts: object) -> None:
    """Write `inc_config.json`, which Optimum Intel's INCTrainer puts beside a model, with its class.

    Args:
        folder: The model's folder.
        **parts: "pruning" or "quantization", as Optimum's `INCConfig` takes them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its deprecation: the last release that has it is pinned
        from optimum.intel.neural_compressor import INCConfig
    INCConfig(**parts).save_pretrained(folder)
