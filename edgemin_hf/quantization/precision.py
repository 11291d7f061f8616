"""Which precision each linear layer and each table of a model gets: one for all, and others by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from operator import attrgetter

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.pruned_shape import layer_numbers, write_layer_numbers
from edgemin_hf.quantization.config import Precision, QuantizationConfig

_SMALL_TABLE = 16
"""Tables of no more rows (token types) stay in full precision: dequantising costs time and they hold no bytes."""
_WILDCARD = re.compile(r"\*|\?|\[.[^]]*\]")


def precisions(model: PreTrainedModel, config: QuantizationConfig) -> dict[nn.Module, Precision]:
    """Return the precision that each linear layer and each table of words and positions is to have.

    Args:
        model: The model, prepared or not; it may be on the meta device.
        config: What to quantise.

    Returns:
        The precisions by module. Tables that are too small to be worth it are left out.

    Raises:
        ValueError: If a pattern of `overrides` matches no layer or table, unless a model that was prepared before may
            have lost it; if two that are equally specific disagree; if nothing is quantised; or if a table can't be
            stored in INT4.
    """
    encoder, names = Encoder(model), _names_when_prepared(model)
    linears = {names[linear]: linear for _, _, linear in encoder.linears()}
    tables = {names[table]: table for _, _, table in encoder.embeddings() if table.num_embeddings > _SMALL_TABLE}
    if layer_numbers(model.config) is None:
        _check_patterns(config.overrides, [*tables, *linears])
    found: dict[nn.Module, Precision] = {}
    for name, linear in linears.items():
        found[linear] = _override(name, config.overrides) or config.weights
        if found[linear] == "int4" and config.provider == "inc":
            raise ValueError(f"overrides: int4 for {name} beside provider inc; allowed: int8, fp32")
    for name, table in tables.items():
        found[table] = _override(name, config.overrides) or config.embeddings
        if found[table] == "int4" and table.embedding_dim % 2:
            local = name.rpartition(".")[2]
            raise ValueError(f"embeddings: int4 for {local}, {table.embedding_dim} wide; allowed: an even width")
    if set(found.values()) == {"fp32"}:
        raise ValueError("overrides: fp32 for every layer and table; allowed: int8 or int4 for one at least")
    return found


def names_to_choose(model: PreTrainedModel, config: QuantizationConfig) -> set[str]:
    """Return the names of the modules whose precision a target may change, as `precisions` has them.

    Those that `overrides` say nothing of, tables among them where `embeddings` is "int8".
    """
    names = _names_when_prepared(model)
    return {
        names[module]
        for module in precisions(model, config)
        if not _override(names[module], config.overrides)
        and (config.embeddings == "int8" or not isinstance(module, nn.Embedding))
    }


def keep_layer_numbers(config: PretrainedConfig) -> None:
    """Note in a model's configuration how its layers are numbered when overrides are applied to it by name.

    Layers that are removed later would shift the numbers of those after them.
    """
    if layer_numbers(config) is None:
        write_layer_numbers(config, range(config.num_hidden_layers))


def plain_linear(linear: nn.Linear) -> nn.Linear:
    """Return a plain linear layer with the parameters of another kind."""
    plain = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
    plain.weight, plain.bias = linear.weight, linear.bias
    return plain


def plain_table(table: nn.Embedding) -> nn.Embedding:
    """Return a plain embedding table with the rows of another kind."""
    plain = nn.Embedding(table.num_embeddings, table.embedding_dim, table.padding_idx, device="meta")
    plain.weight = table.weight
    return plain


def _names_when_prepared(model: PreTrainedModel) -> dict[nn.Module, str]:
    """Return the name of each module, with its layer's number of when the model was prepared."""
    encoder, numbers = Encoder(model), layer_numbers(model.config)
    names = {module: name for name, module in model.named_modules()}
    if numbers is None:
        return names
    prefix: str = names[attrgetter(encoder.family.layers)(encoder.base)] + "."

    def renumbered(name: str) -> str:
        if not name.startswith(prefix):
            return name
        number, *rest = name.removeprefix(prefix).split(".")
        return prefix + ".".join([str(numbers[int(number)]), *rest])

    return {module: renumbered(name) for module, name in names.items()}


def _override(name: str, overrides: Mapping[str, Precision]) -> Precision | None:
    """Return what the most specific pattern says of a module; None where none matches."""
    matching = [pattern for pattern in overrides if _matches(pattern, name)]
    most = max(map(_specificity, matching), default=0)
    best = [pattern for pattern in matching if _specificity(pattern) == most]
    if len({overrides[pattern] for pattern in best}) > 1:
        raise ValueError(
            f"overrides: {' and '.join(best)}, which are equally specific, disagree on {name}; allowed: one precision, "
            "or an entry for its full name"
        )
    return overrides[best[0]] if best else None


def _matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a module's name, or that of a module which holds it."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def _specificity(pattern: str) -> int:
    return len(_WILDCARD.sub("", pattern))


def _check_patterns(overrides: Mapping[str, Precision], names: Sequence[str]) -> None:
    for pattern in overrides:
        if not any(_matches(pattern, name) for name in names):
            nearest = ", ".join(get_close_matches(pattern, names, n=3, cutoff=0))
            raise ValueError(
                f"overrides: {pattern}, which matches no linear layer or table; allowed: names such as {nearest}, "
                "those of modules that hold them, or patterns (*, ?)"
            )
