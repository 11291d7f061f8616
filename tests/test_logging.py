import ast
import logging
from pathlib import Path

import pytest

import edgemin_hf
from edgemin_hf.cli import main
from tests.helpers.recipes import only, write_recipe

PACKAGE = Path(edgemin_hf.__file__).parent


def test_commands_alone_print():
    printing = set()
    for file in PACKAGE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        if any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls):
            printing.add(file.relative_to(PACKAGE).as_posix())
    assert printing == {"cli.py", "runtime/commands.py"}


@pytest.mark.long
def test_what_a_run_tells_goes_to_the_log_and_by_the_command_line_to_the_terminal_once(place, capsys, caplog):
    path = write_recipe(place, only("finetune"))
    with caplog.at_level(logging.INFO):
        assert main(["run", str(path)]) == 0
        assert main(["run", str(path)]) == 0
    told = capsys.readouterr()
    assert told.out.count("finetune: done in") == 1
    assert told.out.count("All stages done") == 2
    assert "INFO" not in told.err
    records = [record for record in caplog.records if "finetune: done in" in record.getMessage()]
    assert [record.name for record in records] == ["edgemin_hf.recipe.runner"]
