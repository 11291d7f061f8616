"""The target that `transformers` loads: the checkpoint in full precision, with its configuration."""

from __future__ import annotations

import logging
from math import prod
from pathlib import Path

from safetensors import safe_open

from edgemin_hf.export.base import TrainedModel
from edgemin_hf.export.manifest import ManifestEntry, Output, size_of
from edgemin_hf.export.outputs import torch_outputs
from edgemin_hf.modeling.embedder_files import write_sentence_folder
from edgemin_hf.utils.content import digest_of
from edgemin_hf.utils.weight_files import WEIGHTS

logger = logging.getLogger(__name__)


class CheckpointTarget:
    """Write `config.json` and `model.safetensors`, and what sentence-transformers reads beside them."""

    def write(self, trained: TrainedModel, folder: Path) -> tuple[ManifestEntry, ...]:
        """Write the checkpoint; see `Target`."""
        trained.plain.save_pretrained(folder)
        if not write_sentence_folder(trained.model, folder):
            logger.warning(
                "the model has no head, and its teacher no modules of sentence-transformers: that reads the folder by "
                "the mean of the tokens, not normalised; write its modules.json where the embedding is another"
            )
        return (checkpoint_entry(folder, torch_outputs(trained.plain, trained.tokenizer)),)


def checkpoint_entry(folder: Path, outputs: tuple[Output, ...] = ()) -> ManifestEntry:
    """Tell what a manifest says of a checkpoint.

    Args:
        folder: The folder of `model.safetensors`.
        outputs: As in `ManifestEntry`.

    Returns:
        The entry.
    """
    file = folder / WEIGHTS
    with safe_open(file, "pt") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    return ManifestEntry(
        file=WEIGHTS,
        runtime="pytorch",
        precision="fp32",
        bytes=size_of([file]),
        sha256=digest_of([file]),
        parameters=sum(map(prod, shapes)),
        outputs=outputs,
    )
