"""Cutting a vocabulary to the tokens that a user's texts use: fewer rows, the same pieces, the same logits.

Abdaoui et al. 2020 (arXiv 2010.05609) cut multilingual models to the tokens of some languages; here it is those of some
texts. V are the tokens before, V' those that stay. A text whose tokens stay has the same pieces with V' as with V:

- WordPiece takes the longest match at each place. V holds no longer one than that which stays, so V' holds none either.
  A word without a match is [UNK], whatever matched before; those matches stay as well, so V' fails at the same place.
- BPE applies the first merge of its list that fits. All merges inside the tokens that stay are kept in their order, so
  wherever V applies one, V' finds it and none before it; where V finds none, V' finds none.
- Unigram takes the best segmentation. It stays and others only go; sums and the order of candidates stay, so ties fall
  the same way. What an unknown character costs follows from the worst score of all, so a token of that score stays.

A row of the embedding table is copied bit by bit, and so is what a model computes from it.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from tokenizers import Encoding, Tokenizer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from edgemin_hf.modeling.families import family_of
from edgemin_hf.utils.compat import PortableTokenizer, special_tokens

_TYPES = ("WordPiece", "BPE", "Unigram")
_Json = dict[str, Any]
"""What a tokenizer's file holds: its shape depends on the type of its model."""
_Slot = tuple[Any, Any]
"""A place that holds a token's id: a list or an object of the file, and index or key in it."""
_BATCH = 1024
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
# What is no part of a tokenizer's file.
_SETTINGS = (
    "model_max_length", "model_input_names", "padding_side", "truncation_side", "clean_up_tokenization_spaces",
    "split_special_tokens", "add_prefix_space",
)  # fmt: skip


def prune_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], *, min_count: int = 1
) -> PreTrainedTokenizerFast:
    """Cut a model, in place, to the tokens that texts use, and return the tokenizer of what is left.

    All special and added tokens stay, and what other text falls apart into: single characters and bytes. Tokens keep
    their order. With `min_count` 1 the texts have the same pieces as before, and the model gives the same logits bit
    for bit; of a masked-LM head those of the tokens that are left, up to rounding. Optimizers made before hold dead
    parameters.

    Args:
        model: The model; its embedding table, and decoder if it has a masked-LM head, lose rows. Quantised tables
            keep their grids, which are one a row. Nothing is changed if an error is raised.
        tokenizer: Its tokenizer, which stays as it is.
        texts: What the model will read; a stream is read once.
        min_count: How often a token must occur in the texts to stay.

    Returns:
        A new tokenizer with the same settings, a `PreTrainedTokenizerFast`.

    Raises:
        ValueError: If the tokenizer is slow, of a type that is not known, or not the model's; if no token is used; or
            if the family counts positions from the padding's id and that would change.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
        >>> from edgemin_hf import prune_vocabulary
        >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "my", "new", "card", "phone"]
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "vocab.txt").write_text(chr(10).join(words))
        ...     tokenizer = BertTokenizerFast(f"{folder}/vocab.txt")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=len(words), **shape))
        >>> len(prune_vocabulary(model, tokenizer, ["my card"]))  # special tokens, single letters, two words
        9
        >>> model.config.vocab_size
        9
    """
    state = check_cuttable(tokenizer)
    if isinstance(texts, str):
        raise ValueError("texts: a single text; allowed: a list or stream of texts")
    if min_count < 1:
        raise ValueError(f"min_count: {min_count}; allowed: 1 or more")
    used = {token for token, count in _count(state, texts).items() if count >= min_count}
    if not used:
        raise ValueError(f"texts: no token occurs {min_count} times; allowed: texts that use tokens")
    known = set(tokenizer.get_vocab().values())
    kept = sorted(known & _with_parts(state["model"], used | _named_ids(model, tokenizer, state)))
    new_ids = {old: new for new, old in enumerate(kept)}
    _check_fit(model, new_ids)
    rebuilt = _rebuild(tokenizer, state, new_ids)
    _cut(model, kept)
    _renumber(model, new_ids)
    return rebuilt


