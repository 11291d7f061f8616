"""The examples of public docstrings, run."""

import doctest
import importlib
import inspect
import pkgutil
from importlib.util import find_spec

import pytest
import torch
from typing_extensions import is_protocol

import edgemin_hf

PACKAGES = ["edgemin_hf", *(m.name for m in pkgutil.walk_packages(edgemin_hf.__path__, "edgemin_hf.") if m.ispkg)]
GUESTS = {"edgemin_hf.neural_compressor": "neural_compressor", "OpenVino": "openvino"}
"""What an example says that needs a package which need not be installed, and the package."""

NOT_SHOWN = [
    "benchmark.rows", "data.perturbation", "recipe.analysis", "recipe.training_curve", "report.analysis",
    "report.words", "tasks.metrics.agreement", "tasks.metrics.analysis", "tasks.metrics.calibration",
    "tasks.metrics.class_changes", "tasks.metrics.slices", "training.tokens", "utils.energy", "utils.network",
]  # fmt: skip
"""Modules with examples of what no package shows."""


def can_have_an_example(public):
    """Constants, type aliases, protocols and errors have none."""
    if inspect.isclass(public):
        return not is_protocol(public) and not issubclass(public, Exception)
    return inspect.isfunction(public)


def public_things():
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            if package == "edgemin_hf" or name not in edgemin_hf.__all__:  # once
                yield pytest.param(getattr(module, name), id=f"{package}.{name}")


@pytest.fixture(autouse=True)
def as_many_threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("public", [thing for thing in public_things() if can_have_an_example(thing.values[0])])
def test_an_example_gives_what_it_says(public, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # With no names but those that it imports itself.
    found = doctest.DocTestFinder(recurse=False).find(public, public.__name__, globs={"__name__": "__main__"})
    (test,) = [t for t in found if t.examples]  # each has an example
    said = "".join(example.source for example in test.examples)
    missing = [package for word, package in GUESTS.items() if word in said and find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {missing[0]}")
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert results.attempted
    assert not results.failed, capsys.readouterr().out


@pytest.mark.parametrize("name", NOT_SHOWN)
def test_examples_of_what_no_package_shows_run_too(name):
    done = doctest.testmod(importlib.import_module(f"edgemin_hf.{name}"))
    assert (done.failed, done.attempted > 0) == (0, True)
