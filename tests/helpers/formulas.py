"""Losses and predictions computed another way: by the papers' formulas, one row at a time."""

import numpy as np
import torch

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import record
from tests.helpers.models import VOCABULARY


def projections(width, lengths=(7, 4, 9), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths), width)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name in "qkv"}


def mask_of(lengths=(7, 4, 9), width=None):
    return (torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]).long()


def reference(student, teacher, mask, heads, relations=("qq", "kk", "vv"), weights=None):
    """The paper's formula, one example, head and row at a time, in float64; padding is cut away first."""
    total = 0.0
    for (a, b), weight in zip(relations, weights or [1.0] * len(relations), strict=True):
        for example in range(len(mask)):
            real = mask[example].numpy().astype(bool)
            for head in range(heads):
                relation = []
                for side in (student, teacher):
                    rows, columns = (side[name][example].numpy().astype(np.float64)[real] for name in (a, b))
                    width = rows.shape[1] // heads
                    part = slice(head * width, (head + 1) * width)
                    scores = rows[:, part] @ columns[:, part].T / np.sqrt(width)
                    scores -= scores.max(axis=1, keepdims=True)
                    relation.append(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))
                s, t = relation
                total += weight * (np.exp(t) * (t - s)).sum() / (heads * real.sum() * len(mask))
    return total


def terms_of(config, student, teacher, inputs):
    objective = config.objective(Encoder(student), Encoder(teacher))
    recordings = [
        record(model, activations, logits=False, inputs=inputs)
        for model, activations in ((student, objective.student_activations), (teacher, objective.teacher_activations))
    ]
    return objective(*recordings, inputs)


def one_by_one(model, tokenizer, input_ids, masked, count):
    """One forward pass for each masked token, without padding; all logits, sorted in plain Python."""
    found = []
    for text, place in masked:
        ids = list(input_ids[text])
        ids[place] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, place].tolist()
        words = [token for token in range(len(VOCABULARY)) if VOCABULARY[token].isalpha()]
        found.append([VOCABULARY[token] for token in sorted(words, key=lambda token: -logits[token])[:count]])
    return found
