import random

import pytest
from seqeval.metrics import f1_score
from seqeval.scheme import IOB1, IOB2, IOBES, Entities

from edgemin_hf.tasks import TokenClassification
from edgemin_hf.tasks.entities import as_iob2, check_tag, loose_tags, tags_of

# Of seqeval's own tests and README, and where its modes differ.
CASES = {
    "the README's": (
        [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
        [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
        0.5,
    ),
    "strict": ([["B-NP", "I-NP", "O"]], [["I-NP", "I-NP", "O"]], 0.0),
    "an I- of another type": ([["B-A", "I-B", "O"]], [["B-A", "O", "O"]], 1.0),
    "an I- after another type, then its own": ([["B-A", "I-B", "I-A"]], [["B-A", "O", "O"]], 1.0),
    "neighbours": ([["B-A", "B-A", "I-A"]], [["B-A", "I-A", "I-A"]], 0.0),
    "at the end": ([["O", "B-A"]], [["O", "B-A"]], 1.0),
    "none at all": ([["O", "O"]], [["O", "O"]], 0.0),
    "none found": ([["B-A", "O"]], [["O", "O"]], 0.0),
    "a type with a dash": ([["B-creative-work", "I-creative-work"]], [["B-creative-work", "I-creative-work"]], 1.0),
}  # fmt: skip


TASK = TokenClassification("train.jsonl", "test.jsonl")


def entities(tags, scheme=IOB2):
    return [(entity.tag, entity.start, entity.end) for entity in Entities([tags], scheme).entities[0]]


def strict(references, predictions):
    return f1_score(references, predictions, mode="strict", scheme=IOB2, zero_division=0)


@pytest.mark.parametrize(("references", "predictions", "expected"), CASES.values(), ids=CASES)
def test_f1_is_seqevals_on_cases_by_hand(references, predictions, expected):
    assert TASK.value(references, predictions) == pytest.approx(expected)
    assert strict(references, predictions) == pytest.approx(expected)


def drawn(count, seed, scheme="BI"):
    generator = random.Random(seed)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in scheme for kind in "XY")]
    return [[generator.choice(tags) for _ in range(generator.randint(1, 9))] for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_f1_is_seqevals_on_drawn_tags(seed):
    references, generator = drawn(30, seed), random.Random(seed)
    others = drawn(30, seed + 100)
    predictions = [
        [tag if generator.random() < 0.7 or place >= len(other) else other[place] for place, tag in enumerate(tags)]
        for tags, other in zip(references, others, strict=True)
    ]
    assert TASK.value(references, predictions) == pytest.approx(strict(references, predictions), abs=1e-12)


@pytest.mark.parametrize(("scheme", "theirs"), [("iob1", IOB1), ("iobes", IOBES)])
def test_other_schemes_become_the_entities_that_seqeval_reads(scheme, theirs):
    # Of IOBES only whole entities: what a B- without an E- is, no scheme says.
    generator = random.Random(0)
    for _ in range(200):
        sentence = []
        while len(sentence) < 8:
            kind, length = generator.choice("XY"), generator.randint(1, 3)
            if generator.random() < 0.4:
                sentence.append("O")
            elif scheme == "iob1":
                first = "B" if sentence and sentence[-1][2:] == kind else "I"
                sentence += [f"{first}-{kind}", *[f"I-{kind}"] * (length - 1)]
            else:
                whole = [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"E-{kind}"]
                sentence += [f"S-{kind}"] if length == 1 else whole
        assert entities(as_iob2(sentence, scheme)) == entities(sentence, theirs)
        assert as_iob2(as_iob2(sentence, scheme), scheme) == as_iob2(sentence, scheme)


def test_bilou_is_iobes_by_other_letters():
    assert as_iob2(["U-X", "B-Y", "L-Y"], "bilou") == ["B-X", "B-Y", "I-Y"]


def test_tags_that_go_on_with_no_entity_are_counted():
    assert loose_tags(["I-X", "I-X", "O", "B-X", "I-Y", "I-Y", "I-X"]) == 3
    assert loose_tags(["B-X", "I-X", "O"]) == 0


@pytest.mark.parametrize(("tag", "scheme"), [
    ("X", "iob2"), ("S-X", "iob2"), ("b-X", "iob2"), ("B-", "iob2"), ("LABEL_0", "iob2"), ("O-X", "iob2"),
    ("", "iob1"), ("L-X", "iobes"), ("E-X", "bilou"),
])  # fmt: skip
def test_a_tag_of_no_scheme_is_refused(tag, scheme):
    with pytest.raises(ValueError, match=rf"tag '{tag}'; allowed with scheme {scheme}: O, B-TYPE, I-TYPE"):
        check_tag(tag, scheme)


def test_tags_have_an_order():
    assert tags_of(["b", "a", "b"]) == ["O", "B-a", "I-a", "B-b", "I-b"]
