"""The files of a checkpoint's weights, looked at without reading them: complete, safetensors, and listed rightly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SENTENCE_FILE = re.compile(
    r"modules\.json|sentence_[a-z-]+_config\.json|config_sentence_transformers\.json|\d+_\w+/config\.json"
    r"|\d+_Dense/model\.safetensors"
)
"""How sentence-transformers reads an embedding off the model: a student of it is read so too."""
_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_POINTER = b"version https://git-lfs"
_LARGEST_HEADER = 100_000_000  # as safetensors itself has it
_FLOATS = ("F64", "F32", "F16", "BF16")

Shapes = dict[str, tuple[int, ...]]
"""The shape of each tensor, by its name."""


class WeightsError(ValueError):
    """A checkpoint whose weights are not what they should be: one line that names files or tensors."""


def weight_shapes(folder: Path) -> Shapes:
    """Read the names and shapes of a checkpoint's tensors from the heads of its files, and check these.

    Args:
        folder: A folder with `model.safetensors`, or with several such files and their index.

    Returns:
        The shape of each tensor.

    Raises:
        WeightsError: If there are no safetensors, a file is cut off, empty or a pointer to one that was not fetched, or
            the index lists what the files do not hold.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from edgemin_hf.utils.weight_files import weight_shapes
        >>> with TemporaryDirectory() as folder:
        ...     save_file({"weight": torch.zeros(2, 3)}, f"{folder}/model.safetensors")
        ...     weight_shapes(Path(folder))
        {'weight': (2, 3)}
    """
    if (folder / WEIGHTS).is_file():
        return _shapes_in(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise WeightsError(f"folder {str(folder)!r} holds no {WEIGHTS}{_conversion(folder)}")
    listed = _listed(folder / INDEX)
    found: Shapes = {}
    for shard in sorted(set(listed.values())):
        if not (folder / shard).is_file():
            raise WeightsError(f"folder {str(folder)!r} holds no {shard}, which {INDEX} lists; fetch it")
        held = _shapes_in(folder / shard)
        wrong = [name for name, place in listed.items() if (place == shard) != (name in held)]
        wrong += [name for name in held if name not in listed]
        if wrong:
            raise WeightsError(
                f"{folder / INDEX} is wrong about {names_of(wrong)} of {shard}; expected: where each tensor is"
            )
        found |= held
    return found


def names_of(names: list[str], most: int = 3) -> str:
    """Return a few names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _listed(index: Path) -> dict[str, str]:
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(shard) for name, shard in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{index}, which is no index of weights; expected: JSON with a weight_map") from None


def _shapes_in(file: Path) -> Shapes:
    """Read the head of a safetensors file: 8 bytes with the length of a JSON object, which tells where tensors lie."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        begin = stream.read(len(_POINTER))
        if begin.startswith(_POINTER):
            raise WeightsError(f"{file}, a Git LFS pointer instead of the weights; expected after: git lfs pull")
        length = int.from_bytes(begin[:8], "little")
        stream.seek(8)
        head = stream.read(length) if size >= 8 and length <= _LARGEST_HEADER else b""
    try:
        tensors = {name: entry for name, entry in json.loads(head).items() if name != "__metadata__"}
        ends = [int(entry["data_offsets"][1]) for entry in tensors.values()]
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(
            f"{file}, of {size:,} bytes, is empty, cut off or no safetensors file; expected: a complete one"
        ) from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise WeightsError(f"{file}, of {size:,} bytes, is cut off or broken; expected: {expected:,} bytes")
    for name, entry in tensors.items():
        # Weights of a quantised or packed checkpoint; masks and positions that are integers are read by nobody.
        if name.endswith(".weight") and entry["dtype"] not in _FLOATS:
            raise WeightsError(f"{file}: {name} is {entry['dtype']}; allowed: {', '.join(_FLOATS)}, not quantised")
    return shapes


def _conversion(folder: Path) -> str:
    """Tell how to make one of the weights that are there; only safetensors are loaded, never pickle files."""
    others: list[str] = [path.name for path in _files(folder)]
    if not others:
        return ""
    try:
        names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
        name = str(names[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        name = "AutoModel"
    return (
        f", but {names_of(others)}; convert what you trust, in Python: "
        f"transformers.{name}.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    )


def _files(folder: Path) -> Iterator[Path]:
    for pattern in _OTHER_FORMATS:
        yield from (path for path in sorted(folder.glob(pattern)) if path.name != "training_args.bin")
