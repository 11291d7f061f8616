"""How often chance alone fails the check of an exported graph, and which faults it catches.

    python benchmarks/fidelity_false_alarms.py [--seeds 10] [--families bert mpnet ...] [--output FILE]

For each family and seed a tiny random INT8 model is exported, and with seed 0 its graph changed: the scale of one
layer's input, or of its weights, multiplied by a factor, or the positions after the 140th moved by one. A right graph
is compared with the model on 256 texts, a faulty one on 64, in parts of 64 and of 16, each a trial; and on five long
texts of up to 512 tokens. A right graph that a criterion refuses is a false alarm; a faulty one that it takes is
missed. What was counted so far is written after each model.
"""

from __future__ import annotations

import argparse
import string
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from common import write_json
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from edgemin_hf import quantize
from edgemin_hf.export.check_texts import ENOUGH, Encoded, enough_texts, long_batches, short_batches
from edgemin_hf.export.fidelity import LONG_EPSILON, SAMPLE_TEXTS, Comparison, float_copy
from edgemin_hf.export.onnx_graph import write_fused, write_graph
from edgemin_hf.modeling import FAMILIES
from edgemin_hf.modeling.tokenizers import fitted
from edgemin_hf.quantization.integer import integer_copy

TEXTS = enough_texts(SAMPLE_TEXTS, 256)
SCALES = (("input_scale", 1.05), ("weight_scale", 1.002))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3,
    "max_position_embeddings": 514, "pad_token_id": 0,
}  # fmt: skip
OWN: dict[str, dict[str, object]] = {
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64},
    "albert": {"embedding_size": 16},
    "electra": {"embedding_size": 16},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    "modernbert": {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3, "local_attention": 6},
}
OWN["deberta-v2"] = {**OWN["deberta"], "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True}
SAME = ("xlm-roberta", "camembert", "ernie")
"""Families whose tiny models are those of RoBERTa, or BERT, number for number."""


def character_tokenizer() -> PreTrainedTokenizerBase:
    """Make a tokenizer with a token a character: texts then have some eighty tokens."""
    names = [*SPECIAL, *string.printable.strip(), "£"]
    rules = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, "[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    rules.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)]
    )
    roles = ("pad_token", "unk_token", "cls_token", "sep_token")
    return PreTrainedTokenizerFast(tokenizer_object=rules, **dict(zip(roles, SPECIAL, strict=True)))


def trained_model(family: str, seed: int, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make a random INT8 model whose layers matter, calibrated on a quarter of the texts."""
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **{**SHAPE, **OWN.get(family, {})})
    set_seed(seed)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(8)
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    batches = short_batches(fitted(tokenizer, config), config, TEXTS[::4])
    return quantize(model, dataloader=[{n: torch.from_numpy(v) for n, v in batch.items()} for batch in batches]).eval()


def faulty_graphs(graph: Path) -> Iterator[tuple[str, Path]]:
    """Write copies of a graph, each with a fault."""
    for kind, factor in SCALES:
        yield (
            f"{kind} x {factor}",
            _changed(graph, (f"dense.{kind}", kind), lambda values, by=factor: values * np.float32(by)),
        )
    tables = ("position_embeddings.weight", "rel_embeddings.weight")
    if (path := _changed(graph, tables, _moved)) is not None:
        yield "positions", path


def _moved(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """Move the rows of positions that short texts do not reach."""
    return np.concatenate([rows[:140], np.roll(rows[140:], 1, axis=0)])


def _changed(
    graph: Path, endings: Sequence[str], change: Callable[[NDArray[np.generic]], NDArray[np.generic]]
) -> Path | None:
    """Write a copy of a graph in which a tensor in the middle of those of a name is changed; None where none is."""
    copied = onnx.load(graph)
    for ending in endings:
        found = [tensor for tensor in copied.graph.initializer if tensor.name.endswith(ending)]
        if found:
            tensor = found[len(found) // 2]
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(values).astype(values.dtype), tensor.name))
            path = graph.with_name(f"faulty-{len(list(graph.parent.iterdir()))}.onnx")
            onnx.save(copied, path)
            return path
    return None


def compared(model: PreTrainedModel, graph: Path, batches: Iterable[Encoded]) -> Comparison:
    """Compare a graph with its model on batches of texts."""
    comparison = Comparison(model, graph)
    for batch in batches:
        comparison.add(batch)
    return comparison


def verdicts(short: Comparison, count: int) -> dict[str, list[bool]]:
    """Tell, of each part of so many texts, whether a criterion refuses the graph: the check's, and the earlier one."""
    errors, floors, sizes = (
        np.array(values).reshape(-1, count) for values in (short.errors, short.floors, short.sizes)
    )
    quartile = {name: np.quantile(values, 0.75, axis=1) for name, values in (("floor", floors), ("size", sizes))}
    limit = np.maximum(4 * quartile["floor"], 1e-4 * quartile["size"])
    return {
        f"median of {count} texts": (np.median(errors, axis=1) > limit).tolist(),
        f"upper quartile of {count} texts": (np.quantile(errors, 0.75, axis=1) > limit).tolist(),
    }


def main() -> None:
    """Measure and print; write the counts as JSON where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", default=[name for name in FAMILIES if name not in SAME])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    refused: dict[str, list[bool]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    tokenizer = character_tokenizer()
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for family in options.families:
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                trial(family, seed, tokenizer, Path(folder, "graph", "right.onnx"), refused, ratios)
            print(f"{family} {seed}: {time.perf_counter() - start:.0f} s", flush=True)
            if options.output is not None:
                counts = {name: [sum(values), len(values)] for name, values in refused.items()}
                write_json(options.output, {"refused": counts, "ratios": ratios})
    print("\n".join(summary(refused, ratios)))


def trial(
    family: str,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    graph: Path,
    refused: dict[str, list[bool]],
    ratios: dict[str, list[float]],
) -> None:
    """Export a model, right and with faults, and note what each criterion says of each graph."""
    trained = trained_model(family, seed, tokenizer)
    tokenizer, model = fitted(tokenizer, trained.config), float_copy(trained)
    write_graph(integer_copy(trained), graph)
    write_fused(graph, graph)
    faulty = faulty_graphs(graph) if seed == 0 else ()
    for name, path in (("right", graph), *faulty):
        texts = TEXTS if path == graph else TEXTS[:ENOUGH]
        short = compared(model, path, short_batches(tokenizer, model.config, texts))
        long = compared(model, path, long_batches(tokenizer, model.config, texts))
        for count in (16, ENOUGH):
            for criterion, verdict in verdicts(short, count).items():
                refused[f"{name}: {criterion}"] += verdict
        far = long.outcome(LONG_EPSILON)
        refused[f"{name}: long texts"].append(far.error > far.limit)
        ratios[f"{name}: median error of long texts / size"].append(far.error / float(np.quantile(long.sizes, 0.75)))
        share = np.mean(np.array(short.errors) > 1e-4 * np.array(short.sizes))
        ratios[f"{name}: share of texts on another point"].append(float(share))
        share = np.mean(np.array(long.errors) > 1e-4 * np.array(long.sizes))
        ratios[f"{name}: share of long texts on another point"].append(float(share))


def summary(refused: dict[str, Sequence[bool]], ratios: dict[str, Sequence[float]]) -> list[str]:
    """Return a line a graph and criterion, and one a graph on how far off long texts are."""
    lines = [f"{name}: {sum(values)} of {len(values)} refused" for name, values in refused.items()]
    for name, values in ratios.items():
        lines.append(f"{name}: median {np.median(values):.1e}, largest {max(values):.1e}")
    return lines


if __name__ == "__main__":
    main()
