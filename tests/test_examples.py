"""The examples of public docstrings, run."""

import doctest
import importlib

import pytest

import edgemin_hf

NAMES = [name for name in edgemin_hf.__all__ if ">>>" in (getattr(edgemin_hf, name).__doc__ or "")]


def test_there_are_examples():
    assert {"EdgeminConfig", "load_quantized", "prune", "quantize", "DistillationTrainer"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_gives_what_it_says(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    public = getattr(edgemin_hf, name)
    scope = vars(importlib.import_module(public.__module__)).copy()
    (test,) = [t for t in doctest.DocTestFinder(recurse=False).find(public, name, globs=scope) if t.examples]
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert results.attempted
    assert not results.failed, capsys.readouterr().out
