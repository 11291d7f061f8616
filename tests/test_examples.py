"""The examples of public docstrings, run."""

import doctest
import importlib

import pytest

import edgemin_hf


@pytest.mark.parametrize("name", sorted({*edgemin_hf.__all__} - {"export_onnx"}))
def test_an_example_gives_what_it_says(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    public = getattr(edgemin_hf, name)
    scope = vars(importlib.import_module(public.__module__)).copy()
    (test,) = [  # each has an example
        t for t in doctest.DocTestFinder(recurse=False).find(public, name, globs=scope) if t.examples
    ]
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert results.attempted
    assert not results.failed, capsys.readouterr().out
