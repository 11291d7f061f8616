import copy

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, RobertaTokenizerFast

from edgemin_hf.data.word_windows import windows, word_tokenizer
from tests.helpers.models import SlowTokenizer

WORDS = ["cards", "is", "new", "olds", "my", "zq", "lost"]
# By the vocabulary of tests.helpers.models: card ##s, is, new, old ##s, my, z ##q, lost.
PIECES = [0, 0, 1, 2, 3, 3, 4, 5, 5, 6]


def alone(tokenizer, words, **settings):
    (found,) = windows(tokenizer, [words], **{"max_length": 64, "stride": 0} | settings)
    return found


def test_the_first_piece_of_each_word_is_its_own(tokenizer):
    (window,) = alone(tokenizer, WORDS)
    assert window.word_ids == [-1, 0, -1, 1, 2, 3, -1, 4, 5, -1, 6, -1]
    assert window.inner_ids == [-1, -1, 0, -1, -1, -1, 3, -1, -1, 5, -1, -1]
    assert window.inputs["input_ids"] == tokenizer(" ".join(WORDS))["input_ids"]
    assert window.inputs["attention_mask"] == [1] * 12


@pytest.mark.parametrize("max_length", [6, 7, 9, 12])
@pytest.mark.parametrize("stride", [0, 1, 2])
def test_each_word_is_in_the_window_where_it_has_more_context(tokenizer, max_length, stride):
    found = alone(tokenizer, WORDS, max_length=max_length, stride=stride)
    content = max_length - 2
    starts = [number * (content - stride) for number in range(len(found))]
    whole = tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"]
    for window, start in zip(found, starts, strict=True):
        assert window.inputs["input_ids"] == [2, *whole[start : start + content], 3]
    for word in range(len(WORDS)):
        piece = PIECES.index(word)
        context = [
            min(piece - start, len(window.word_ids) - 3 - (piece - start)) if 0 <= piece - start < content else -1
            for window, start in zip(found, starts, strict=True)
        ]
        best = context.index(max(context))
        places = [(n, p) for n, window in enumerate(found) for p, own in enumerate(window.word_ids) if own == word]
        assert places == [(best, 1 + piece - starts[best])]
        inner = [(n, p) for n, window in enumerate(found) for p, own in enumerate(window.inner_ids) if own == word]
        assert all(number == best and place > places[0][1] for number, place in inner)


def test_words_without_pieces_and_sentences_side_by_side(tokenizer):
    both = windows(tokenizer, [["card", "", "\u200b", "is"], ["my"] * 9], max_length=6, stride=1)
    assert [window.word_ids for window in both[0]] == [[-1, 0, 3, -1]]
    assert [window.word_ids for window in both[1]] == [
        window.word_ids for window in alone(tokenizer, ["my"] * 9, max_length=6, stride=1)
    ]


def byte_level(kind):
    """A byte-level tokenizer that puts no space before the first word, as RoBERTa's and ModernBERT's."""
    rules = Tokenizer(models.BPE(unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[UNK]"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters)
    rules.train_from_iterator(["my card is lost where is my card please send money now"] * 3, trainer)
    rules.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return kind(tokenizer_object=rules, cls_token="<s>", sep_token="</s>", **names)


@pytest.mark.parametrize("kind", [RobertaTokenizerFast, PreTrainedTokenizerFast])
def test_byte_level_tokenizers_read_words_as_within_a_text_also_when_loaded_again(kind, tmp_path):
    plain = byte_level(kind)
    reader = word_tokenizer(plain)
    assert word_tokenizer(reader) is reader
    words = ["card", "is", "lost"]
    (window,) = alone(reader, words)
    assert window.word_ids == [-1, 0, 1, 2, -1]
    assert reader.convert_ids_to_tokens(window.inputs["input_ids"])[1:-1] == ["Ġcard", "Ġis", "Ġlost"]
    assert not plain.tokenize("card is")[0].startswith("Ġ")
    reader.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert word_tokenizer(loaded) is loaded
    assert loaded("card is lost")["input_ids"] == window.inputs["input_ids"]
    assert (
        Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("card is lost").ids
        == loaded("card is lost")["input_ids"]
    )


def test_others_stay_as_they_are_but_for_the_side_that_is_cut(tokenizer):
    assert word_tokenizer(tokenizer) is tokenizer
    left = copy.deepcopy(tokenizer)
    left.truncation_side = "left"
    assert alone(word_tokenizer(left), WORDS, max_length=6) == alone(tokenizer, WORDS, max_length=6)


def test_slow_tokenizers_are_refused(tokenizer, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(tokenizer.get_vocab()))
    with pytest.raises(ValueError, match=r"tokenizer: Bert.*, a slow one; allowed: a fast one \(tokenizer.json\)"):
        word_tokenizer(SlowTokenizer(str(tmp_path / "vocab.txt")))
