"""Modules that moved: for one version their old paths still lead to them, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "edgemin_hf.augmentation": "edgemin_hf.data.augmentation",
    "edgemin_hf.benchmark.report": "edgemin_hf.report.page",
    "edgemin_hf.corpus": "edgemin_hf.data.corpus",
    "edgemin_hf.loading": "edgemin_hf.modeling.loading",
    "edgemin_hf.metrics": "edgemin_hf.tasks.metrics",
    "edgemin_hf.quantization.sensitivity": "edgemin_hf.sensitivity.quantization",
    "edgemin_hf.raw_text": "edgemin_hf.data.raw_text",
    "edgemin_hf.student": "edgemin_hf.modeling.student",
    "edgemin_hf.trainer": "edgemin_hf.training.trainer",
}
"""The old path of each module whose public names README or CHANGELOG mention, and its new one."""


class _MovedModules(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, MOVED[module.__name__]
        # What stands in `sys.modules` after this call is what an import gives: the module itself, not a copy.
        sys.modules[old] = import_module(new)
        warnings.warn(f"{old} is now {new}; the old path goes with the next version", DeprecationWarning, stacklevel=2)


def keep_old_paths() -> None:
    """Let `import` find the modules of `MOVED` by their old paths."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
