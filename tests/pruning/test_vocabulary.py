import csv
import importlib.util
import json
import pickle
import random
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizerFast,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizerFast,
    CanineTokenizer,
    DebertaV2TokenizerFast,
    GenerationConfig,
    MPNetTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

from edgemin_hf.hub.checkpoints import PACKAGED_CHECKPOINTS
from edgemin_hf.pruning.vocabulary import prune_vocabulary
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.native import FakeQuantEmbedding, prepare_qat
from tests.helpers.models import tiny

DATA = Path(__file__).parents[2] / "recipes" / "data" / "banking77"
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
STRANGE = ["zebra xylophone quizzical vortex", "Ünïcödé: naïve café — 東京 🦓", "?!", "€100,000.00", "x" * 150, ""]


def sentences(name, count=None):
    with (DATA / name).open(encoding="utf-8") as file:
        rows = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return rows[:: len(rows) // count][:count] if count else rows


LEARNT = sentences("train.tsv", 400)
USED = LEARNT[::8]
OTHER = sentences("test.tsv", 100)


def word_piece(cls=BertTokenizerFast, special=BERT, **settings):
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained = [*special, *(["[UNK]"] if "[UNK]" not in special else [])]
    backend.train_from_iterator(LEARNT, trainers.WordPieceTrainer(vocab_size=700, special_tokens=trained))
    first, last = (special[2], special[3]) if special is BERT else ("<s>", "</s>")
    pair = [(last, backend.token_to_id(last)), (first, backend.token_to_id(first))]
    processor = processors.BertProcessing if special is BERT else processors.RobertaProcessing
    backend.post_processor = processor(*pair)
    backend.decoder = decoders.WordPiece()
    return cls(tokenizer_object=backend, model_max_length=64, **settings)


def byte_bpe(cls=RobertaTokenizerFast, special=ROBERTA, ignore_merges=False, **settings):
    backend = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        LEARNT, trainers.BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet)
    )
    first, last = ("<s>", "</s>") if special is ROBERTA else ("[CLS]", "[SEP]")
    template = processors.TemplateProcessing(
        f"{first} $A {last}", f"{first} $A {last} $B {last}", [(t, backend.token_to_id(t)) for t in (first, last)]
    )
    trim = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    backend.post_processor = processors.Sequence([trim, template])
    backend.decoder = decoders.ByteLevel()
    return cls(tokenizer_object=backend, model_max_length=64, **settings)


def unigram(cls=XLMRobertaTokenizerFast, special=("<s>", "<pad>", "</s>", "<unk>"), unk="<unk>", **settings):
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.train_from_iterator(
        LEARNT, trainers.UnigramTrainer(vocab_size=600, special_tokens=list(special), unk_token=unk)
    )
    first, last = ("<s>", "</s>") if "<s>" in special else ("[CLS]", "[SEP]")
    backend.post_processor = processors.TemplateProcessing(
        f"{first} $A {last}", f"{first} $A {last} $B {last}", [(t, backend.token_to_id(t)) for t in (first, last)]
    )
    backend.decoder = decoders.Metaspace()
    return cls(tokenizer_object=backend, model_max_length=64, **settings)


def special_names(tokens):
    """Settings of PreTrainedTokenizerFast, which has no special tokens of its own."""
    return dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), tokens, strict=True))


TOKENIZERS = {
    "bert": word_piece,
    "distilbert": word_piece,
    "electra": word_piece,
    "mpnet": lambda: word_piece(MPNetTokenizerFast, ROBERTA),
    "roberta": byte_bpe,
    "deberta": lambda: byte_bpe(PreTrainedTokenizerFast, BERT, **special_names(BERT)),
    "modernbert": lambda: byte_bpe(PreTrainedTokenizerFast, BERT, ignore_merges=True, **special_names(BERT)),
    "xlm-roberta": unigram,
    "camembert": unigram,
    "albert": lambda: unigram(AlbertTokenizerFast, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
    "deberta-v2": lambda: unigram(DebertaV2TokenizerFast, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), "[UNK]"),
}


