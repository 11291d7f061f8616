"""Each tutorial is done from top to bottom as it stands, with a tiny random teacher under the name that it loads."""

import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, BertTokenizerFast

from edgemin_hf.cli import main
from edgemin_hf.tasks.known import TASKS
from tests.helpers.models import VOCABULARY, tiny
from tests.modeling.test_embedder import embedder
from tests.modeling.test_embedder import save as save_embedder

FOLDER = Path(__file__).parents[2] / "docs/tutorials"
TUTORIALS = {page.stem.replace("-", "_"): page for page in sorted(FOLDER.glob("*.md"))}
TO_THE_END = ("text_classification", "token_classification")
"""Those that CI runs to their end; of the others it makes the data and the plan."""
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SHAPE = {"max_position_embeddings": 386, "num_hidden_layers": 4}


def write_teacher(task, page, folder):
    """Write a teacher as the tutorial names it, whose tokenizer knows the page's words."""
    folder.mkdir(parents=True)
    words = dict.fromkeys(re.findall(r"[a-z]+", page.read_text().lower()))
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys([*VOCABULARY, *words])))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=384)
    changes = {**_SHAPE, "vocab_size": len(tokenizer)}
    if task == "sentence_embedding":
        save_embedder(embedder(**changes), folder, tokenizer)
        return
    heads = {"masked_lm": AutoModelForMaskedLM, "reranking": AutoModelForSequenceClassification}
    if task == "reranking":
        changes |= {"num_labels": 1}
    tiny(head=heads.get(task, AutoModel), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def commands_of(block):
    found = [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]
    assert all(command[0] == "edgemin" for command in found), block
    return [command[1:] for command in found]


def follow(page, task, to_the_end):
    """Do what a tutorial says in the working folder; else go as far as the plan."""
    names = {"__name__": "__main__"}
    for language, block in _BLOCK.findall(page.read_text()):
        code = compile(block, str(page), "exec") if language == "python" else None
        if code:
            exec(code, names)
            continue
        for command in commands_of(block):
            if "--teacher" in command:
                write_teacher(task, page, Path(command[command.index("--teacher") + 1]))
            # All that is not as a reader types it: tiny models gain nothing by more threads.
            assert main([*command, *(["--set", "threads=1"] if command[0] == "run" else [])]) == 0, command
            if "--dry-run" in command and not to_the_end:
                return


def test_every_task_has_a_tutorial():
    assert set(TUTORIALS) == set(TASKS)


@pytest.mark.parametrize("task", TUTORIALS)
def test_the_first_half_of_a_tutorial_works(task, tmp_path, capsys):
    if task in TO_THE_END:
        pytest.skip("done to its end")
    with chdir(tmp_path):
        follow(TUTORIALS[task], task, to_the_end=False)
    assert "report" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("task", [
    pytest.param(task, marks=() if task in TO_THE_END else pytest.mark.slow) for task in TUTORIALS
])  # fmt: skip
def test_a_tutorial_works_to_its_end(task, tmp_path, capsys):
    with chdir(tmp_path):
        follow(TUTORIALS[task], task, to_the_end=True)
    printed = capsys.readouterr().out
    assert all(line in printed for line in re.findall(r"`(\w+_file: [^`]+)`", TUTORIALS[task].read_text()))
    (artefact,) = tmp_path.glob("runs/*/artefact")
    assert (artefact / "report.html").is_file()
    assert (artefact / "edgemin.json").is_file()
