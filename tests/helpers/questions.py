"""Questions with contexts, and tokenizers of every kind that read them."""

import json
from functools import cache

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.helpers.models import WORDS
from tests.helpers.recipes import write_recipe

TEXTS = [
    "Melbourne's 18-year-old Olivia won $1,000.50 (net) in the U.S., not in São Paulo.",
    "The café   has\ttwo   rooms; “quotes” stay – and naïve façades.",
    "它 began in 北京 on 3 June 1999 — 上海 came later.",
    "Fans 😀😀 sent 👩‍👩‍👧 and 🇩🇪 to everyone.",
]
ANSWERS = [
    "18-year",
    "year-old",
    "$1,000.50",
    "1,000",
    "U.S.",
    "São Paulo",
    "Melbourne",
    "café   has",
    "rooms",
    "quotes",
    "façades",
    "北京",
    "北",
    "京 on",
    "3 June 1999",
    "上海",
    "😀",
    "😀😀 sent",
    "👩‍👩‍👧",
    "🇩🇪 to",
    "everyone",
    "它",
    "won",
    "\ttwo  ",
]
"""Spans of `TEXTS`, some of which begin or end within a token."""
_SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
_FRAME = ("<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 2), ("</s>", 3)])
_TYPED = ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1", [("<s>", 2), ("</s>", 3)])


def byte_level(trim=True):
    """As RoBERTa's, whose offsets leave out a token's blank, or as ModernBERT's, whose offsets have it."""
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rules.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=330, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False,
    ))  # fmt: skip
    framed = processors.TemplateProcessing(*_FRAME)
    rules.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), framed]) if trim else framed
    return rules


def sentencepiece():
    """As XLM-R's: pieces of a unigram model, blanks among them."""
    rules = Tokenizer(models.Unigram())
    rules.normalizer = normalizers.NFKC()
    rules.pre_tokenizer = pre_tokenizers.Metaspace()
    rules.train_from_iterator(TEXTS, trainers.UnigramTrainer(
        vocab_size=120, special_tokens=_SPECIAL, unk_token="<unk>", show_progress=False,
    ))  # fmt: skip
    rules.post_processor = processors.TemplateProcessing(*_FRAME)
    return rules


def word_pieces(lowercase=True):
    """As BERT's, with token types."""
    rules = Tokenizer(models.WordPiece(unk_token="<unk>"))
    rules.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rules.train_from_iterator(TEXTS, trainers.WordPieceTrainer(
        vocab_size=160, special_tokens=_SPECIAL, show_progress=False,
    ))  # fmt: skip
    rules.post_processor = processors.TemplateProcessing(*_TYPED)
    return rules


KINDS = {
    "byte_level": byte_level,
    "byte_level_untrimmed": lambda: byte_level(trim=False),
    "sentencepiece": sentencepiece,
    "word_pieces": word_pieces,
    "word_pieces_cased": lambda: word_pieces(lowercase=False),
}


@cache
def rules_of(kind):
    """The rules of a kind, learned once: another time they may come out otherwise."""
    return KINDS[kind]()


def tokenizer_of(kind, side="right"):
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    inputs = ["input_ids", "attention_mask", *["token_type_ids"] * kind.startswith("word_pieces")]
    return PreTrainedTokenizerFast(
        tokenizer_object=rules_of(kind), padding_side=side, model_input_names=inputs, **names
    )


def asked(context, *answers, question="what is it"):
    """A row, as `datasets` has it."""
    return {
        "id": f"{context}{answers}",
        "title": "",
        "context": context,
        "question": question,
        "answers": {"text": list(answers), "answer_start": [context.index(answer) for answer in answers]},
    }


def span_of(window):
    """The first and the last position that a window's labels name; (0, 0) is [CLS]."""
    labels = np.array(window["labels"])
    return int(np.flatnonzero((labels == 1) | (labels == 3))[0]), int(np.flatnonzero(labels >= 2)[0])


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(count, seed=0, unanswerable=0.0):
    """Questions that a tiny model can learn: what comes after a word in a context of words."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words = generator.permutation(WORDS[2:])[: int(generator.integers(5, 11))].tolist()
        place = int(generator.integers(len(words) - 1))
        lacks = generator.random() < unanswerable
        word = str(generator.choice([other for other in WORDS if other not in words])) if lacks else words[place]
        answers = {"text": [], "answer_start": []}
        if not lacks:
            answers = {"text": [words[place + 1]], "answer_start": [len(" ".join(words[: place + 1])) + 1]}
        context, question = " ".join(words), f"where is {word}"
        rows.append({"id": f"{seed}-{number}", "context": context, "question": question, "answers": answers})
    return rows


def question_recipe(root, *changes, run="run", stages=None, **task):
    """Write a recipe for questions beside tables of them; return its path."""

    def change(recipe):
        files = {"train_file": "train.jsonl", "test_file": "test.jsonl"}
        recipe["task"] = {"type": "question_answering", **files, "max_length": 40, "stride": 8, **task}
        recipe["raw_text"] |= {"files": ["train.jsonl"], "text_column": "context"}
        recipe["output_dir"] = str(root / run)
        if stages is not None:
            recipe["stages"] = stages
        for one in changes:
            one(recipe)

    return write_recipe(root, change, f"{run}.yaml")


def write_questions(root, unanswerable=0.0):
    for name, count, seed in (("train", 120, 0), ("test", 24, 1)):
        write_jsonl(root / f"{name}.jsonl", questions(count, seed, unanswerable))
    return root
