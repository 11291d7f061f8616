"""A student beside its teacher, in sentences, tables and figures."""

from dataclasses import replace
from itertools import combinations

import pytest

from edgemin_hf.benchmark.rows import Alone, Benchmark, LengthLatency
from edgemin_hf.report.analysis import shown_analysis
from edgemin_hf.report.card import render_card
from edgemin_hf.report.card_facts import CardFacts
from edgemin_hf.report.length_figure import latency_by_length
from edgemin_hf.report.page import conditions, render_report, stage_table
from edgemin_hf.report.records import StageRecord, TrainingCurve
from edgemin_hf.report.reliability_figure import draw_reliability
from edgemin_hf.report.training_figure import training_curves
from edgemin_hf.tasks.metrics.agreement import Agreement
from edgemin_hf.tasks.metrics.analysis import Analysis
from edgemin_hf.tasks.metrics.calibration import Bin, Calibration
from edgemin_hf.tasks.metrics.class_changes import ClassChange
from edgemin_hf.tasks.metrics.slices import Estimate, Group, Slices
from tests.helpers.figures import boxes, parsed, texts
from tests.report.test_card import FACTS
from tests.report.test_page import BENCHMARK

SVG = "{http://www.w3.org/2000/svg}"
BINS = tuple(Bin(0.1 * place, min(0.08 * place, 1.0), 100) for place in range(1, 11))
CALIBRATION = {
    "teacher": Calibration(0.021, 0.93, 0.95, BINS),
    "student": Calibration(0.034, 0.9, 0.93, BINS),
}
BOTH = Estimate(0.94, (0.93, 0.95)), Estimate(0.9, (0.89, 0.91))
GROUPS = (Group("north", 80, *BOTH), Group("south", 20, BOTH[0], Estimate(0.8, (0.7, 0.9))))
SLICES = Slices("dialect", "accuracy", GROUPS, *[Estimate(gap, (gap - 0.05, gap + 0.05)) for gap in (0.0, 0.1, 0.1)])
CLASSES = tuple(
    ClassChange(f"label {n}", 40, 0.9, 0.9 + n / 100, n / 100, (n / 100 - 0.02, n / 100 + 0.02)) for n in range(-6, 6)
)
ANALYSIS = Analysis(
    ("teacher", "onnxruntime", "fp32"), ("student", "onnxruntime", "int8"), Agreement("accuracy", 0.96, (0.95, 0.97)),
    CLASSES, CALIBRATION, (SLICES,), (Group("as they are", 100, *BOTH), Group("with typos", 100, *BOTH)),
)  # fmt: skip
STAGES = [
    StageRecord(
        "distill", True, seconds=75.0, curve=TrainingCurve("loss", (100, 200), (2.0, 1.0), (0, 200), (2.5, 0.9))
    ),
    StageRecord("prune", True, seconds=25.0, curve=TrainingCurve("accuracy", (), (), (0, 8), (0.5, 0.9))),
    StageRecord("export", True),
]


def test_the_sentences_say_what_was_measured():
    assert shown_analysis(ANALYSIS, "accuracy").sentences == [
        "It gives the teacher's answer to 96.0% [95.0, 97.0] of the test examples, right or wrong.",
        "Of 12 labels 4 lost F1 against the teacher, and 3 gained some, by a 95% interval; about 1 would by chance "
        "alone.",
        "It is 90.0% sure of its labels on average, and right in 93.0%: its expected calibration error (10 bins of "
        "equal mass) is 3.4 points, the teacher's 2.1.",
        "By dialect, it is best on north and worst on south, a gap of 10.0 [5.0, 15.0] points; the teacher's is 0.0 "
        "[-5.0, 5.0], the difference +10.0 [+5.0, +15.0].",
        "Accuracy in % on the test texts: 90.0 as they are (teacher 94.0), 90.0 with typos (teacher 94.0).",
    ]
    alone = replace(ANALYSIS, teacher=None, agreement=None, classes=(), calibration={"student": CALIBRATION["student"]})
    alone = replace(alone, slices=(Slices("dialect", "accuracy", GROUPS[:1]),), robustness=())
    shown = shown_analysis(alone, "accuracy")
    assert (shown.heading, len(shown.sentences)) == ("How far to rely on it", 1)
    assert "Beside its teacher" not in render_report("A", BENCHMARK, STAGES, {}, analysis=shown)
    assert "## How far to rely on it\n" in render_card(CardFacts(**FACTS | {"analysis": shown}))
    table_alone = shown_analysis(replace(alone, calibration={}), "accuracy")
    assert "<ul>" not in render_report("A", BENCHMARK, STAGES, {}, analysis=table_alone)
    assert shown_analysis(Analysis(ANALYSIS.teacher, ANALYSIS.student), "masked_accuracy") is None
    scores = Analysis(None, ANALYSIS.student, Agreement("pearsonr", 0.99, (0.98, 1.0)))
    assert "Pearson correlation ×100 99.0 [98.0, 100.0]." in shown_analysis(scores, "mse").sentences[0]