@pytest.fixture(scope="module")
def made():
    """One tokenizer of each kind, since training takes longest; nothing may change them."""
    return {family: make() for family, make in TOKENIZERS.items()}


def model_for(family, tokenizer, **settings):
    names = {"pad_token_id": "pad_token", "bos_token_id": "cls_token", "eos_token_id": "sep_token"}
    if family == "modernbert":
        names |= {"cls_token_id": "cls_token", "sep_token_id": "sep_token"}
    ids = {name: tokenizer.convert_tokens_to_ids(getattr(tokenizer, token)) for name, token in names.items()}
    return tiny(family, vocab_size=len(tokenizer), **ids, **settings)


def pieces(tokenizer, texts):
    return [tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) for text in texts]


@torch.no_grad()
def logits(model, tokenizer, texts):
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length=64, return_tensors="pt", return_token_type_ids=False
    )
    return model.eval()(**batch).logits


def unknown(tokenizer, texts):
    return [tokenizer(text)["input_ids"].count(tokenizer.unk_token_id) for text in texts]


@pytest.mark.parametrize("family", TOKENIZERS)
def test_the_texts_have_the_same_pieces_and_the_same_logits(made, family, tmp_path):
    tokenizer = made[family]
    model = model_for(family, tokenizer)
    was = logits(model, tokenizer, USED)
    before = tokenizer.backend_tokenizer.to_str()
    cut = prune_vocabulary(model, tokenizer, iter(USED))
    assert tokenizer.backend_tokenizer.to_str() == before
    assert len(cut) < 0.85 * len(tokenizer)
    assert pieces(cut, USED) == pieces(tokenizer, USED)
    assert torch.equal(logits(model, cut, USED), was)
    assert cut(*USED[:2]).tokens() == tokenizer(*USED[:2]).tokens()

    # The old order, no gap, and what the tokenizer says of itself.
    old = sorted(cut.get_vocab(), key=tokenizer.convert_tokens_to_ids)
    assert cut.convert_tokens_to_ids(old) == list(range(len(cut)))
    assert cut.special_tokens_map == tokenizer.special_tokens_map
    assert cut.model_max_length == 64

    # The model's numbers.
    table = model.get_input_embeddings()
    assert model.config.vocab_size == table.num_embeddings == len(table.weight) == len(cut)
    for name in ("pad", "bos", "eos"):
        token = {"pad": cut.pad_token_id, "bos": cut.cls_token_id, "eos": cut.sep_token_id}[name]
        assert getattr(model.config, f"{name}_token_id") == token
    assert table.padding_idx == (1 if family == "mpnet" else cut.pad_token_id)

    # Other text falls apart further, and nothing more of it is unknown.
    assert unknown(cut, OTHER + STRANGE) == unknown(tokenizer, OTHER + STRANGE)
    assert [len(ids) for ids in cut(OTHER)["input_ids"]] != [len(ids) for ids in tokenizer(OTHER)["input_ids"]]
    assert torch.isfinite(logits(model, cut, OTHER + STRANGE)).all()

    # On disk.
    cut.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.get_vocab() == cut.get_vocab()
    assert loaded.model_max_length == 64
    assert loaded.special_tokens_map == tokenizer.special_tokens_map
    assert pieces(loaded, USED + OTHER) == pieces(cut, USED + OTHER)
    assert torch.equal(logits(reloaded, loaded, USED), was)


