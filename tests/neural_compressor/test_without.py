import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import edgemin_hf
names = [module.name for module in pkgutil.walk_packages(edgemin_hf.__path__, "edgemin_hf.")]
assert "edgemin_hf.neural_compressor.qat" in names
for name in names:
    if name != "edgemin_hf.__main__":
        importlib.import_module(name)
sys.exit(", ".join({"neural_compressor", "optimum.intel"} & sys.modules.keys()) or 0)
"""


def test_no_module_of_the_package_imports_neural_compressor():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
