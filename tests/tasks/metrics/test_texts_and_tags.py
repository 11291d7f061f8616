import evaluate
import numpy as np
import pytest
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2, IOBES

from edgemin_hf.tasks import metrics
from edgemin_hf.tasks.metrics import Metric, measure, metric_named, per_class, value_of
from edgemin_hf.tasks.metrics.answer_texts import normalized

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def sentences(seed, count=30, tags=TAGS):
    generator = np.random.default_rng(seed)
    truth = [generator.choice(tags, generator.integers(1, 12)).tolist() for _ in range(count)]
    found = [[tag if generator.random() < 0.8 else str(generator.choice(tags)) for tag in row] for row in truth]
    return truth, found


def module(name, cache):
    return evaluate.load(f"{metrics.__path__[0]}/{name}.py", cache_dir=str(cache))


@pytest.mark.parametrize("seed", range(4))
def test_entities_are_counted_as_seqeval_does(seed):
    truth, found = sentences(seed)
    for result, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score),
                          ("accuracy", accuracy_score)):  # fmt: skip
        value = value_of(Metric("seqeval", result=f"overall_{result}"), truth, found)
        assert value == pytest.approx(score(truth, found), rel=1e-12)
    strict = Metric("seqeval", {"mode": "strict", "scheme": "IOB2"})
    assert value_of(strict, truth, found) == pytest.approx(f1_score(truth, found, mode="strict", scheme=IOB2))
    assert value_of(strict, truth, found) != value_of(Metric("seqeval"), truth, found)
    ends = sentences(seed, tags=["O", "S-A", "B-A", "I-A", "E-A"])
    asked = Metric("seqeval", {"mode": "strict", "scheme": "IOBES"})
    assert value_of(asked, *ends) == pytest.approx(f1_score(*ends, mode="strict", scheme=IOBES))


def test_the_bootstrap_is_over_sentences(monkeypatch):
    monkeypatch.setattr("edgemin_hf.tasks.metrics.resampling.RESAMPLES", 30)
    truth, found = sentences(0)
    rows = np.random.default_rng(0).integers(0, 30, (30, 30))
    drawn = [f1_score([truth[i] for i in row], [found[i] for i in row]) for row in rows]
    np.testing.assert_allclose(measure(Metric("seqeval"), truth, found)["ci95"], np.percentile(drawn, [2.5, 97.5]))


def test_the_order_of_sentences_changes_nothing_and_none_has_no_entity():
    truth, found = sentences(3)
    value = value_of(Metric("seqeval"), truth, found)
    assert value_of(Metric("seqeval"), truth[::-1], found[::-1]) == pytest.approx(value)
    assert value_of(Metric("seqeval"), [["O", "O"]], [["O", "O"]]) == 0
    with pytest.raises(ValueError, match="sentence 1: 2 tags, and 1 predicted; expected: as many"):
        value_of(Metric("seqeval"), [["O", "O"]], [["O"]])
    with pytest.raises(ValueError, match="mode: strict without scheme"):
        value_of(Metric("seqeval", {"mode": "strict"}), truth, found)


def test_each_type_of_entities_has_its_values(tmp_path):
    truth, found = sentences(1)
    rows = per_class(Metric("seqeval"), "tags", truth, found, TAGS)
    assert [row["name"] for row in rows] == ["LOC", "PER"]
    np.testing.assert_allclose([row["f1"] for row in rows], f1_score(truth, found, average=None))
    told = module("seqeval", tmp_path).compute(predictions=found, references=truth)
    assert told["overall_f1"] == pytest.approx(f1_score(truth, found))
    assert told["PER"]["number"] == rows[1]["support"]
    assert told["PER"]["precision"] == pytest.approx(rows[1]["precision"])


# Worked out by hand from the published descriptions: what is left of a text, how many words are shared.
CASES = [
    # found, right, exact, F1
    ("The Eiffel Tower!", ["Eiffel tower"], 1, 1),
    ("in Paris, France", ["Paris"], 0, 2 * 1 / (3 + 1)),
    ("the  cat sat", ["a cat sat down", "cat"], 0, max(2 * 2 / (2 + 3), 2 * 1 / (2 + 1))),
    ("Anna", ["my Anna", "Bob"], 0, 2 * 1 / (1 + 2)),
    ("Anna", ["an Anna"], 1, 1),
    ("day day night", ["day night night"], 0, 2 * 2 / 6),
    ("U.S.", ["us"], 1, 1),
    ("well-known", ["well known"], 0, 0),
    ("", ["x"], 0, 0),
]


def test_texts_are_normalised_as_squad_does():
    assert normalized("The  Cat, an\tOWL and a 'dog'.") == "cat owl and dog"
    assert normalized("theatre another") == "theatre another"
    assert normalized("a.the") == "athe"  # punctuation goes before articles