@pytest.mark.parametrize("family", TOKENIZERS)
@pytest.mark.parametrize("tied", [True, False])
def test_masked_lm_heads_lose_the_same_rows(made, family, tied, tmp_path):
    tokenizer = made[family]
    model = model_for(family, tokenizer, head=AutoModelForMaskedLM, tie_word_embeddings=tied)
    was = logits(model, tokenizer, USED)
    cut = prune_vocabulary(model, tokenizer, USED)
    kept = tokenizer.convert_tokens_to_ids(cut.convert_ids_to_tokens(list(range(len(cut)))))
    torch.testing.assert_close(logits(model, cut, USED), was[..., kept], rtol=1e-5, atol=1e-5)
    decoder = model.get_output_embeddings()
    assert (decoder.weight is model.get_input_embeddings().weight) == tied
    assert decoder.out_features == len(cut)
    model.save_pretrained(tmp_path)
    reloaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(logits(reloaded, cut, USED), logits(model, cut, USED))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_quantised_tables_stay_on_their_grid(made, family):
    tokenizer = made[family]
    model = model_for(family, tokenizer)
    prepare_qat(model, QuantizationConfig())
    table = model.get_input_embeddings()
    ids = tokenizer.convert_tokens_to_ids
    was, scores = table(torch.arange(len(tokenizer))), logits(model, tokenizer, USED)
    cut = prune_vocabulary(model, tokenizer, USED)
    assert model.get_input_embeddings() is table
    assert isinstance(table, FakeQuantEmbedding)
    kept = ids(cut.convert_ids_to_tokens(list(range(len(cut)))))
    assert torch.equal(table(torch.arange(len(cut))), was[kept])
    assert torch.equal(logits(model, cut, USED), scores)


def test_all_that_holds_ids_is_renumbered():
    tokenizer = byte_bpe()
    tokenizer.add_tokens([AddedToken("BANKWORD", single_word=True), AddedToken("[X]", special=True)])
    tokenizer.backend_tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=12, direction="left")
    tokenizer.backend_tokenizer.enable_truncation(9)
    last = len(tokenizer) - 1
    model = model_for("roberta", tokenizer)
    model.generation_config = GenerationConfig(pad_token_id=1, eos_token_id=[2, last], bos_token_id=None)
    model.config.mask_token_id = last - 1
    texts = ["my BANKWORD is lost [X]"]
    was = pieces(tokenizer, texts)
    cut = prune_vocabulary(model, tokenizer, texts)
    assert pieces(cut, texts) == was
    assert "BANKWORD" in was[0]
    new = len(cut) - 1
    assert new < last
    assert cut.convert_ids_to_tokens([new - 1, new]) == ["BANKWORD", "[X]"]
    assert cut.added_tokens_encoder.keys() == tokenizer.added_tokens_encoder.keys()
    assert cut.added_tokens_decoder[new] == tokenizer.added_tokens_decoder[last]
    assert model.generation_config.eos_token_id == [2, new]
    assert (model.config.mask_token_id, model.generation_config.pad_token_id) == (new - 1, 1)
    assert cut.backend_tokenizer.padding == tokenizer.backend_tokenizer.padding
    assert cut.backend_tokenizer.truncation == tokenizer.backend_tokenizer.truncation


def test_padding_and_post_processor_follow_tokens_that_move():
    vocabulary = {token: index for index, token in enumerate(["gone", "a", "[UNK]", "lost", "[CLS]", "[SEP]", "[PAD]"])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 5), ("[CLS]", 4))
    backend.enable_padding(pad_id=6, pad_token="[PAD]", length=8)
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    model = tiny(vocab_size=7, pad_token_id=6)
    table = model.get_input_embeddings().weight.detach().clone()
    cut = prune_vocabulary(model, tokenizer, ["a lost"])
    assert cut.backend_tokenizer.encode("a lost").ids == [3, 0, 2, 4, 5, 5, 5, 5]
    assert cut.get_vocab() == {token: index - 1 for token, index in vocabulary.items() if token != "gone"}
    assert torch.equal(model.get_input_embeddings().weight, table[1:])
    assert (model.config.pad_token_id, model.get_input_embeddings().padding_idx) == (5, 5)


