import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from edgemin_hf.pruning.coverage import split_share, unknown_share
from edgemin_hf.pruning.vocabulary import prune_vocabulary
from tests.helpers.models import tiny


def test_shares_of_texts_of_another_domain(tokenizer):
    model = tiny().eval()
    cut = prune_vocabulary(model, tokenizer, ["my card is lost"])
    seen, unseen, strange = ["my card is lost"], ["send money to my friend"], ["card 🦓 東京 привет"]
    assert (split_share(tokenizer, cut, seen), unknown_share(cut, seen)) == (0, 0)
    # "send", "money" and "to" were whole; "my" still is, and "friend" was six letters before.
    assert tokenizer.tokenize(unseen[0])[4:] == ["f", *(f"##{letter}" for letter in "riend")]
    assert split_share(tokenizer, cut, unseen) == pytest.approx(3 / 10)
    assert cut.tokenize("send") == ["s", "##e", "##n", "##d"]
    assert unknown_share(cut, unseen) == 0
    # An emoji, two ideographs and a Russian word.
    assert unknown_share(cut, strange) == unknown_share(tokenizer, strange) == pytest.approx(4 / 5)
    for text in (*unseen, *strange, ""):
        assert model(**cut(text, return_tensors="pt")).logits.isfinite().all()


def test_bytes_are_never_unknown_and_no_texts_have_no_share():
    rules = Tokenizer(models.BPE({letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules)
    assert unknown_share(tokenizer, ["東京 🦓"]) == 0
    assert unknown_share(tokenizer, []) == split_share(tokenizer, tokenizer, []) == 0


def test_long_texts_count_whole(tokenizer):
    assert tokenizer.model_max_length == 64
    assert unknown_share(tokenizer, ["my " * 99 + "🦓"]) == pytest.approx(0.01)
