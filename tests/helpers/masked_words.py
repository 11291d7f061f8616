"""A teacher that predicts masked tokens, texts, and a recipe of them."""

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from tests.helpers.models import WORDS, tiny
from tests.helpers.recipes import write_recipe

HEAD = AutoModelForMaskedLM


def ordered_texts(count, seed=0):
    """Different texts whose words follow each other in one order with "the" between them, which is soon learned."""
    generator = np.random.default_rng(seed)
    found = {}
    while len(found) < count:
        start, length = generator.integers([0, 4], [len(WORDS), 24])
        words = (WORDS[(start + i) % len(WORDS)] if i % 2 else "the" for i in range(length))
        found[" ".join(words)] = None
    return list(found)


def write_texts(path, count, seed=0):
    path.write_text("\n".join(ordered_texts(count, seed)) + "\n")
    return path


def write_words(root, tokenizer, family="bert", **changes):
    """Write a teacher with a masked-LM head, texts to train on and texts to test on."""
    tiny(family, head=HEAD, **changes).save_pretrained(root / "teacher")
    tokenizer.save_pretrained(root / "teacher")
    write_texts(root / "train.txt", 160)
    write_texts(root / "test.txt", 40, seed=1)
    return root


def word_recipe(root, *changes, run="run", stages=None, **task):
    def change(recipe):
        asked = {"type": "masked_lm", "train_file": "train.txt", "test_file": "test.txt", "max_length": 24}
        recipe["task"] = {**asked, "pseudo_perplexity_texts": 10, **task}
        recipe["raw_text"] = {"files": ["train.txt"], "max_length": 24, "validation_blocks": 4}
        recipe["output_dir"] = str(root / run)
        if stages is not None:
            recipe["stages"] = stages
        for one in changes:
            one(recipe)

    return write_recipe(root, change, f"{run}.yaml")


def log_probabilities_in_turn(model, ids, special, mask_id):
    """Log-probabilities of a text's tokens, each masked alone in a pass of its own: Salazar et al. 2020, in float64."""
    found = []
    for place, token in enumerate(ids):
        if token in special:
            continue
        masked = list(ids)
        masked[place] = mask_id
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([masked]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        row = logits.logits[0, place].numpy().astype(np.float64)
        found.append(row[token] - row.max() - np.log(np.exp(row - row.max()).sum()))
    return found
