import pytest
import torch
from transformers import AutoModelForMaskedLM

from edgemin_hf import DistilBERTConfig, create_student
from edgemin_hf.data.masking import EpochOfMasks, MaskedTokens
from tests.helpers.models import tiny
from tests.helpers.training import assert_same, dataset, make, weights


def examples(rows=64):
    return list(dataset(rows, labels=True))


def test_masks_depend_on_content_seed_and_epoch_alone(tokenizer):
    collator = MaskedTokens(tokenizer, seed=1)
    first = collator(examples())
    torch.manual_seed(7)
    again = collator(examples())
    assert all(torch.equal(first[name], again[name]) for name in first)
    collator.epoch = 1
    assert not torch.equal(collator(examples())["labels"], first["labels"])
    assert not torch.equal(MaskedTokens(tokenizer, seed=2)(examples())["labels"], first["labels"])


def test_a_share_of_the_tokens_is_masked_and_labels_are_the_true_ones(tokenizer):
    found = MaskedTokens(tokenizer, seed=1, mlm_probability=0.3)(examples(512))
    plain = MaskedTokens(tokenizer, seed=1, mlm_probability=0.0)(examples(512))
    masked = found["labels"] != -100
    real = found["attention_mask"].bool()
    assert masked[real].float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert not masked[~real].any()
    assert torch.equal(found["labels"][masked], plain["input_ids"][masked])
    assert torch.equal(found["input_ids"][~masked], plain["input_ids"][~masked])
    assert (found["input_ids"][masked] == tokenizer.mask_token_id).float().mean().item() == pytest.approx(0.8, abs=0.08)


def test_resumed_equals_uninterrupted(tmp_path, tokenizer):
    def trainer(folder, **arguments):
        teacher = tiny(head=AutoModelForMaskedLM)
        collator = MaskedTokens(tokenizer, seed=5)
        made = make(
            folder, tokenizer, create_student(teacher, 2), teacher, DistilBERTConfig(), dataset(labels=False),
            max_steps=10, save_strategy="steps", save_steps=3, **arguments,
        )  # fmt: skip
        made.data_collator = collator
        made.add_callback(EpochOfMasks(collator))
        return made

    whole = trainer(tmp_path / "whole")
    whole.train()
    resumed = trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert_same(weights(resumed), weights(whole))
