"""The pages "How to add ..." are followed word for word: each on a copy of the package, by a process of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("add-a-*.md"))

_BLOCK = r"```\w+\n(?P<{}>.*?)```"
_STEP = re.compile(
    rf"^Write `(?P<file>[^`]+)`:\n\n{_BLOCK.format('content')}"
    rf"|^In `(?P<edited>[^`]+)`, replace\n\n{_BLOCK.format('old')}\n\nwith\n\n{_BLOCK.format('new')}"
    rf"|^Run `python (?P<script>[^`]+)`. It prints\n\n{_BLOCK.format('printed')}",
    re.DOTALL | re.MULTILINE,
)

# What all scripts import is imported once; they then run side by side, in processes without any of the package yet.
_RUNNER = """
import gc, os, runpy, sys, traceback
import datasets, matplotlib.pyplot, onnxruntime, pydantic, scipy.stats, torch
from transformers import BertForMaskedLM, BertTokenizerFast, ModernBertModel, Trainer

def run(place, script):
    os.chdir(place)
    out = os.open("printed.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1), os.dup2(out, 2)
    sys.path.insert(0, place)
    runpy.run_path(script, run_name="__main__")

gc.freeze()  # as tests/helpers/garbage.py does
children = []
for place, script in zip(sys.argv[1::2], sys.argv[2::2]):
    if (child := os.fork()) == 0:
        code = 1
        try:
            run(place, script)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    children.append(child)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def follow(page: Path, place: Path) -> tuple[str, str]:
    """Do what a page says in a checkout; return the script that it runs, and what that should print."""
    ran = None
    for step in _STEP.finditer(page.read_text()):
        found = step.groupdict()
        if found["file"]:
            assert not (place / found["file"]).exists(), f"{page.name}: {found['file']} is there already"
            (place / found["file"]).write_text(found["content"])
        elif found["edited"]:
            text = (place / found["edited"]).read_text()
            assert text.count(found["old"].rstrip("\n")) == 1, f"{page.name}: {found['old']!r} in {found['edited']}"
            edited = text.replace(found["old"].rstrip("\n"), found["new"].rstrip("\n"))
            (place / found["edited"]).write_text(edited)
        else:
            ran = found["script"], found["printed"]
    assert ran, f"{page.name}: tells no command that shows that it works"
    return ran


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    places, expected = {}, {}
    for page in PAGES:
        places[page] = tmp_path_factory.mktemp(page.stem)
        shutil.copytree(ROOT / "edgemin_hf", places[page] / "edgemin_hf", ignore=shutil.ignore_patterns("__pycache__"))
        expected[page] = follow(page, places[page])
    arguments = [str(part) for page in PAGES for part in (places[page], expected[page][0])]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    codes = dict(zip(PAGES, map(int, done.stdout.split()), strict=True))
    return {page: (codes[page], (places[page] / "printed.txt").read_text(), expected[page][1]) for page in PAGES}


def test_every_seam_has_a_page():
    seams = ("family", "method", "stage", "target", "task")
    assert [page.stem for page in PAGES] == [f"add-a-{seam}" for seam in seams]


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_works(page, followed):
    code, printed, expected = followed[page]
    assert code == 0, printed
    lines = printed.splitlines()
    for line in expected.splitlines():
        assert line in lines, printed
        lines = lines[lines.index(line) + 1 :]