@pytest.mark.parametrize(("family", "name"), [("xlm-roberta", "sentencepiece.bpe.model"), ("deberta-v2", "spm.model")])
def test_no_file_of_the_old_tokenizer_is_saved(made, family, name, tmp_path):
    old = tmp_path / name
    old.write_bytes(b"the old pieces")
    backend = made[family].backend_tokenizer
    tokenizer = type(made[family])(vocab_file=str(old), tokenizer_object=backend, model_max_length=64)
    cut = prune_vocabulary(model_for(family, tokenizer), tokenizer, USED)
    assert str(old) not in cut.init_kwargs.values()
    assert_one_file(cut, tmp_path / "after")


def assert_one_file(cut, folder):
    """All of a cut tokenizer is in tokenizer.json, and any transformers reads it from there alone."""
    cut.save_pretrained(folder)
    files = {file.name for file in folder.iterdir()}
    assert files - {"special_tokens_map.json"} == {"tokenizer.json", "tokenizer_config.json"}
    # A class of a family's own would be rebuilt by transformers 5 from the vocabulary, without what else the file says.
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.backend_tokenizer.to_str() == cut.backend_tokenizer.to_str()
    assert loaded.model_input_names == cut.model_input_names


@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_cut_tokenizer_is_its_file_and_nothing_else(made, family, tmp_path):
    cut = prune_vocabulary(model_for(family, made[family]), made[family], USED)
    assert cut.model_input_names == made[family].model_input_names
    assert_one_file(cut, tmp_path)
    assert pickle.loads(pickle.dumps(cut)).get_vocab() == cut.get_vocab()


def test_settings_stay(tmp_path):
    tokenizer = word_piece(
        do_lower_case=False, strip_accents=False, tokenize_chinese_chars=False, truncation_side="left"
    )
    tokenizer.padding_side, tokenizer.model_max_length, tokenizer.bos_token = "left", 33, "[CLS]"
    cut = prune_vocabulary(model_for("bert", tokenizer), tokenizer, USED)
    cut.save_pretrained(tmp_path)
    for found in (cut, AutoTokenizer.from_pretrained(tmp_path)):
        assert (found.padding_side, found.truncation_side, found.model_max_length) == ("left", "left", 33)
        assert found.bos_token == "[CLS]"
        assert (
            found.backend_tokenizer.normalizer.__getstate__() == tokenizer.backend_tokenizer.normalizer.__getstate__()
        )


def test_rare_tokens_go_with_a_higher_count(made):
    tokenizer = made["bert"]
    texts = ["card card lost", "card money money"]
    sizes = []
    for min_count in (1, 2, 3):
        cut = prune_vocabulary(model_for("bert", tokenizer), tokenizer, texts, min_count=min_count)
        sizes.append(len(cut))
        assert ("card" in cut.vocab, "money" in cut.vocab, "lost" in cut.vocab) == (True, min_count < 3, min_count < 2)
        assert cut.tokenize("lost card")[-1] == "card"
        assert unknown(cut, texts) == [0, 0]
    assert sizes == sorted(sizes, reverse=True)


def wrap(model, **specials):
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **specials)


def test_an_unknown_word_stays_unknown():
    # "ab" goes from the front of "abx" before it proves unknown; were it gone, "a" and "##bx" would match.
    tokenizer = wrap(models.WordPiece({"[UNK]": 0, "a": 1, "ab": 2, "##b": 3, "##bx": 4, "c": 5}, unk_token="[UNK]"))
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert tokenizer.tokenize("ABX cbx") == ["[UNK]", "c", "##bx"]
    cut = prune_vocabulary(tiny(vocab_size=6), tokenizer, ["ABX cbx"])
    assert cut.tokenize("ABX cbx") == ["[UNK]", "c", "##bx"]


