"""Texts that are cut before they are paired give the ids that a tokenizer gives by itself, in bounded memory."""

import random
import tracemalloc

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from edgemin_hf.data import tokenize
from edgemin_hf.data.tokenization import encode
from edgemin_hf.export.outputs import inputs_of_each
from tests.helpers.models import VOCABULARY

TEXT = ["where", "is", "my", "new", "card", "lost", "unaffable", "antidisestablishment"]
TEXT += ["新卡", "在哪里", "café", "naïve", "ﷺ", "😀😀"]


def text(generator, words):
    return " ".join(generator.choice(TEXT) for _ in range(words))


def byte_level():
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    rules.train_from_iterator([" ".join(TEXT)] * 20, trainer)
    rules.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return PreTrainedTokenizerFast(tokenizer_object=rules)


def unigram():
    rules = Tokenizer(models.Unigram())
    rules.normalizer, rules.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    rules.train_from_iterator([" ".join(TEXT)] * 20, trainer)
    frame = ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1", [("<s>", 0), ("</s>", 1)])
    rules.post_processor = processors.TemplateProcessing(*frame)
    return PreTrainedTokenizerFast(tokenizer_object=rules)


@pytest.fixture
def word_pieces(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, "新", "卡", "##卡"]))
    return tmp_path / "vocab.txt"


@pytest.mark.parametrize("kind", ["word pieces", "slow", "byte-level", "unigram", "left", "slow, left"])
def test_ids_are_those_of_the_tokenizer(kind, word_pieces):
    if kind in ("byte-level", "unigram"):
        tokenizer = byte_level() if kind == "byte-level" else unigram()
    else:
        tokenizer = (BertTokenizer if "slow" in kind else BertTokenizerFast)(str(word_pieces))
        tokenizer.truncation_side = "left" if "left" in kind else "right"
    generator = random.Random(0)
    sizes = [(2, 80), (80, 2), (40, 40), (30, 31), (31, 30), (1, 1), (60, 20)]
    pairs = [(text(generator, first), text(generator, second)) for first, second in sizes * 2]
    pairs += [("x" * 150 + first, second.replace(" ", "")) for first, second in pairs[:4]]  # words that are cut within
    pairs += [(first, first) for first, _ in pairs[1:3]]
    for longest in (24, 33):
        assert dict(encode(tokenizer, pairs, longest)) == dict(tokenizer(pairs, truncation=True, max_length=longest))
        firsts = [first for first, _ in pairs]
        assert dict(encode(tokenizer, firsts, longest)) == dict(tokenizer(firsts, truncation=True, max_length=longest))


def test_memory_does_not_grow_with_the_square_of_a_pair(word_pieces, monkeypatch):
    tokenizer = BertTokenizerFast(str(word_pieces))
    read = []
    own = BertTokenizerFast.__call__

    def watched(self, texts, *args, **kwargs):
        if kwargs.get("truncation"):  # what is cut by the tokenizer, which builds all parts of it with each other
            read.extend(len(part) for pair in texts for part in pair)
        return own(self, texts, *args, **kwargs)

    monkeypatch.setattr(BertTokenizerFast, "__call__", watched)
    first, second = "where is my card " * 5000, "send the money " * 5000
    table = Dataset.from_dict({"a": [first], "b": [second], "labels": [1]})
    tracemalloc.start()
    rows = tokenize(table, "a", tokenizer, 64, "b")
    inputs = inputs_of_each(tokenizer, [(first, second)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows[0]["input_ids"]) == 64
    assert inputs[0]["input_ids"].shape == (1, 128)
    assert read
    assert max(read) < 128 * 10
    assert peak < 30 * 2**20
