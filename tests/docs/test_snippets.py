"""Every snippet of README and docs: Python runs, commands are ones that there are, stages have settings that there are.

The pages "How to add ..." are followed by `test_how_to_add.py`, and the README's Trainer is run by `test_readme.py`.
"""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

from edgemin_hf import QuantizationConfig, export_onnx, quantize
from edgemin_hf.cli import _parser
from edgemin_hf.recipe.keys import read_settings
from edgemin_hf.recipe.stages import STAGES
from tests.helpers.models import tiny
from tests.helpers.training import dataset

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "recipes/README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not page.name.startswith("add-a-")),
]
EXAMPLE = re.compile(r"^ {4}(?P<indented>.*)$|`(?P<inline>(?:edgemin|accelerate launch) [^`]+)`", re.MULTILINE)
COMMAND = re.compile(r"(?:^|\s)(?:edgemin|accelerate launch .*-m edgemin_hf) (?P<arguments>[a-z].*)")
TRAINER = "## Or use the Trainer"


def blocks(page, language):
    text = page.read_text()
    if page.name == "README.md":
        text = text.partition(TRAINER)[0] if language == "python" else text
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands():
    found = []
    for page in PAGES:
        for line in EXAMPLE.finditer(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
            command = COMMAND.search(line["indented"] or line["inline"])
            if command and not (line["indented"] or "").startswith(" "):
                found.append((page.name, command["arguments"], line["inline"] is not None))
    return found


# What the tutorials' recipes make is asked by their own test, `test_tutorials.py`, which follows them.
PYTHON = [(page, code) for page in PAGES if page.parent.name != "tutorials" for code in blocks(page, "python")]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer):
    """A folder with a tiny artefact where the pages have the quickstart's."""
    folder = tmp_path_factory.mktemp("snippets")
    model = tiny(num_labels=3)
    batches = DataLoader(dataset(), batch_size=8, collate_fn=DataCollatorWithPadding(tokenizer))
    quantize(model.eval(), QuantizationConfig(), batches)
    export_onnx(model, tokenizer, folder / "runs/quickstart/artefact")
    return folder


def test_the_pages_have_snippets():
    assert len(PYTHON) >= 3
    assert len(commands()) > 20


@pytest.mark.parametrize("page", sorted({page for page, _ in PYTHON}), ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, place, monkeypatch, capsys):
    """One snippet after the other, in one namespace; those of packages that are not here are left out."""
    monkeypatch.chdir(place)
    names, ran = {}, 0
    for code in blocks(page, "python"):
        try:
            for module in re.findall(r"^from (optimum\.\w+)", code, re.MULTILINE):
                __import__("openvino" if module == "optimum.intel" else module)
        except (ImportError, RuntimeError):
            continue
        exec(compile(code, str(page), "exec"), names)
        ran += 1
    assert ran or page.name != "README.md"
    assert capsys.readouterr().out or "print(" not in "".join(blocks(page, "python"))


@pytest.mark.parametrize(("page", "arguments", "inline"), commands())
def test_a_command_is_one_that_there_is(page, arguments, inline):
    """Its options are known, and a recipe that it names is there and has the settings that it changes."""
    words = shlex.split(re.split(r" (?:>|\|) ", arguments)[0], comments=True)
    told, options = io.StringIO(), None
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        options = _parser().parse_args(words)
    # In a sentence a command may stand without what it needs.
    assert options or "--help" in words or (inline and "are required" in told.getvalue()), told.getvalue()
    recipe = str(getattr(options, "recipe", ""))
    if recipe.startswith("recipes/") and "NAME" not in recipe:
        read_settings(ROOT / recipe, options.overrides)


@pytest.mark.parametrize(
    "line",
    [line for page in PAGES for block in blocks(page, "yaml") for line in block.splitlines() if "{stage:" in line],
)
def test_a_stage_has_settings_that_there_are(line):
    (settings,) = yaml.safe_load(line)
    kind = next(kind for kind in STAGES if kind.stage == settings["stage"])
    assert TypeAdapter(kind).validate_json(json.dumps(settings)).stage == settings["stage"]