def test_every_merge_that_makes_a_token_keeps_its_parts():
    # "abcd" is made of "ab" and "cd"; "abc" and "d" come too late, and with "ab" gone, "cd" would take their "c" away.
    merges = [("c", "d"), ("a", "b"), ("ab", "cd"), ("b", "c"), ("a", "bc"), ("abc", "d"), ("d", "d")]
    tokens = ["[UNK]", "a", "b", "c", "d", "ab", "cd", "bc", "abc", "abcd", "dd"]
    tokenizer = wrap(models.BPE({token: index for index, token in enumerate(tokens)}, merges, unk_token="[UNK]"))
    assert tokenizer.tokenize("abcd cd") == ["abcd", "cd"]
    cut = prune_vocabulary(tiny(vocab_size=len(tokens)), tokenizer, ["abcd cd"])
    assert cut.tokenize("abcd cd dd") == ["abcd", "cd", "d", "d"]
    assert cut.get_vocab() == {token: index for index, token in enumerate(tokens[:-1])}


def random_word_piece(draw):
    words = ["".join(draw.choices("abcd", k=draw.randint(1, 4))) for _ in range(25)]
    tokens = dict.fromkeys(draw.choice(["", "##"]) + word for word in words)
    return models.WordPiece({"[UNK]": 0, **{t: i for i, t in enumerate(tokens, 1)}}, unk_token="[UNK]")


def random_bpe(draw):
    vocabulary, merges = {"[UNK]": 0, "a": 1, "b": 2}, []
    while len(merges) < 20:  # so short that many merges have the same result
        left, right = draw.choices(list(vocabulary)[1:], k=2)
        if len(left + right) < 6 and (left, right) not in merges:
            merges.append((left, right))
            vocabulary.setdefault(left + right, len(vocabulary))
    ignore = draw.random() < 0.3
    return models.BPE(vocabulary, merges, unk_token="[UNK]", ignore_merges=ignore, fuse_unk=draw.random() < 0.5)


def random_unigram(draw):
    words = ["".join(draw.choices("abcd", k=draw.randint(1, 4))) for _ in range(25)]
    # Few different scores, for ties; some characters have no piece of their own.
    pieces = [(word, -float(draw.randint(1, 6))) for word in dict.fromkeys(words)]
    return models.Unigram([("[UNK]", 0.0), *pieces], 0)


@pytest.mark.long
@pytest.mark.parametrize("make", [random_word_piece, random_bpe, random_unigram])
def test_random_vocabularies_give_the_texts_the_same_pieces(make):
    fewer = 0
    for seed in range(100):
        draw = random.Random(seed)
        tokenizer = wrap(make(draw))
        words = ["".join(draw.choices("abcd", k=draw.randint(1, 9))) for _ in range(draw.randint(1, 9))]
        texts = [" ".join(words[:3]), " ".join(words)]
        model = tiny(vocab_size=len(tokenizer), num_hidden_layers=1)
        cut = prune_vocabulary(model, tokenizer, texts)
        fewer += len(cut) < len(tokenizer)
        assert pieces(cut, texts) == pieces(tokenizer, texts)
        assert model.config.vocab_size == len(cut)
    assert fewer > 50


def test_an_unknown_character_costs_what_it_did():
    # "a" has no piece of its own. With "zz" gone it would cost 30, not 110, and "abc" would be unknown and "bc".
    pieces_of_words = [
        ("[UNK]", 0.0),
        ("ab", -20.0),
        ("c", -20.0),
        ("bc", -1.0),
        ("b", -9.0),
        ("z", -9.0),
        ("zz", -100.0),
    ]
    tokenizer = wrap(models.Unigram([*pieces_of_words, ("bcc", -50.0)], 0))
    assert tokenizer.tokenize("abc bc a") == ["ab", "c", "bc", "a"]
    cut = prune_vocabulary(tiny(vocab_size=8), tokenizer, ["abc bc a"])
    assert len(cut) == 7
    assert cut.tokenize("abc bc a") == ["ab", "c", "bc", "a"]


def test_pieces_of_bytes_stay():
    pieces_of_bytes = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    vocabulary = [("[UNK]", 0.0), *pieces_of_bytes, ("ab", -1.0), ("abc", -2.0), ("a", -3.0)]
    tokenizer = wrap(models.Unigram(vocabulary, 0, byte_fallback=True))
    cut = prune_vocabulary(tiny(vocab_size=len(vocabulary)), tokenizer, ["ab"])
    assert len(cut) == len(tokenizer) - 1
    assert cut.tokenize("abc") == ["ab", "<0x63>"]


