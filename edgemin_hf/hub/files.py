"""Which files of an artefact are published: what its manifest lists, and the card with what it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemin_hf.export.manifest import Manifest, read_manifest
from edgemin_hf.runtime.artefact import CARD, MANIFEST
from edgemin_hf.runtime.pull import pictures_of

REQUIRED_FILES = (CARD, "config.json")
"""What an artefact holds beside its manifest and the models that this lists."""
_MOST_NAMES = 8


@dataclass(frozen=True)
class Published:
    """Of an artefact's files, what is published and what is not.

    Attributes:
        folder: The artefact's folder.
        manifest: Its manifest.
        names: The files to publish, relative to the folder, in alphabetical order.
        left_out: What lies beside them: files, or folders of which nothing is published ("checkpoint-12/").

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.export import Manifest
        >>> from edgemin_hf.hub import Published
        >>> manifest = Manifest(1, "text_classification", "text-classification", (), ())
        >>> Published(Path("edge"), manifest, ("README.md", "edgemin.json"), (".env", "notes/")).left_out_line
        'left out, since edgemin.json does not list it: .env, notes/'
    """

    folder: Path
    manifest: Manifest
    names: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def left_out_line(self) -> str | None:
        """A line that names what is left out; None where nothing is."""
        if not self.left_out:
            return None
        more = len(self.left_out) - _MOST_NAMES
        names = ", ".join(self.left_out[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        return f"left out, since {MANIFEST} does not list it: {names}"

    def listing(self) -> str:
        """Lay out files and their sizes for a terminal, with the sum at the end."""
        sizes = {name: (self.folder / name).stat().st_size for name in self.names}
        width = max(map(len, self.names))
        lines = [f"{name:<{width}}  {size:>13,} bytes" for name, size in sizes.items()]
        return "\n".join([*lines, f"{len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB"])


def published_files(folder: str | Path) -> Published:
    """Sort the files of an artefact into those to publish and those that are left out.

    Raises:
        ValueError: If the folder lacks a file, or one is not as its manifest tells; one line.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.export import Manifest
        >>> from edgemin_hf.hub import published_files
        >>> with TemporaryDirectory() as above:
        ...     folder = Path(above)
        ...     _ = folder.joinpath("README.md").write_text("# My model")
        ...     _ = folder.joinpath("config.json").write_text("{}")
        ...     Manifest(1, "text_classification", "text-classification", (), ()).listing(folder).write(folder)
        ...     _ = folder.joinpath(".env").write_text("KEY=secret")
        ...     published_files(folder).names, published_files(folder).left_out
        (('README.md', 'config.json', 'edgemin.json'), ('.env',))
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    missing = [name for name in (*REQUIRED_FILES, *manifest.files) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{str(folder)!r} is no artefact: it lacks {', '.join(missing)}")
    if not manifest.further_files:
        raise ValueError(f"{folder / MANIFEST}: without further_files; expected: an artefact of this version's report")
    manifest.verify_files(folder)
    manifest.verify_further_files(folder)
    shown = [name for name in pictures_of((folder / CARD).read_text(encoding="utf-8")) if (folder / name).is_file()]
    names = sorted({MANIFEST, CARD, *shown, *manifest.files, *manifest.further_files})
    return Published(folder, manifest, tuple(names), tuple(_beside(folder, folder, names)))


def _beside(folder: Path, place: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield what lies in a place inside the folder and has none of the names."""
    for path in sorted(place.iterdir()):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir():
            if name not in names:
                yield name
        elif any(known.startswith(f"{name}/") for known in names):
            yield from _beside(folder, path, names)
        else:
            yield f"{name}/"
