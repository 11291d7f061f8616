"""The site's navigation and the pages that are made for it, without mkdocs."""

import importlib
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

import edgemin_hf

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def hooks():
    spec = spec_from_file_location("site_hooks", DOCS / "hooks.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(nav):
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav if isinstance(nav, list) else nav.values()) for page in pages_of(part)]


def test_the_navigation_has_every_page_once(hooks):
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = pages_of(nav)
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(pages) == sorted({*written, *hooks.GENERATED, "api"})


def test_the_api_tells_every_public_name_of_every_package(hooks):
    pages = hooks.api_pages()
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in hooks.PACKAGE.rglob("__init__.pyi")}
    assert set(pages) == {f"api/{package}.md" for package in packages}
    told = [line.removeprefix("::: ") for page in pages.values() for line in page.splitlines() if line[:4] == "::: "]
    assert len(told) == len(set(told))
    public = {name for package in packages for name in importlib.import_module(package).__all__}
    assert {place.rpartition(".")[2] for place in told} == public
    assert "edgemin_hf.DistillationTrainer" in told
    assert "edgemin_hf.training.DistillationTrainer" not in told  # but a link to it
    assert "[`DistillationTrainer`][edgemin_hf.DistillationTrainer]" in pages["api/edgemin_hf.training.md"]
    assert edgemin_hf.__doc__.splitlines()[0] in pages["api/edgemin_hf.md"]


@pytest.mark.parametrize(("page", "link", "target"), [
    ("docs/recipes.md", "quantization.md", "docs/quantization.md"),
    ("docs/tutorials/reranking.md", "../recipes.md", "docs/recipes.md"),
    ("docs/design.md", "../recipes/quickstart.yaml", "recipes/quickstart.yaml"),
    ("README.md", "recipes", "recipes/README.md"),
    ("README.md", "https://arxiv.org/abs/2012.15828", None),
    ("README.md", "nowhere.md", None),
])  # fmt: skip
def test_links_name_files_of_the_repository(hooks, page, link, target):
    assert hooks._target(page, link) == target


def anchors(hooks, page):
    """Return the names of a page's headings, as the site makes them, and those that it gives itself."""
    text = "".join(text for text, is_code in hooks._parts(page.read_text()) if not is_code)
    headings = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ (.*)", text, re.MULTILINE)]
    named = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'<a id="([^"]+)">', text))


def test_every_link_of_a_page_leads_somewhere(hooks):
    links = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
    for page in (*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CHANGELOG.md", "recipes/README.md"))):
        place = page.relative_to(ROOT).as_posix()
        text = "".join(text for text, is_code in hooks._parts(page.read_text()) if not is_code)
        for link, anchor in links.findall(re.sub(r"`[^`\n]*`", "", text)):
            target = place if not link else hooks._target(place, link)
            assert "://" in link or target, f"{place}: {link}"
            if anchor and target and target.endswith(".md"):
                assert anchor in anchors(hooks, ROOT / target), f"{place}: {link}#{anchor}"


def test_a_page_outside_docs_is_linked_from_where_it_stands_on_the_site(hooks):
    class Page:
        class file:  # noqa: N801
            src_uri = "tutorials/reranking.md"

    found = hooks.on_page_markdown("[a](../../recipes/squad.yaml) [b](../recipes.md#teachers) `[c](x)`\n", page=Page)
    assert found == "[a](../recipes/squad.yaml) [b](../recipes.md#teachers) `[c](x)`\n"
    Page.file.src_uri = "index.md"
    found = hooks.on_page_markdown(
        "![f](model_cards/minilm-l3-banking77/figures/rivals.svg) [d](docs/design.md)", page=Page
    )
    assert found == "![f](model_cards/minilm-l3-banking77/figures/rivals.svg) [d](design.md)"