def test_a_model_table_longer_than_the_vocabulary_loses_the_rest(made):
    model = tiny(vocab_size=len(made["bert"]) + 50)
    cut = prune_vocabulary(model, made["bert"], USED)
    assert len(model.get_input_embeddings().weight) == len(cut)


def test_bad_input_changes_nothing(made):
    slow, bert = CanineTokenizer(), made["bert"]
    words = wrap(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    random_merges = wrap(models.BPE({"[UNK]": 0, "a": 1}, [], unk_token="[UNK]", dropout=0.1))
    cases = [
        (slow, USED, 1, "tokenizer: CanineTokenizer"),
        (words, USED, 1, "tokenizer: of type WordLevel; allowed: WordPiece, BPE, Unigram"),
        (random_merges, USED, 1, "tokenizer: of type BPE with dropout 0.1"),
        (made["roberta"], USED, 1, "tokenizer: has a token of id"),
        (bert, "one text", 1, "texts: a single text"),
        (bert, [], 1, "texts: no token"),
        (bert, USED, 0, "min_count: 0; allowed: 1 or more"),
    ]
    model = model_for("bert", bert)
    config, weight = model.config.to_dict(), model.get_input_embeddings().weight
    for tokenizer, texts, min_count, message in cases:
        with pytest.raises(ValueError, match=message):
            prune_vocabulary(model, tokenizer, texts, min_count=min_count)
    assert model.config.to_dict() == config
    assert model.get_input_embeddings().weight is weight


def test_positions_after_the_padding_forbid_to_move_it():
    tokens = ["[UNK]", "gone", "<pad>", "a"]
    backend = models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]")
    tokenizer = wrap(backend, pad_token="<pad>")
    for family in ("roberta", "mpnet"):  # RoBERTa numbers positions from the padding's 2, MPNet from 1, whatever it is
        model = tiny(family, vocab_size=4, pad_token_id=2, bos_token_id=0, eos_token_id=0)
        with pytest.raises(ValueError, match=f"pad_token_id: 2; .* model type '{family}'"):
            prune_vocabulary(model, tokenizer, ["a"])
        assert model.config.vocab_size == len(model.get_input_embeddings().weight) == 4
        assert len(prune_vocabulary(model, tokenizer, ["a gone"])) == 4


def test_a_head_without_rows_of_tokens_is_refused(made):
    model = tiny(
        "deberta", head=AutoModelForMaskedLM, vocab_size=len(made["bert"]), legacy=False, tie_word_embeddings=False
    )
    with pytest.raises(ValueError, match="model: a head of 32 outputs"):
        prune_vocabulary(model, made["bert"], USED)


PACKAGE = PACKAGED_CHECKPOINTS["sentence-transformers/all-MiniLM-L6-v2"]


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec(PACKAGE.module) is None, reason=f"{PACKAGE.distribution} is not installed")
def test_a_published_vocabulary_shrinks_to_a_tenth():
    place = importlib.util.find_spec(PACKAGE.module).submodule_search_locations[0]
    tokenizer = AutoTokenizer.from_pretrained(Path(place, PACKAGE.folder))
    model = tiny(vocab_size=len(tokenizer))
    texts = sentences("train.tsv")
    was = logits(model, tokenizer, texts[:64])
    cut = prune_vocabulary(model, tokenizer, texts)
    assert cut(texts, add_special_tokens=False).encodings[0].tokens == tokenizer.tokenize(texts[0])
    assert pieces(cut, texts[::10]) == pieces(tokenizer, texts[::10])
    assert torch.equal(logits(model, cut, texts[:64]), was)
    assert len(cut) < len(tokenizer) / 6
    assert sum(unknown(cut, OTHER + STRANGE)) == sum(unknown(tokenizer, OTHER + STRANGE))
