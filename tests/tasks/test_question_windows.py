import logging

import numpy as np
import pytest
from datasets import Dataset

from edgemin_hf.runtime.contexts import longest_stride
from edgemin_hf.tasks.question_windows import question_windows
from tests.helpers.models import SlowTokenizer
from tests.helpers.questions import ANSWERS, KINDS, TEXTS, asked, span_of, tokenizer_of

ALL = [asked(text, answer) for answer in ANSWERS for text in TEXTS if answer in text]


def windows(rows, tokenizer, max_length=384, stride=128, **options):
    return question_windows(Dataset.from_list(rows), tokenizer, max_length, stride, **options)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_the_fewest_tokens_that_hold_it(kind, side):
    assert len(ALL) == len(ANSWERS)
    for row, window in zip(ALL, windows(ALL, tokenizer_of(kind, side)), strict=True):
        context, answer = row["context"], row["answers"]["text"][0]
        first, last = span_of(window)
        offsets = np.array(window["offsets"])
        start = context.index(answer) + len(answer) - len(answer.lstrip())
        end = context.index(answer) + len(answer.rstrip())
        told = (kind, answer, context[offsets[first, 0] : offsets[last, 1]])
        assert first > 0, told
        assert offsets[first, 0] <= start < offsets[first, 1], told
        assert offsets[last, 0] < end <= offsets[last, 1], told
        assert answer.strip() in told[2], told
        assert not context[offsets[last, 1] - 1].isspace(), told
        assert not context[offsets[first, 0]].isspace(), told


def test_answers_on_the_borders_of_words_are_themselves():
    for kind in KINDS:
        rows = [row for row in ALL if row["answers"]["text"][0] in ("São Paulo", "3 June 1999", "café   has")]
        for row, window in zip(rows, windows(rows, tokenizer_of(kind)), strict=True):
            first, last = span_of(window)
            found = row["context"][window["offsets"][first][0] : window["offsets"][last][1]]
            assert found.rstrip(".") == row["answers"]["text"][0], kind


def test_windows_are_what_the_tokenizer_gives():
    tokenizer = tokenizer_of("word_pieces")
    row = asked(" ".join(TEXTS), "everyone", question=TEXTS[0])
    found = windows([row, asked(TEXTS[1], "rooms")], tokenizer, 96, 10)
    question = tokenizer(row["question"], add_special_tokens=False)["input_ids"]
    context = tokenizer(row["context"], add_special_tokens=False)["input_ids"]
    room = 96 - 3 - len(question)
    starts = range(0, len(context) - 10, room - 10)
    assert found["example"][:] == [0] * len(starts) + [1]
    for window, start in zip(found, starts, strict=False):
        part = context[start : start + room]
        assert window["input_ids"] == [2, *question, 3, *part, 3]
        assert window["token_type_ids"] == [0] * (len(question) + 2) + [1] * (len(part) + 1)
        assert window["counted"] == [1] + [0] * (len(question) + 1) + [1] * len(part) + [0]
        assert window["context"] == row["context"]


@pytest.mark.parametrize("kind", KINDS)
def test_strides_change_nothing_for_what_fits(kind):
    tokenizer = tokenizer_of(kind)
    plain = windows(ALL, tokenizer)[:]
    for max_length, stride in ((384, 0), (256, 100), (512, 128)):
        assert windows(ALL, tokenizer, max_length, stride)[:] == plain


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_windows_that_hold_the_answer_and_of_those_that_do_not(kind):
    tokenizer = tokenizer_of(kind)
    long = asked(" ".join(TEXTS), "3 June 1999")
    found = windows([long], tokenizer, 48, 19)
    assert len(found) > 3
    begin = long["context"].index("3 June 1999")
    held = 0
    for window in found:
        offsets = np.array(window["offsets"])
        own = offsets[offsets[:, 1] > 0]
        holds = own[0, 0] <= begin and own[-1, 1] >= begin + len("3 June 1999")
        first, last = span_of(window)
        assert (first > 0) == holds
        if holds:
            assert long["context"][offsets[first, 0] : offsets[last, 1]] == "3 June 1999"
        held += holds
    assert 0 < held < len(found)


def test_left_padding_puts_the_context_first():
    window = windows([asked(TEXTS[0], "won", question="who won")], tokenizer_of("word_pieces", "left"))[0]
    offsets = np.array(window["offsets"])
    assert offsets[1, 1] > 0  # after [CLS]
    assert window["counted"][-5:] == [0] * 5


def test_no_answer_and_no_labels():
    tokenizer = tokenizer_of("byte_level")
    empty = {**asked(TEXTS[0]), "answers": {"text": [], "answer_start": []}}
    window = windows([empty], tokenizer)[0]
    labels, counted = np.array(window["labels"]), np.array(window["counted"])
    assert labels[0] == 3
    assert ((labels == 0) == (counted == 1))[1:].all()
    assert (labels[counted == 0] == -100).all()
    for row in (empty, asked(TEXTS[0], "won")):
        assert set(windows([row], tokenizer, with_labels=False)[0]["labels"]) == {-100}


@pytest.mark.parametrize("kind", KINDS)
def test_long_questions_are_cut_and_told(kind, caplog):
    tokenizer = tokenizer_of(kind)
    long = asked(" ".join(TEXTS), "won", question="why " * 30 + TEXTS[3])
    for max_length in (32, 33):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = windows(
                [long, asked(TEXTS[0], "won", question="why")], tokenizer, max_length, longest_stride(max_length)
            )
        assert "1 of 2 questions have more than 16 tokens" in caplog.text
        for window in found:
            assert len(window["input_ids"]) <= max_length
        covered = {place for row in found if row["example"] == 0 for span in row["offsets"] for place in range(*span)}
        missing = [char for place, char in enumerate(long["context"]) if place not in covered and not char.isspace()]
        assert set(missing) <= {"\u200d"}  # which BERT's normaliser leaves out


def test_an_answer_of_characters_that_no_token_has_is_none():
    window = windows([asked("my \x07 card", "\x07")], tokenizer_of("word_pieces"))[0]
    assert span_of(window) == (0, 0)


def test_slow_tokenizers_are_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    with pytest.raises(ValueError, match=r"tokenizer: BertTokenizer.*; allowed: a fast one"):
        windows(ALL, SlowTokenizer(str(tmp_path / "vocab.txt")))
