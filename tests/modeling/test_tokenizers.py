import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertTokenizerFast,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from edgemin_hf import export_onnx
from edgemin_hf.benchmark.runners import load_runner
from edgemin_hf.data.corpus import check_packable
from edgemin_hf.export.outputs import inputs_of_each
from edgemin_hf.modeling import fitted, load_tokenizer, model_inputs
from edgemin_hf.modeling.families import first_position
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.runtime.graph import graph_feed
from tests.helpers.models import FAMILIES, VOCABULARY, SlowTokenizer, tiny

PAIRS = [("where is my card", "the card is late"), ("send money", "now please")]


@pytest.fixture
def xlmr():
    """A tokenizer that frames texts as XLM-R's does, and gives no token types."""
    rules = Tokenizer(models.WordLevel({token: index for index, token in enumerate(VOCABULARY)}, "[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name.strip('[]').lower()}_token": name for name in VOCABULARY[:5]}
    return PreTrainedTokenizerFast(tokenizer_object=rules, model_input_names=["input_ids", "attention_mask"], **names)


def test_families_take_what_their_graphs_have():
    with_types = {"bert", "electra", "albert", "ernie"}
    for family, (_, config) in FAMILIES.items():
        assert ("token_type_ids" in model_inputs(config)) == (family in with_types), family
    assert "token_type_ids" not in model_inputs(BertConfig(type_vocab_size=1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_any_tokenizer_and_any_family_exchange_what_both_know(family, kind, tokenizer, xlmr, tmp_path):
    given = tokenizer if kind == "bert" else xlmr
    before = list(given.model_input_names)
    model = tiny(family)
    made = export_onnx(model, given, tmp_path / "out", texts=PAIRS)
    assert given.model_input_names == before
    assert made.fp32.error <= made.fp32.limit
    saved = AutoTokenizer.from_pretrained(made.folder)
    assert set(saved.model_input_names) == set(model_inputs(model.config))
    assert saved.model_max_length == min(given.model_max_length, 66 - first_position(model.config))
    encoded = saved([PAIRS[0]], return_tensors="pt")
    assert model(**encoded).logits.shape == (1, 3)  # its own tokenizer gives nothing that it refuses
    for runtime, file in (("pytorch", "model.safetensors"), ("onnxruntime", "onnx/model.onnx")):
        runner = load_runner(runtime, made.folder / file, threads=1)
        inputs = inputs_of_each(load_tokenizer(made.folder), PAIRS[:1])[0]
        found = runner.run(runner.prepare(inputs))
        torch.testing.assert_close(torch.from_numpy(found), model(**encoded).logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_token_types_that_a_model_has_no_rows_for_do_not_reach_it(family, tokenizer):
    changes = {"type_vocab_size": 1} if family == "roberta" else {}
    model = tiny(family, **changes)
    batch = dict(tokenizer(PAIRS, padding=True, return_tensors="pt"))
    assert batch["token_type_ids"].max() == 1
    inputs = filter_forward_inputs(model, batch)
    assert list(inputs) == ["input_ids", "attention_mask"]
    assert model(**inputs).logits.isfinite().all()


def test_a_bert_with_one_token_type_is_given_zeros_at_most(tokenizer):
    model = tiny(type_vocab_size=1)
    ours = fitted(tokenizer, model.config)
    assert "token_type_ids" not in ours(*PAIRS[0])
    assert model(**ours(PAIRS, padding=True, return_tensors="pt")).logits.shape == (2, 3)
    inputs = inputs_of_each(ours, PAIRS[:1])[0]
    feed = graph_feed(["input_ids", "token_type_ids"], inputs)  # as some graphs want them all the same
    assert feed["token_type_ids"].shape == inputs["input_ids"].shape
    assert not feed["token_type_ids"].any()


def test_a_tokenizer_that_fits_stays_the_same_object(tokenizer):
    assert fitted(tokenizer, tiny().config) is tokenizer


@pytest.mark.parametrize(("config", "most"), [(BertConfig, 512), (RobertaConfig, 510), (DistilBertConfig, 512)])
def test_positions_bound_a_tokenizer_without_a_greatest_length(xlmr, config, most):
    assert xlmr.model_max_length > 1e9
    config = config(vocab_size=len(VOCABULARY), pad_token_id=1, max_position_embeddings=512)
    ours = fitted(xlmr, config)
    assert ours.model_max_length == most
    assert len(ours("card " * 2000, truncation=True)["input_ids"]) == most


def test_too_large_a_tokenizer_is_refused(tokenizer, tmp_path):
    config = BertConfig(vocab_size=len(VOCABULARY))
    larger = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    larger.add_tokens(["<user>"])
    told = rf"token '<user>' has id {len(VOCABULARY)}; allowed: below {len(VOCABULARY)}"
    with pytest.raises(ValueError, match=told):
        fitted(larger, config)
    with pytest.raises(ValueError, match=told):
        export_onnx(tiny(), larger, tmp_path / "out")


def test_a_missing_pad_token_is_found_by_its_name_or_refused(xlmr):
    bare = {"tokenizer_object": xlmr.backend_tokenizer}
    assert fitted(PreTrainedTokenizerFast(**bare), BertConfig(vocab_size=len(VOCABULARY))).pad_token == "[PAD]"
    with pytest.raises(ValueError, match="tokenizer: has no pad_token"):
        fitted(PreTrainedTokenizerFast(**bare), BertConfig(vocab_size=len(VOCABULARY), pad_token_id=40))


@pytest.mark.parametrize("content", [None, "", "version https://git-lfs.github.com/spec/v1\n", "{}"])
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "deberta-v2"])
def test_a_missing_or_broken_tokenizer_is_one_line(tmp_path, family, content):
    FAMILIES[family][1].save_pretrained(tmp_path)
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="tokenizer") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_a_slow_tokenizer_works_but_for_what_needs_its_rules(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    slow = SlowTokenizer(str(tmp_path / "vocab.txt"))
    made = export_onnx(tiny("roberta"), slow, tmp_path / "out", texts=PAIRS)
    saved = json.loads((made.folder / "tokenizer_config.json").read_text())
    assert saved["model_input_names"] == ["input_ids", "attention_mask"]
    with pytest.raises(ValueError, match=r"BertTokenizer\w*, a slow one .*; allowed: a fast one"):
        check_packable(slow)
