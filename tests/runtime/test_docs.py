"""The examples of README and docs/runtime.md run as they stand, on a tiny artefact."""

import re
import shutil
from pathlib import Path

from edgemin_hf.cli import _WITHOUT_FACTORY
from edgemin_hf.runtime.verification import LIMITS, QUANTIZED_LIMIT

ROOT = Path(__file__).parents[2]


def test_the_examples_run(made, tmp_path, monkeypatch, capsys):
    shutil.copytree(made("text_classification")[1], tmp_path / "runs/quickstart/artefact")
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text().partition("## Use it without PyTorch")[2].partition("\n## ")[0]
    for text in (readme, (ROOT / "docs/runtime.md").read_text()):
        snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert snippets
        for snippet in snippets:
            exec(snippet, {})
    assert capsys.readouterr().out.splitlines()[-1] == "(2, 3)"


def test_the_page_tells_the_limits():
    page = (ROOT / "docs/runtime.md").read_text()
    assert f"{LIMITS['fp32']:g} is allowed in fp32, and {QUANTIZED_LIMIT:g} of a quantised graph" in page


def test_the_page_tells_which_commands_need_no_factory():
    page = (ROOT / "docs/runtime.md").read_text()
    [told] = re.findall(r"every\s+command but (.*?) says so in one line", page)
    assert re.findall(r"`(\w+)`", told) == [command.__name__.strip("_") for command in _WITHOUT_FACTORY]
