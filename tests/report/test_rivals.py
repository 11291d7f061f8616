import pytest

from edgemin_hf.benchmark.rows import Latency
from edgemin_hf.report.rivals import rivals_table, rivals_text, verdict
from edgemin_hf.rivals.compare import Ahead, Comparison, RivalRow


def row(name, value, ahead=None, p50=1.0, size=10_000_000, seconds=None):
    latency = Latency(p50, 2 * p50, 3 * p50)
    return RivalRow(name, "accuracy", value, (value - 0.01, value + 0.01), size, latency, seconds, ahead)


STUDENT = row("student", 0.93, p50=0.6)


@pytest.mark.parametrize(
    ("ahead", "word"),
    [
        (Ahead(0.019, (0.008, 0.03)), "beats"),
        (Ahead(-0.019, (-0.03, -0.008)), "loses"),
        (Ahead(0.004, (-0.004, 0.012)), "not told apart"),
    ],
)
def test_the_numbers_write_the_verdict(ahead, word):
    [sentence] = verdict(Comparison((STUDENT, row("a bag", 0.91, ahead, p50=1.2, size=20_000_000, seconds=14.2))))
    assert word in sentence
    assert "a bag" in sentence
    assert f"{100 * ahead.ci95[0]:+.1f}, {100 * ahead.ci95[1]:+.1f}" in sentence
    assert "0.5 times its latency" in sentence
    assert ("14 s" in sentence) == (word == "not told apart")


def test_a_table_without_a_student_has_no_verdict():
    alone = Comparison((row("a bag", 0.91, seconds=600),))
    assert verdict(alone) == []
    assert rivals_table(alone).rows[0][-1] == "10.0 min"
    assert "a bag" in rivals_text(alone)