def check_cuttable(tokenizer: PreTrainedTokenizerBase) -> _Json:
    """Check that a tokenizer is of a kind that can be cut, and return its rules; ValueError where not."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"tokenizer: {type(tokenizer).__name__}, a slow one; allowed: a fast one")
    state: _Json = json.loads(tokenizer.backend_tokenizer.to_str())
    kind, dropout = state["model"]["type"], state["model"].get("dropout")
    if kind not in _TYPES or dropout:
        name = f"{kind} with dropout {dropout}" if dropout else kind
        raise ValueError(f"tokenizer: of type {name}; allowed: {', '.join(_TYPES)}, without dropout")
    return state


def _count(state: _Json, texts: Iterable[str]) -> Counter[int]:
    """Count the tokens of texts, whole and unframed."""
    backend = Tokenizer.from_str(json.dumps(state))
    backend.no_padding()
    backend.no_truncation()
    counts: Counter[int] = Counter()
    stream = iter(texts)
    while batch := list(islice(stream, _BATCH)):
        for text, encoding in zip(batch, backend.encode_batch(batch, add_special_tokens=False), strict=True):
            counts.update(encoding.ids)
            if state["model"]["type"] == "WordPiece":
                counts.update(_matched_in_vain(state["model"], backend, text, encoding))
    return counts


def _matched_in_vain(model: _Json, backend: Tokenizer, text: str, encoding: Encoding) -> Iterator[int]:
    """Yield the tokens that WordPiece matches in words before it gives them up as unknown."""
    vocabulary = model["vocab"]
    unknown = vocabulary.get(model["unk_token"])
    if unknown not in encoding.ids:
        return
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if token == unknown:
            word = text[start:end]
            word = backend.normalizer.normalize_str(word) if backend.normalizer else word
            if len(word) <= model["max_input_chars_per_word"]:
                yield from (vocabulary[piece] for piece in _longest_matches(model, word))


def _longest_matches(model: _Json, word: str) -> Iterator[str]:
    start, prefix = 0, ""
    while start < len(word):
        pieces = ((end, prefix + word[start:end]) for end in range(len(word), start, -1))
        end, piece = next((found for found in pieces if found[1] in model["vocab"]), (None, ""))
        if end is None:
            return
        yield piece
        start, prefix = end, model["continuing_subword_prefix"]


def _named_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, state: _Json) -> set[int]:
    """Return the tokens that the tokenizer, its JSON or the model refer to by name or id."""
    ids = {*tokenizer.all_special_ids, *(slot[key] for slot, key in _id_slots(state))}
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, dict):  # Unigram's unknown token has a slot
        ids.add(vocabulary.get(state["model"]["unk_token"]))
    for slot, key in _config_slots(model):
        ids.update(slot[key] if isinstance(slot[key], list) else [slot[key]])
    return ids - {None}


def _id_slots(state: _Json) -> Iterator[_Slot]:
    """Yield each place of a tokenizer's JSON that holds a token's id, the vocabulary aside: container and key."""
    yield from ((token, "id") for token in state["added_tokens"])
    if state["padding"]:
        yield state["padding"], "pad_id"
    if state["model"].get("unk_id") is not None:
        yield state["model"], "unk_id"
    processors = [state["post_processor"] or {}]
    while processors:
        processor = processors.pop()
        processors += processor.get("processors", [])
        yield from ((processor[name], 1) for name in ("sep", "cls") if name in processor)
        for special in processor.get("special_tokens", {}).values():
            yield from ((special["ids"], place) for place in range(len(special["ids"])))


def _config_slots(model: PreTrainedModel) -> Iterator[_Slot]:
    for config in (model.config, getattr(model, "generation_config", None)):
        values = {} if config is None else vars(config)
        yield from ((values, name) for name in list(values) if name.endswith("_token_id") and values[name] is not None)


def _with_parts(model: _Json, ids: set[int]) -> set[int]:
    """Add to tokens what they are merged from and what unknown text needs."""
    if model["type"] == "Unigram":
        vocabulary = [token for token, _ in model["vocab"]]
        scores = [score for _, score in model["vocab"]]
        worst = {scores.index(min(scores))}
        return ids | worst | {id for id, token in enumerate(vocabulary) if _is_smallest(model, token)}
    ids = ids | {id for token, id in model["vocab"].items() if _is_smallest(model, token)}
    if model["type"] == "WordPiece":
        return ids
    names = {id: token for token, id in model["vocab"].items()}
    # A token may be the result of several merges: the texts may come by any of them.
    origins: dict[str, set[str]] = defaultdict(set)
    for left, right in model["merges"]:
        origins[_merged(model, left, right)] |= {left, right}
    to_do = [names[id] for id in ids if id in names]
    while to_do:
        parts = {part for part in origins[to_do.pop()] if model["vocab"][part] not in ids}
        ids |= {model["vocab"][part] for part in parts}
        to_do += parts
    return ids


def _is_smallest(model: _Json, token: str) -> bool:
    """Return whether a token is one character, at the begin of a word or inside, or a byte."""
    if model.get("byte_fallback") and _BYTE_PIECE.fullmatch(token):
        return True
    bare = token.removeprefix(model.get("continuing_subword_prefix") or "")
    return len(bare.removesuffix(model.get("end_of_word_suffix") or "")) == 1 or len(token) == 1


def _merged(model: _Json, left: str, right: str) -> str:
    return left + right.removeprefix(model["continuing_subword_prefix"] or "")


def _check_fit(model: PreTrainedModel, new_ids: Mapping[int, int]) -> None:
    """Refuse a tokenizer that is not the model's, and new ids or a head that the model can't have."""
    config, rows = model.config, model.get_input_embeddings().num_embeddings
    if max(new_ids) >= rows:
        raise ValueError(f"tokenizer: has a token of id {max(new_ids)}; allowed: below {rows}, the model's rows")
    if config.pad_token_id is not None and config.pad_token_id not in new_ids:
        raise ValueError(f"pad_token_id: {config.pad_token_id}; allowed: the id of a token of the tokenizer")
    positions = family_of(config).positions
    # These families compare ids with this one, and their positions are numbers after it.
    fixed = config.pad_token_id if positions == "padding" else positions - 1
    if fixed is not None and fixed >= 0 and new_ids.get(fixed) != fixed:
        raise ValueError(
            f"pad_token_id: {config.pad_token_id}; allowed: one after special and used tokens alone, since model type "
            f"{config.model_type!r} counts positions from id {fixed}, which would move"
        )
    decoder = model.get_output_embeddings()
    if decoder is not None and len(decoder.weight) != rows:
        raise ValueError(f"model: a head of {len(decoder.weight)} outputs; allowed: no head, or one of {rows} tokens")


def _rebuild(tokenizer: PreTrainedTokenizerFast, state: _Json, new_ids: Mapping[int, int]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the tokens of `new_ids` and the settings of the old; `state` is used up.

    It is what its file says and nothing else: transformers 5 makes tokenizers of a family's own class from the
    vocabulary and what the family usually has beside it, whatever the file says.
    """
    for slot, key in _id_slots(state):
        slot[key] = new_ids.get(slot[key], slot[key])
    model = state["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for id, entry in enumerate(model["vocab"]) if id in new_ids]
    else:
        model["vocab"] = {token: new_ids[id] for token, id in model["vocab"].items() if id in new_ids}
    if model["type"] == "BPE":
        model["merges"] = [
            (left, right)
            for left, right in model["merges"]
            if {left, right, _merged(model, left, right)} <= model["vocab"].keys()
        ]
    settings = {name: getattr(tokenizer, name) for name in _SETTINGS if hasattr(tokenizer, name)}
    settings |= special_tokens(tokenizer)
    rebuilt = PortableTokenizer(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **settings)
    expected = {token: new_ids[id] for token, id in tokenizer.get_vocab().items() if id in new_ids}
    if rebuilt.get_vocab() != expected:
        raise ValueError("tokenizer: ids with gaps; allowed: tokens numbered from 0, the added ones last")
    return rebuilt


@torch.no_grad()
def _cut(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Cut the embedding table and the decoder to the rows `kept`; what was tied stays tied."""
    table, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [table.weight]
    if decoder is not None:
        # The head has a bias of its own beside the decoder's, which in transformers 5 may be another than that.
        heads = [module for module in model.modules() if decoder in module.children()]
        biases = [getattr(module, "bias", None) for module in (decoder, *heads)]
        tables += [decoder.weight, *(bias for bias in biases if bias is not None and len(bias) == len(table.weight))]
    index = torch.tensor(kept, device=table.weight.device)
    cut = {id(old): nn.Parameter(old.detach()[index], requires_grad=old.requires_grad) for old in tables}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) in cut:
                setattr(module, name, cut[id(parameter)])
    table.num_embeddings = len(kept)
    if decoder is not None:
        decoder.out_features = len(kept)


def _renumber(model: PreTrainedModel, new_ids: Mapping[int, int]) -> None:
    table = model.get_input_embeddings()
    if table.padding_idx is not None:
        table.padding_idx = new_ids[table.padding_idx]
    model.config.vocab_size = len(new_ids)
    for slot, key in _config_slots(model):
        old = slot[key]
        slot[key] = [new_ids.get(id, id) for id in old] if isinstance(old, list) else new_ids.get(old, old)
