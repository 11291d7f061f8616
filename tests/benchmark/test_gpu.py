import importlib
import json
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture
def gpu(monkeypatch):
    """The script, as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("gpu")


@pytest.mark.long
def test_it_measures_everything_on_a_cpu_and_what_must_hold_holds(gpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "METHODS", {name: gpu.METHODS[name] for name in ("minilmv2", "distilbert")})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--tiny", "--output", str(tmp_path / "rows.json")])
    gpu.main()
    tables = json.loads((tmp_path / "rows.json").read_text())["tables"]
    assert list(tables) == list(gpu.MEASURED)
    assert all(row["holds"] for rows in tables.values() for row in rows)
    cases = {row["case"] for row in tables["steps"]}
    assert cases == {f"{name} {precision}" for name in (*gpu.METHODS, "task") for precision in ("fp32", "bf16")}
    assert any(row["numbers"].get("1 - cosine", 0) > 0 for row in tables["steps"])  # it did compute in bf16
    assert "0 fail" in capsys.readouterr().out


def test_what_does_not_hold_is_named_and_ends_with_an_error(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "MEASURED", {"one": lambda bench: iter([gpu.Row("case", {"ms": 1.0}, False)])})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--tiny"])
    with pytest.raises(SystemExit, match="one: case"):
        gpu.main()


def test_gradients_that_turn_or_vanish_are_seen(gpu):
    exact = {"a": torch.tensor([1.0, 0.0, 2e-8]), "b": torch.tensor([3.0])}
    assert gpu.compared(exact, exact) == (pytest.approx(0), 0)
    vanished = {"a": torch.tensor([1.0, 0.0, 0.0]), "b": torch.tensor([3.0])}
    assert gpu.compared(exact, vanished) == (pytest.approx(0), pytest.approx(1 / 3))
    turned = {"a": torch.tensor([-1.0, 0.0, 2e-8]), "b": torch.tensor([3.0])}
    assert gpu.compared(exact, turned)[0] == pytest.approx(0.2)
    assert gpu.compared(exact, {"b": torch.tensor([3.0])}) == (1, 1)
