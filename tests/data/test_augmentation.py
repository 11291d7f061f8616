import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, CanineTokenizer, PreTrainedTokenizerFast

from edgemin_hf import AugmentationConfig, augment_texts
from tests.helpers.formulas import one_by_one
from tests.helpers.models import VOCABULARY, WORDS, tiny

TEXTS = ["where is my card", "send the money now please to", "late", "Please, is my new card lost?"]


@pytest.fixture(scope="module")
def model():
    return tiny(head=AutoModelForMaskedLM)


def reference(model, tokenizer, text, count):
    """Candidates of each word of a text whose words are all single tokens, by single passes."""
    ids = tokenizer(text)["input_ids"]
    places = [place for place, token in enumerate(ids) if VOCABULARY[token] in WORDS]
    return one_by_one(model, tokenizer, [ids], [(0, place) for place in places], count)


def words_of(text):
    return "".join(letter if letter.isalpha() else " " for letter in text).split()


def test_every_word_is_kept_or_replaced_by_one_of_its_most_likely(model, tokenizer):
    config = AugmentationConfig(copies=30, candidates=3)
    made = augment_texts(TEXTS, tokenizer, model, config)
    assert [index for index, _ in made] == sorted(index for index, _ in made)
    assert len(set(made)) == len(made)
    assert {index for index, _ in made} == {0, 1, 2, 3}
    assert all(text != TEXTS[index] for index, text in made)
    for number, text in enumerate(TEXTS):
        candidates, copies = reference(model, tokenizer, text, 3), [copy for index, copy in made if index == number]
        assert len(copies) <= 30
        seen = [set() for _ in candidates]
        for copy in copies:
            for word, before, allowed, replaced in zip(words_of(copy), words_of(text), candidates, seen, strict=True):
                assert word == before or word in allowed
                replaced.add(word)
        for before, allowed, replaced in zip(words_of(text), candidates, seen, strict=True):
            assert replaced >= set(allowed) - {before}, "30 copies draw each of 3 candidates"


def test_probability_is_that_of_a_word_and_draws_are_even(model, tokenizer):
    before = [*WORDS, *WORDS[:6]]
    made = augment_texts([" ".join(before)], tokenizer, model, AugmentationConfig(copies=2000, candidates=5))
    assert len(made) > 1900
    drawn = [copy.split() for _, copy in made]
    candidates = reference(model, tokenizer, " ".join(before), 5)
    for rank in range(5):
        # Where a word is its own candidate, its draws can't be told from those that leave it.
        seen = [place for place, word in enumerate(before) if candidates[place][rank] != word]
        assert len(seen) > 10
        share = np.mean([copy[place] == candidates[place][rank] for copy in drawn for place in seen])
        assert share == pytest.approx(0.4 / 5, abs=0.01)


def test_nothing_and_everything(model, tokenizer):
    assert augment_texts(TEXTS, tokenizer, model, AugmentationConfig(probability=0)) == []
    everything = augment_texts(TEXTS, tokenizer, model, AugmentationConfig(probability=1, candidates=1))
    expected = ["{} {} {} {}", "{} {} {} {} {} {}", "{}", "{}, {} {} {} {} {}?"]
    expected = [
        form.format(*(words[0] for words in reference(model, tokenizer, text, 1)))
        for form, text in zip(expected, TEXTS, strict=True)
    ]
    assert everything == [(i, new) for i, (new, old) in enumerate(zip(expected, TEXTS, strict=True)) if new != old]
    assert augment_texts([], tokenizer, model, AugmentationConfig()) == []


def test_draws_depend_on_seed_and_index_alone(model, tokenizer):
    first = augment_texts(TEXTS, tokenizer, model, AugmentationConfig(seed=1))
    assert first == augment_texts(TEXTS, tokenizer, model, AugmentationConfig(seed=1))
    assert first != augment_texts(TEXTS, tokenizer, model, AugmentationConfig(seed=2))
    two = augment_texts(TEXTS[:2], tokenizer, model, AugmentationConfig(seed=1))
    assert two == [row for row in first if row[0] < 2]
    twice = augment_texts([TEXTS[0]] * 2, tokenizer, model, AugmentationConfig(seed=1))
    assert {text for index, text in twice if index == 0} != {text for index, text in twice if index == 1}


def test_all_but_words_stays_as_it_is(model, tokenizer):
    text = "  Is,my\t42 card?! don't pay_1 [MASK] "
    kept = ["  ", ",", "\t42 ", "?! don't pay_1 [MASK] "]
    made = augment_texts([text], tokenizer, model, AugmentationConfig(probability=1, candidates=4))
    for _, copy in made:
        rest = copy
        for part in kept:
            assert part in rest
            rest = rest[rest.index(part) + len(part) :]
        assert rest == ""
    assert augment_texts(["42 ?!", "", "lostly"], tokenizer, model, AugmentationConfig()) == []


