"""The README's examples of the Trainer run as they stand, with a tiny teacher under the name that they load."""

import re
from pathlib import Path

import pytest
import torch

from tests.helpers.figures import parsed
from tests.helpers.models import FAMILIES

README = Path(__file__).parents[2] / "README.md"
CARDS = README.parent / "model_cards"


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models as tiny as these are slower with more
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
def test_the_examples_of_the_trainer_run(tmp_path, monkeypatch, tokenizer, one_thread):
    text = README.read_text().partition("## Or use the Trainer")[2].partition("\n## ")[0]
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    (name,) = re.findall(r'^name = "([^"]+)"', code, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    kind, config = FAMILIES["distilbert"]
    shape = {"dim": 96, "n_heads": 12, "n_layers": 6}  # as many heads and layers, and as even a width
    config = type(config)(**{**config.to_diff_dict(), **shape, "id2label": {0: "NEGATIVE", 1: "POSITIVE"}})
    kind(config).save_pretrained(name)
    tokenizer.save_pretrained(name)
    names = {}
    exec(compile(code, str(README), "exec"), names)
    assert names["trainer"].state.global_step == 3 * 64 // 8
    assert {type(names[model].classifier).__name__ for model in ("model", "trained")} == {"FakeQuantLinear"}
    assert Path("out/edge/onnx/model_quantized.onnx").is_file()
    assert Path("out/model/edgemin_config.json").is_file()


def test_the_numbers_of_the_showcase_are_those_of_its_runs():
    """Its tables are the published cards', which the runs wrote from their JSON."""
    cards = "".join(
        (CARDS / name / "README.md").read_text() for name in ("minilm-l3-banking77", "minilm-l3-banking77-domain")
    )
    section = README.read_text().split("## What the quickstart measures")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(lines) > 10
    assert not [line for line in lines if line not in cards]
    sentences = [line for line in section.splitlines() if line.startswith("- It ")]
    assert sentences
    assert not [line for line in sentences if line not in cards]


def test_the_figure_of_the_front_is_the_published_card_s():
    """It stands first in both, its file lies beside the card, and it tells what the card's table does."""
    card = (CARDS / "minilm-l3-banking77" / "README.md").read_text()
    [(words, file)] = re.findall(r"^!\[(.*)\]\((.*)\)$", README.read_text(), re.MULTILINE)
    assert README.read_text().index(file) < README.read_text().index("\n## ")
    assert f"![{words}]({Path(file).relative_to('model_cards/minilm-l3-banking77')})" in card.split("\n## ")[0]
    assert parsed((README.parent / file).read_text()).get("aria-label") == words
    table = card.split("## Beside the lazy ways")[1].split("\n\n")[1].splitlines()[2:]
    for name, value, _, latency, size, _ in ([cell.strip() for cell in line.split("|")[1:-1]] for line in table):
        assert f"{name}: {value.split()[0]}% at {latency} ms, {size} MB" in words
