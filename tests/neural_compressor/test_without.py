import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long

SPY = """
import builtins, sys
imported, real = set(), builtins.__import__

def spy(name, globals=None, locals=None, fromlist=(), level=0):
    if ((globals or {}).get("__name__") or "").startswith("edgemin_hf") and level == 0:
        imported.update([name, *(f"{name}.{part}" for part in fromlist or ())])
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = spy
"""
IMPORT_ALL = """
import importlib, pkgutil
import edgemin_hf
names = [module.name for module in pkgutil.walk_packages(edgemin_hf.__path__, "edgemin_hf.")]
assert "edgemin_hf.neural_compressor.qat" in names
for name in names:
    if name != "edgemin_hf.__main__":
        importlib.import_module(name)
"""
TRAIN = """
sys.modules |= {"neural_compressor": None, "optimum": None}  # as where they are not installed
from pathlib import Path
from tests.helpers.training import RELATIONS, make
from transformers import BertTokenizerFast
from edgemin_hf import PruningConfig, QuantizationConfig, TaskDistillationConfig, export_onnx
from edgemin_hf.export.onnx import export_baseline
folder = Path(sys.argv[1])
tokenizer = BertTokenizerFast.from_pretrained(folder)
config = [RELATIONS, TaskDistillationConfig()]
asked = {"pruning_config": PruningConfig(ffn_sparsity=0.5), "quantization_config": QuantizationConfig()}
trainer = make(folder, tokenizer, config=config, max_steps=1, **asked)
trainer.train()
trainer.save_model()
assert export_onnx(trainer.model, tokenizer, folder / "edge").int8
export_baseline(folder / "edge", folder / "baseline")
"""
FOUND = """
assert "edgemin_hf.modeling.encoder" in imported and "torch" in imported
ours = ("neural_compressor", "optimum", "torch.ao", "torch.quantization")
sys.exit(", ".join(name for name in sorted(imported) if (name + ".").startswith(tuple(f"{o}." for o in ours))) or 0)
"""


def run(code, *arguments):
    command = [sys.executable, "-c", SPY + code + FOUND, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_nothing_imports_optimum_neural_compressor_or_torch_ao(tmp_path, tokenizer):
    """No module where it is loaded, and no function of a training and an export."""
    tokenizer.save_pretrained(tmp_path)
    run(IMPORT_ALL + "assert not {'neural_compressor', 'optimum'} & sys.modules.keys()\n" + TRAIN, str(tmp_path))
