import importlib
import pkgutil
import subprocess
import sys

import pytest

import edgemin_hf

PACKAGES = ["edgemin_hf", *(m.name for m in pkgutil.walk_packages(edgemin_hf.__path__, "edgemin_hf.") if m.ispkg)]
HEAVY = """
import sys
heavy = {"torch", "transformers", "numpy", "datasets", "pydantic", "optimum", "onnx", "onnxruntime", "matplotlib"}
found = heavy & sys.modules.keys()
assert not found, found
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_resolves(package):
    module = importlib.import_module(package)
    for name in module.__all__ if hasattr(module, "__all__") else ():
        assert getattr(module, name).__class__.__name__ != "module", name
    if package == "edgemin_hf":
        assert {"DistillationTrainer", "create_student", "export_onnx"} <= set(module.__all__)
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = module.no_such_name


def test_the_package_is_imported_without_what_its_names_need():
    subprocess.run(
        [sys.executable, "-c", "import edgemin_hf; edgemin_hf.__version__, dir(edgemin_hf)" + HEAVY], check=True
    )


def test_help_needs_none_of_it_either():
    code = "import contextlib\nfrom edgemin_hf.cli import main\nwith contextlib.suppress(SystemExit): main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code + HEAVY], check=True, capture_output=True, text=True)
    assert "sensitivity" in done.stdout