def test_both_ends_of_the_classes_are_shown_and_all_are_kept():
    shown = shown_analysis(ANALYSIS, "accuracy")
    assert [row[0] for row in shown.classes.rows] == [f"label {n}" for n in (-6, -5, -4, -3, -2, 1, 2, 3, 4, 5)]
    assert shown.classes.rows[0] == ["label -6", "90.0", "84.0", "-6.0 [-8.0, -4.0]", "40"]
    assert len(shown.every_class.rows) == 12
    few = shown_analysis(replace(ANALYSIS, classes=CLASSES[:10]), "accuracy")
    assert (len(few.classes.rows), few.every_class) == (10, None)


def test_a_group_of_few_examples_is_not_called_the_worst():
    rare = Group("rare", 2, BOTH[0], Estimate(0.0, (0.0, 0.66)))
    shown = shown_analysis(replace(ANALYSIS, slices=(replace(SLICES, groups=(*GROUPS, rare)),)), "accuracy")
    assert "it is best on north and worst on south" in shown.sentences[3]
    assert "; the gap is one of groups of 10 examples or more; " in shown.tables[0].caption
    assert [row[0] for row in shown.tables[0].table.rows] == ["north", "south", "rare", "gap, best to worst"]


def test_page_and_card_tell_it_and_do_without():
    shown = shown_analysis(ANALYSIS, "accuracy")
    page = render_report("A", BENCHMARK, STAGES, {}, analysis=shown)
    assert "<h2>Beside its teacher</h2>" in page
    assert "All 12 labels" in page
    assert '<td data-label="group" class="words">gap, best to worst</td>' in page
    assert "Beside its teacher" not in render_report("A", BENCHMARK, STAGES, {})
    card, without = (render_card(CardFacts(**FACTS | {"analysis": told})) for told in (shown, None))
    assert f"## Beside its teacher\n\n- {shown.sentences[0]}\n- " in card
    assert "| label -6 | 90.0 | 84.0 | -6.0 [-8.0, -4.0] | 40 |" in card
    assert "Beside its teacher" not in without
    few = shown_analysis(replace(ANALYSIS, classes=CLASSES[:2]), "accuracy")
    assert "the report has all" in card
    assert "the report has all" not in render_card(CardFacts(**FACTS | {"analysis": few}))
    assert "\n\n\n" not in card.split("## Beside its teacher")[1].split("\n## ")[0]


def test_what_a_process_costs_is_told_and_energy_where_it_was_measured():
    told = conditions(replace(BENCHMARK, alone=Alone(85.4, 1.2, 98_700_000)))
    assert told.endswith(
        " A process that only runs it loads it in 85 ms and holds 99 MB at most; energy: not measured."
    )
    measured = conditions(replace(BENCHMARK, alone=Alone(85.4, 1.2, 98_700_000, 12.34)))
    assert measured.endswith("energy: 12.3 mJ a call (whole package).")
    whole = replace(BENCHMARK, by_length=(LengthLatency(8, 0.5, 0.6),), alone=Alone(85.4, 1.2, 98_700_000))
    assert Benchmark.from_dict(whole.to_dict()) == whole
    assert {"by_length", "alone"}.isdisjoint(BENCHMARK.to_dict())


def test_stages_have_their_share_of_the_time():
    table = stage_table(STAGES)
    assert [row[table.headers.index("share")] for row in table.rows] == ["75%", "25%", "—"]


FIGURES = {
    "reliability": lambda: draw_reliability(CALIBRATION),
    "training": lambda: training_curves(STAGES),
    "length": lambda: latency_by_length([LengthLatency(2**n, 0.1 * 2**n, 0.13 * 2**n) for n in range(3, 11)]),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_figures_are_told_in_words_and_their_texts_cover_nothing(draw):
    svg = draw()
    root = parsed(svg)
    title, words = root.find(f"{SVG}title").text, root.find(f"{SVG}desc").text
    assert next(iter(root)).tag == f"{SVG}title"
    assert root.get("role") == "img"
    assert root.get("aria-label") == words
    assert words.startswith(f"{title}. ")
    assert words.endswith(".")
    for (a, a_left, a_right, a_top, a_bottom), (b, b_left, b_right, b_top, b_bottom) in combinations(boxes(svg), 2):
        assert a_right <= b_left or b_right <= a_left or a_bottom <= b_top or b_bottom <= a_top, (a, b)


def test_each_training_has_two_panels():
    svg = training_curves(STAGES)
    assert {"distill: training loss", "prune: validation, accuracy in %", "not logged"} <= set(texts(svg))
    assert "prune: validation accuracy in % from 50 to 90 in 8 steps" in parsed(svg).get("aria-label")
    assert training_curves(STAGES[2:]) is None
