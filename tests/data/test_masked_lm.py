import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM, GPT2Config
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput

from edgemin_hf.data.masked_lm import WORD, load_masked_lm, predict_words
from tests.helpers.formulas import one_by_one
from tests.helpers.models import FAMILIES, VOCABULARY, batch, tiny

LENGTHS = (7, 4, 9, 4)
MASKED = [(0, 1), (2, 0), (1, 3), (0, 6), (2, 8), (3, 2)]


def rows(lengths=LENGTHS):
    ids = batch(lengths)["input_ids"]
    return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_predict_what_single_passes_predict(tokenizer, family):
    model = tiny(family, head=AutoModelForMaskedLM).train()
    found = predict_words(rows(), MASKED, tokenizer, model, 5)
    assert not model.training
    assert found == one_by_one(model, tokenizer, rows(), MASKED, 5)
    assert not model.base_model._forward_hooks


@pytest.mark.parametrize(
    ("lengths", "passes"),
    [
        ([8] * 280, [(256, 8), (24, 8)]),
        ([60] * 140, [(136, 60), (4, 60)]),
        ([4, 60, 4, 4] * 100, [(136, 60), (256, 4), (8, 4)]),
    ],
    ids=["256 rows", "8192 tokens", "like lengths together"],
)
def test_batches_are_bounded_and_their_borders_change_nothing(tokenizer, lengths, passes):
    model, seen = tiny(head=AutoModelForMaskedLM), []
    texts, masked = rows(lengths), [(text, text % 4) for text in range(len(lengths))]
    expected = one_by_one(model, tokenizer, texts, masked, 5)
    model.register_forward_pre_hook(
        lambda _module, _args, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    assert predict_words(texts, masked, tokenizer, model, 5) == expected
    assert seen == passes
    assert predict_words(texts, [], tokenizer, model, 5) == []


def test_only_words_are_predicted_also_by_a_table_longer_than_the_vocabulary(tokenizer):
    model = tiny(head=AutoModelForMaskedLM, vocab_size=len(VOCABULARY) + 7)
    (found,) = predict_words([[2, 30, 3]], [(0, 1)], tokenizer, model, 1000)
    assert sorted(found) == sorted(token for token in VOCABULARY if token.isalpha())


class Unpadded(nn.Module):
    """A model that computes real tokens alone and pads its logits, as ModernBERT with FlashAttention does."""

    def __init__(self):
        super().__init__()
        self.base_model = nn.Identity()
        self.table = nn.Parameter(torch.randn(len(VOCABULARY), len(VOCABULARY)))
        self.config = tiny().config
        self.device = torch.device("cpu")

    def forward(self, input_ids, attention_mask, return_dict):
        real = attention_mask.bool()
        hidden = self.base_model(BaseModelOutput(last_hidden_state=self.table[input_ids[real]])).last_hidden_state
        logits = torch.zeros(*input_ids.shape, len(VOCABULARY)).masked_scatter(real[..., None], hidden)
        return MaskedLMOutput(logits=logits)


def test_a_model_that_computes_without_padding(tokenizer):
    model = Unpadded()
    found = predict_words(rows(), MASKED, tokenizer, model, 5)
    words = [token for token in range(len(VOCABULARY)) if VOCABULARY[token].isalpha()]
    best = sorted(words, key=lambda token: -model.table[tokenizer.mask_token_id, token].item())[:5]
    assert found == [[VOCABULARY[token] for token in best]] * len(MASKED)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't pay 42 €, café-bar", ["don't", "pay", "café", "bar"]),
        ("l\u2019argent 'quoted' x_1", ["l\u2019argent", "quoted", "x"]),
        ("", []),
    ],
)
def test_what_a_word_is(text, words):
    assert WORD.findall(text) == words


def test_checkpoints_with_and_without_a_head(tmp_path, tokenizer):
    model = tiny(head=AutoModelForMaskedLM)
    model.save_pretrained(tmp_path / "masked")
    again = load_masked_lm(tmp_path / "masked")
    assert predict_words(rows(), MASKED, tokenizer, again, 3) == predict_words(rows(), MASKED, tokenizer, model, 3)
    tiny().save_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"model: .*classifier, which lacks cls\.predictions"):
        load_masked_lm(tmp_path / "classifier")
    GPT2Config().save_pretrained(tmp_path / "causal")
    with pytest.raises(ValueError, match=r"model: .*causal, a gpt2; allowed: a masked language model"):
        load_masked_lm(tmp_path / "causal")
