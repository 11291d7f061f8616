"""Entities, by the pipeline and by the task's own predictions."""

import random
import re
import time
from functools import cache

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoModelForTokenClassification, pipeline

from edgemin_hf import export_onnx
from edgemin_hf.data.word_windows import word_tokenizer
from edgemin_hf.modeling import load_tokenizer
from edgemin_hf.runtime import load
from edgemin_hf.runtime.contexts import without_space
from edgemin_hf.tasks import TokenClassification
from tests.helpers.models import WORDS, tiny
from tests.helpers.questions import TEXTS as ODD
from tests.helpers.questions import tokenizer_of
from tests.runtime.conftest import TAGS

CASES = [
    "where is my new card, please send the old cards to (my) money",
    "  blanks  before,\tand   after \n",
    "Cards; unwanted pieces-of words, don't",
    "card",
    "",
    *ODD,
]


def compared(found, expected, tolerance=1e-4):
    places = [(one["entity_group"], one["start"], one["end"]) for one in found]
    assert places == [(one["entity_group"], one["start"], one["end"]) for one in expected]
    np.testing.assert_allclose([one["score"] for one in found], [one["score"] for one in expected], atol=tolerance)
    return places


def tagger():
    return tiny(
        head=AutoModelForTokenClassification,
        vocab_size=400,
        label2id=TAGS,
        id2label={number: tag for tag, number in TAGS.items()},
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    @cache
    def made(kind):
        model, tokenizer = tagger(), word_tokenizer(tokenizer_of(kind))
        folder = tmp_path_factory.mktemp("entities") / "edge"
        export_onnx(model, tokenizer, folder, texts=["card"], max_length=64)
        return model, load_tokenizer(folder), folder

    return made


def test_they_are_those_of_the_pipeline(exported):
    model, tokenizer, folder = exported("word_pieces_cased")
    runtime = load(folder)
    tell = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first")
    # The pipeline tells pieces of words by their lengths, which joined emojis deceive.
    whole = " ".join(ODD[:3])
    texts = [*re.split(r"(?<=[,.;–])\s", whole), *ODD[:3]]
    seen = []
    for text in texts:
        found = runtime.entities(text)
        seen += compared(found, tell(text))
        assert all(text[one["start"] : one["end"]] == one["word"] for one in found)
    assert len(seen) > 5
    for some, text in zip(runtime.entities(texts), texts, strict=True):
        compared(some, runtime.entities(text))


def assert_tagged_as_by_the_task(runtime, tokenizer, sentences, tokens):
    task = TokenClassification("train.jsonl", "test.jsonl", max_length=runtime.artefact.max_length)
    table = Dataset.from_dict({"tokens": sentences, "tags": [["O"] * len(words) for words in sentences]})
    rows = task.tokenized(table, tokenizer, TAGS)
    assert len(rows) > len(sentences)  # some need several windows
    outputs = []
    for row in rows:
        inputs = {name: np.array([row[name]]) for name in tokenizer.model_input_names}
        outputs.append(runtime.graph.run(runtime.graph.feed(inputs))[0])
    expected = task.predictions(outputs, rows)
    texts = [" ".join(words) for words in sentences]
    found = list(runtime._words(texts))
    for text, words, tags, ours in zip(texts, sentences, expected, found, strict=True):
        assert [text[word.start : word.end] for word in ours] == words
        assert [word.tag for word in ours] == tags
    assert len({tag for tags in expected for tag in tags}) > tokens


def test_words_are_tagged_as_the_task_tags_them(made, tokenizer):
    generator = random.Random(0)
    sentences = [generator.choices([*WORDS, "cards", "unseen"], k=generator.randint(1, 60)) for _ in range(40)]
    assert_tagged_as_by_the_task(load(made("token_classification")[1]), tokenizer, sentences, 2)


@pytest.mark.parametrize("kind", ["sentencepiece", "byte_level", "byte_level_untrimmed"])
def test_words_between_blanks_are_tagged_as_the_task_tags_them(exported, kind):
    _, tokenizer, folder = exported(kind)
    generator = random.Random(0)
    words = [word for text in ODD for word in text.split()]
    sentences = [generator.choices(words, k=generator.randint(1, 40)) for _ in range(20)]
    assert_tagged_as_by_the_task(load(folder), tokenizer, sentences, 1)


@pytest.mark.parametrize("kind", ["sentencepiece", "byte_level", "byte_level_untrimmed"])
def test_a_word_begins_with_the_token_that_reaches_it_however_many_blanks_stand_before(exported, kind):
    runtime = load(exported(kind)[2])
    text = "  the   box\t\n of  日本  "
    window = runtime.reader.read(text)
    after = without_space(text)[0]
    (numbers,) = runtime._word_numbers([window], after)
    begins = [place for place in range(len(text)) if after[place] == place and text[place - 1].isspace()]
    for word, begin in enumerate(begins):
        assert window.offsets[numbers.index(word)][1] >= begin
    assert [text[word.start : word.end] for word in runtime._words([text]).__next__()] == text.split()


def test_long_texts_take_time_by_their_length_alone(exported):
    runtime = load(exported("byte_level")[2])
    (windows,) = [[first, *first.overflowing] for first in runtime.reader.read_all(["the box " * 20_000])]
    started = time.perf_counter()
    runtime._word_numbers(windows, without_space("the box " * 20_000)[0])
    assert len(windows) > 1000
    assert time.perf_counter() - started < 10


def test_odd_texts_and_no_texts_have_answers(made):
    runtime = load(made("token_classification")[1])
    assert runtime.entities("") == []
    assert runtime.entities([]) == []
    found = runtime.entities(CASES)
    assert len(found) == len(CASES)
    for text, some in zip(CASES, found, strict=True):
        compared(some, runtime.entities(text))
        assert all(0 <= one["start"] < one["end"] <= len(text) for one in some)
    with pytest.raises(ValueError, match=r"texts: \('a', 'b'\); expected: texts, not pairs"):
        runtime.entities([("a", "b")])