def test_words_of_several_tokens_are_replaced_by_their_neighbours(model, tokenizer, tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("lostly 1 0\nverily 1 0.1\nkeenly 1 0.2\ncard 0 1\nrest -1 0\n")
    config = AugmentationConfig(probability=1, candidates=2, vectors=str(file))
    texts = ["is lostly, Lostly.", "unheardof"]
    made = augment_texts(texts, tokenizer, model, config)
    assert {index for index, _ in made} == {0}
    pairs = {tuple(words_of(copy)[1:]) for _, copy in made}
    assert pairs == {(a, b) for a in ("verily", "keenly") for b in ("Verily", "Keenly")}
    single, *_ = reference(model, tokenizer, texts[0], 2)
    assert {words_of(copy)[0] for _, copy in made} <= set(single)


def test_words_behind_the_maximum_length_stay(model, tokenizer):
    text = " ".join(["card"] * 70)
    made = augment_texts([text], tokenizer, model, AugmentationConfig(probability=1, candidates=9))
    assert made
    for _, copy in made:
        # 64 tokens, of which two are special.
        assert copy.split()[62:] == ["card"] * 8
        assert len(set(copy.split()[:62])) > 1


@pytest.mark.parametrize(("family", "reached"), [("bert", 10), ("roberta", 9), ("mpnet", 8)])
def test_positions_set_the_maximum_length_too(tokenizer, family, reached):
    # RoBERTa counts positions from 1 with this padding, MPNet from 2; two tokens are special.
    short = tiny(family, head=AutoModelForMaskedLM, max_position_embeddings=12)
    config = AugmentationConfig(probability=1, candidates=9)
    made = augment_texts([" ".join(["card"] * 20)], tokenizer, short, config)
    words = [copy.split() for _, copy in made]
    assert all(own[reached:] == ["card"] * (20 - reached) for own in words)
    assert any(own[reached - 1] != "card" for own in words)


def with_marks(kind):
    """A tokenizer whose words carry the mark of a space, of byte-level BPE or of SentencePiece."""
    special = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    if kind == "bpe":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        merges = [
            ("Ġ", "c"),
            ("Ġc", "a"),
            ("Ġca", "f"),
            ("Ġcaf", "Ã"),
            ("ĠcafÃ", "©"),
            ("Ġ", "m"),
            ("m", "y"),
            ("Ġm", "y"),
        ]
        merges += [("i", "s")]
        pieces = [*special, *letters, *("".join(pair) for pair in merges)]
        tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        pieces = [*special, "▁café", "▁my", "my", "is", "▁", *"cafémyis(),."]
        scores = [(piece, -float(i >= 10) - 0.1) for i, piece in enumerate(dict.fromkeys(pieces))]
        tokenizer = Tokenizer(models.Unigram(scores, unk_id=1))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>", "model_max_length": 64}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_words_with_and_without_a_space_of_their_own(kind):
    tokenizer = with_marks(kind)
    roberta = tiny("roberta", head=AutoModelForMaskedLM, vocab_size=len(tokenizer))
    text = "is café (my) my."
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    mark = "Ġ" if kind == "bpe" else "▁"
    spaced = {tokenizer.convert_tokens_to_string([t]).strip() for t in tokenizer.get_vocab() if t[0] == mark}
    bare = {tokenizer.convert_tokens_to_string([t]) for t in tokenizer.get_vocab() if t[0] != mark}
    made = augment_texts([text], tokenizer, roberta, AugmentationConfig(copies=200, probability=0.5, candidates=50))
    found = [set(), set(), set(), set()]
    for _, copy in made:
        assert copy.count(" ") == 3
        assert copy[-1] == "."
        for word, seen in zip(copy[:-1].replace("(", "").replace(")", "").split(), found, strict=True):
            seen.add(word)
    assert f"{mark}{'cafÃ©' if kind == 'bpe' else 'café'}" in tokens
    words = {word for word in spaced if word.isalpha()}
    assert found[1] == words, "café brings its space along"
    assert found[3] == words
    assert found[2] <= {word for word in bare if word.isalpha()}
    assert len(found[2]) > len(words)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"copies": 0}, "copies: 0; allowed: 1 or more"),
        ({"candidates": 0}, "candidates: 0; allowed: 1 or more"),
        ({"probability": 1.1}, r"probability: 1\.1; allowed: 0 to 1"),
        ({"probability": float("nan")}, "probability: nan"),
        ({"seed": -1}, "seed: -1; allowed: 0 or more"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**settings)


def test_what_does_not_fit_is_refused(model, tokenizer, tmp_path):
    config = AugmentationConfig()
    with pytest.raises(ValueError, match="model: BertForSequenceClassification, "):
        augment_texts(TEXTS, tokenizer, tiny(), config)
    with pytest.raises(ValueError, match="tokenizer: CanineTokenizer, a slow one; allowed: a fast one"):
        augment_texts(TEXTS, CanineTokenizer(), model, config)
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(ValueError, match="tokenizer: one without a mask token"):
        augment_texts(TEXTS, bare, model, config)
    with pytest.raises(ValueError, match=r"vectors: .*nowhere, which is no file"):
        augment_texts(TEXTS, tokenizer, model, AugmentationConfig(vectors=str(tmp_path / "nowhere")))
