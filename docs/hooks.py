"""What the site has beside docs/: the README, pages made of the code, and files of the repository that pages link to.

On the site docs/ is the root and every other file stands where it stands in the repository, so that the links that work
there work here.
"""

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgemin_hf"
OTHER_NAMES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root, by their names on the site."""
GENERATED = {*OTHER_NAMES.values(), "recipe-reference.md"}
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_CODE = re.compile(r"^(?:```.*?^```|    [^\n]*)", re.DOTALL | re.MULTILINE)


def api_pages() -> dict[str, str]:
    """Return a page for each package with the names that its `__init__.pyi` makes public, by its name on the site."""
    pages: dict[str, str] = {}
    above: dict[str, str] = {}  # what a package further up has made its own, and by which name it is told there
    for stub in sorted(PACKAGE.rglob("__init__.pyi"), key=lambda path: (len(path.parts), path)):
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        imports = [
            node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
        ]
        names = {
            f"{package}.{alias.name}": f"{package}.{node.module}.{alias.name}"
            for node in imports
            for alias in node.names
        }
        words = ast.get_docstring(ast.parse(stub.with_suffix(".py").read_text(encoding="utf-8"))) or ""
        told = [f"::: {name}" for name in names if name not in above]
        others = ", ".join(f"[`{name.rpartition('.')[2]}`][{above[name]}]" for name in names if name in above)
        further = f"Told with a package above it: {others}.\n" if others else ""
        pages[f"api/{package}.md"] = "\n".join([f"# {package}\n\n{words}\n\n{further}", *told, ""])
        above |= {place: above.get(name, name) for name, place in names.items()}
    return pages


def on_config(config: Any) -> Any:
    """Put the pages of the packages into the navigation."""
    pages = [{page.removeprefix("api/").removesuffix(".md"): page} for page in api_pages()]
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    reference[:] = [{"API": pages} if part == {"API": "api"} else part for part in reference]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what is made of the code, and what pages link to outside docs/."""
    from mkdocs.structure.files import File

    from edgemin_hf.recipe.reference import reference

    for name, content in {**api_pages(), "recipe-reference.md": reference()}.items():
        files.append(File.generated(config, name, content=content))
    for place in sorted(_linked()):
        path = ROOT / place
        text = {"content": path.read_text(encoding="utf-8")} if path.suffix == ".md" else {"abs_src_path": str(path)}
        files.append(File.generated(config, _on_site(place), **text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Have links say where files are on the site; without a page for a folder, its name alone is left."""
    place = _in_repository(page.file.src_uri)
    return "".join(
        text if is_code else _LINK.sub(lambda link: _relinked(link, place, page.file.src_uri), text)
        for text, is_code in _parts(markdown)
    )


def _relinked(link: re.Match[str], place: str, page: str) -> str:
    target = _target(place, link[2])
    if target is None:
        return link[0]
    if (ROOT / target).is_dir():
        return link[1].removeprefix("!")[1:-2]
    found = posixpath.relpath(_on_site(target), posixpath.dirname(page) or ".")
    return f"{link[1]}{found}{link[3] or ''}{link[4]}"


def _linked() -> set[str]:
    """Return the files outside docs/ that pages link to, and those that these link to, by their places."""
    found: set[str] = set(OTHER_NAMES)
    todo = [*found, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
    while todo:
        place = todo.pop()
        text = "".join(text for text, is_code in _parts((ROOT / place).read_text(encoding="utf-8")) if not is_code)
        for link in _LINK.finditer(text):
            target = _target(place, link[2])
            if target and (ROOT / target).is_file() and not target.startswith("docs/") and target not in found:
                found.add(target)
                todo += [target] if target.endswith(".md") else []
    return found


def _target(place: str, link: str) -> str | None:
    """Return the file or folder of the repository that a link on a page names; None where it is an address."""
    if re.match(r"[a-z]+:", link):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    if (ROOT / target / "README.md").is_file():
        target = posixpath.join(target, "README.md")
    return target if (ROOT / target).exists() else None


def _on_site(place: str) -> str:
    return OTHER_NAMES.get(place) or place.removeprefix("docs/")


def _in_repository(page: str) -> str:
    named = {on_site: place for place, on_site in OTHER_NAMES.items()}
    return named.get(page) or (f"docs/{page}" if (ROOT / "docs" / page).is_file() else page)


def _parts(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a page in turn, and whether each is code, where brackets are no links."""
    end = 0
    for code in _CODE.finditer(markdown):
        yield markdown[end : code.start()], False
        yield code[0], True
        end = code.end()
    yield markdown[end:], False
