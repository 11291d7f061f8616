"""What decides on a student's shape, in two processes that see different rows, and in one that sees all."""

import json

import pytest
import torch

from edgemin_hf.utils.processes import check_same, joined, own_share, share_from_first, summed
from tests.helpers.two_ranks import CUTS

GRADUAL = ["taylor, gradual", "snip_momentum, gradual"]
RANGES = ["calibrated", "ranges", "quantize"]


def run(forks, folder, processes):
    forks.run("tests.helpers.two_ranks", folder, processes=processes)
    return [json.loads(file.read_text()) for file in sorted(folder.glob("facts-*.json"))]


@pytest.fixture(scope="module")
def facts(tmp_path_factory, forks):
    """What one process came to, and what each of two did."""
    pytest.importorskip("neural_compressor")
    folder = tmp_path_factory.mktemp("ranks")
    (alone,) = run(forks, folder / "one", 1)
    first, second = run(forks, folder / "two", 2)
    return alone, first, second


@pytest.mark.long
@pytest.mark.parametrize(
    "decision", [*CUTS, *GRADUAL, "calibrated", "ranges", "prune", "quantize", "shared", "projections"]
)
def test_two_processes_decide_alike(facts, decision):
    _, first, second = facts
    assert first[decision] == second[decision]


@pytest.mark.long
@pytest.mark.parametrize("decision", [*CUTS, *GRADUAL, "prune"])
def test_two_processes_decide_as_one_does_by_all_rows(facts, decision):
    alone, first, _ = facts
    assert first[decision]["shape"] == alone[decision]["shape"]
    assert first[decision]["sums"] == pytest.approx(alone[decision]["sums"], rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("decision", RANGES)
def test_ranges_of_two_processes_are_those_of_one(facts, decision):
    alone, first, _ = facts
    for ours, theirs in zip(first[decision], alone[decision], strict=True):
        # A layer's input is rounded to the grids of those before it, which are other ones until the last batch was
        # seen: what it holds at most differs by steps of INT8.
        step = (theirs[1] - theirs[0]) / 255
        assert ours == pytest.approx(theirs, abs=4 * step)


@pytest.mark.long
def test_processes_that_differ_are_told_in_one_line(facts):
    _, first, second = facts
    for told in (first, second):
        assert told["shapes"].startswith("model: the student's tensors: not the same in all processes (1 differ")
        assert told["value"].startswith("the layer that goes: not the same")
        assert told["module"].startswith("projections: not the same")


def test_one_process_agrees_with_itself():
    rows = torch.arange(6.0).view(3, 2)
    check_same("anything", {"a": [1, 2]})
    share_from_first("model", [torch.nn.Linear(2, 2)])
    assert summed(rows) is rows
    assert joined(rows) is rows


def test_no_more_rows_are_read_than_asked_for():
    def batches():
        yield {"input_ids": torch.arange(4)}
        yield {"input_ids": torch.arange(4, 8)}
        raise AssertionError("read on")

    assert torch.cat([batch["input_ids"] for batch in own_share(batches(), 6)]).tolist() == list(range(6))
    assert torch.cat([batch["input_ids"] for batch in own_share(batches(), 8)]).tolist() == list(range(8))
