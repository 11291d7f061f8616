import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgemin_hf"


def test_the_contracts_of_the_floors_hold():
    # In a process of its own: it configures logging, and so disables all loggers that there are.
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--config", "pyproject.toml", "--no-cache"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_root_holds_packages_and_the_command_line_alone():
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__init__.pyi", "__main__.py", "cli.py", "py.typed"}
    folders = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_modules_import_from_where_a_name_is_defined_not_from_the_root():
    graph = grimp.build_graph("edgemin_hf", cache_dir=None)
    importers = graph.find_modules_that_directly_import("edgemin_hf")
    lines = [graph.get_import_details(importer=module, imported="edgemin_hf") for module in importers]
    assert {detail["line_contents"] for details in lines for detail in details} == {
        "from edgemin_hf import __version__"
    }