@pytest.mark.parametrize("name", ["squad", "squad_v2"])
def test_answers_of_hand_made_cases(name, tmp_path):
    found, right = [case[0] for case in CASES], [case[1] for case in CASES]
    result = "exact_match" if name == "squad" else "exact"
    exact, f1 = np.mean([case[2] for case in CASES]), np.mean([case[3] for case in CASES])
    assert value_of(Metric(name, result=result), right, found) == pytest.approx(exact)
    assert value_of(metric_named(name), right, found) == pytest.approx(f1)
    none = {} if name == "squad" else {"no_answer_probability": 0.0}
    predictions = [{"id": str(i), "prediction_text": text, **none} for i, text in enumerate(found)]
    references = [{"id": str(i), "answers": {"text": t, "answer_start": [0] * len(t)}} for i, t in enumerate(right)]
    told = module(name, tmp_path).compute(predictions=predictions[::-1], references=references)
    assert told[result] == pytest.approx(100 * exact)
    assert told["f1"] == pytest.approx(100 * f1)


def test_a_text_of_which_nothing_is_left():
    """v1.1 counts its words, of which none are shared; v2.0 asks whether the other has none either."""
    assert value_of(Metric("squad", result="exact_match"), [["the"]], ["a"]) == 1
    assert value_of(Metric("squad"), [["the"]], ["a"]) == 0
    assert value_of(Metric("squad_v2"), [["the"]], ["a"]) == 1


def test_no_answer_is_the_empty_one_and_has_its_own_values(tmp_path):
    right = [["blue whale"], [], [], ["red"], []]
    found = ["the whale", "", "green", "red", "the"]
    f1 = [2 / 3, 1, 0, 1, 1]
    assert value_of(Metric("squad_v2"), right, found) == pytest.approx(np.mean(f1))
    assert value_of(Metric("squad_v2", result="HasAns_f1"), right, found) == pytest.approx((2 / 3 + 1) / 2)
    assert value_of(Metric("squad_v2", result="NoAns_exact"), right, found) == pytest.approx(2 / 3)
    predictions = [{"id": str(i), "prediction_text": text, "no_answer_probability": p}
                   for i, (text, p) in enumerate(zip(found, [0.2, 0.9, 0.8, 0.1, 0.5], strict=True))]  # fmt: skip
    references = [{"id": str(i), "answers": {"text": t, "answer_start": [0] * len(t)}} for i, t in enumerate(right)]
    told = module("squad_v2", tmp_path).compute(predictions=predictions, references=references)
    assert {name: told[name] for name in ("total", "HasAns_total", "NoAns_total")} == {
        "total": 5, "HasAns_total": 2, "NoAns_total": 3,
    }  # fmt: skip
    assert told["f1"] == pytest.approx(100 * np.mean(f1))
    # Nothing answered: 3 right. Below 0.1: +1, below 0.2: +2/3, below 0.5: -1 ("the" is an answer), 0.8: -1, 0.9: 0.
    assert told["best_f1"] == pytest.approx(100 * (3 + 1 + 2 / 3) / 5)
    assert told["best_f1_thresh"] == pytest.approx(0.2)
    assert (told["best_exact"], told["best_exact_thresh"]) == (pytest.approx(80), pytest.approx(0.1))
    settings = {"predictions": predictions, "references": references, "no_answer_threshold": 0.4}
    told = module("squad_v2", tmp_path).compute(**settings)
    assert told["f1"] == pytest.approx(100 * (2 / 3 + 1 + 1 + 1 + 1) / 5)  # above 0.4 nothing counts as answered


def test_questions_that_all_have_an_answer_have_no_values_of_others(tmp_path):
    row = {"id": "0", "prediction_text": "x", "no_answer_probability": 0.0}
    truth = {"id": "0", "answers": {"text": ["x"], "answer_start": [0]}}
    told = module("squad_v2", tmp_path).compute(predictions=[row], references=[truth])
    assert told == {"exact": 100, "f1": 100, "total": 1, "HasAns_exact": 100, "HasAns_f1": 100, "HasAns_total": 1,
                    "best_exact": 100, "best_exact_thresh": 0, "best_f1": 100, "best_f1_thresh": 0}  # fmt: skip


def test_exact_match_is_to_the_letter_or_but_for_case(tmp_path):
    right, found = [["Red"], ["b", "c"], [], ["x"]], ["red", "c", "", "y"]
    assert value_of(Metric("exact_match"), right, found) == 0.5
    assert value_of(Metric("exact_match", {"ignore_case": True}), right, found) == 0.75
    told = module("exact_match", tmp_path).compute(predictions=["a", "b"], references=["a", "c"])
    assert told == {"exact_match": 0.5}
