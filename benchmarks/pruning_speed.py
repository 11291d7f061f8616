"""What pruning heads and feed-forward neurons is worth in milliseconds: fp32 and INT8 ONNX at 0, 25, 50 and 75%.

    python benchmarks/pruning_speed.py [--threads 1] [--rounds 40] [--output FILE]

A BERT classifier of 6 x 384 with 12 heads and an FFN of 1536 has as many heads and neurons removed from each layer, and
is exported as `export_onnx` does it: fp32, and INT8 after calibration. Weights are random, since a pass takes as long
whatever they are. All graphs take turns, at batch 1 x 128. Of each the median of the same classifier without layers is
subtracted, so that ratios are of layers alone.

FLOPs are those of the layers' products, attention's included. The dense model of that shape has matrices of those sizes
from its birth: it is built of `torch.nn.Linear`, not cut. (By its configuration BERT can't be: the width of its heads
follows from its own. With fewer but wider heads it would have other FLOPs.)
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import PASSES, profile, write_json
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from edgemin_hf import PruningConfig
from edgemin_hf.benchmark.measure import measure_latency
from edgemin_hf.benchmark.runners import OnnxRunner
from edgemin_hf.export.onnx_graph import write_fused, write_graph
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.integer import integer_copy, plain_copy
from edgemin_hf.quantization.native import calibrate, prepare_qat
from edgemin_hf.utils.hardware import environment

SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
HEAD_SIZE = 32
LENGTH = 128
SPARSITIES = (0.0, 0.25, 0.5, 0.75)
GOAL = 1.6
"""Times that half of the heads and neurons are meant to make the layers faster."""

Name = tuple[str, float]
"""Kind ("fp32", "int8", "dense") and sparsity of a graph; 1.0 is that without layers."""


def main() -> None:
    """Export all graphs, time them in turns, and print a table and what it says about 50%."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        graphs = write_graphs(Path(folder), BertConfig(**SHAPE | {"num_hidden_layers": options.layers}))
        runners = {name: OnnxRunner(path, options.threads) for name, path in graphs.items()}
        times = measure_latency(runners, dict.fromkeys(runners, [inputs()] * PASSES), options.rounds)
        rows = rows_of({name: float(np.median(values)) for name, values in times.items()}, options.layers)
        print(table(rows))
        half = next(row for row in rows if row["sparsity"] == 0.5)
        verdicts = {kind: verdict(kind, half, graphs, options) for kind in ("fp32", "int8")}
    print("\n" + "\n".join(verdicts.values()))
    settings = {"threads": options.threads, "rounds": options.rounds, "passes": PASSES, "layers": options.layers}
    machine = environment(options.threads).to_dict()
    result = {"settings": settings, "rows": rows, "verdicts": verdicts, "environment": machine}
    write_json(options.output, result)


def inputs() -> dict[str, np.ndarray]:
    """Return one text of random token ids."""
    ids = np.random.default_rng(0).integers(1000, 30000, (1, LENGTH))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def counts(sparsity: float) -> tuple[int, int]:
    """Return how many heads and neurons of a layer stay."""
    config = PruningConfig(head_sparsity=sparsity, ffn_sparsity=sparsity)
    return config.kept_heads(SHAPE["num_attention_heads"]), config.kept_neurons(SHAPE["intermediate_size"])


def write_graphs(folder: Path, config: BertConfig) -> dict[Name, Path]:
    """Write the graphs of all kinds and sparsities."""
    graphs: dict[Name, Path] = {}

    def write(kind: str, sparsity: float, model: BertForSequenceClassification) -> None:
        graphs[kind, sparsity] = folder / "onnx" / f"{kind}-{sparsity}.onnx"
        write_graph(model, graphs[kind, sparsity])
        if kind == "int8":
            write_fused(graphs[kind, sparsity], graphs[kind, sparsity])

    for sparsity in SPARSITIES:
        heads, neurons = counts(sparsity)
        write("dense", sparsity, dense(config, heads, neurons))
        model = BertForSequenceClassification(copy.deepcopy(config)).eval()
        blocks = len(Encoder(model).blocks)
        remove(model, Selection([range(heads)] * blocks, [range(neurons)] * blocks))
        write("fp32", sparsity, plain_copy(model))
        prepare_qat(model, QuantizationConfig())
        batch = {name: torch.from_numpy(array) for name, array in inputs().items()}
        calibrate(model, [batch], lambda batch, model=model: model(**batch))
        write("int8", sparsity, integer_copy(model))
    for kind, form in (("fp32", plain_copy(model)), ("int8", integer_copy(model))):
        form.bert.encoder.layer = nn.ModuleList()
        form.config.num_hidden_layers = 0
        write(kind, 1.0, form)
    return graphs


def dense(config: BertConfig, heads: int, neurons: int) -> BertForSequenceClassification:
    """Build a model that had these shapes from the beginning, without this package's surgery."""
    config = copy.deepcopy(config)
    config.intermediate_size = neurons
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        attention.num_attention_heads, attention.all_head_size = heads, heads * HEAD_SIZE
        for name in ("query", "key", "value"):
            setattr(attention, name, nn.Linear(config.hidden_size, heads * HEAD_SIZE))
        layer.attention.output.dense = nn.Linear(heads * HEAD_SIZE, config.hidden_size)
    return model


def flops(sparsity: float, layers: int) -> float:
    """Count the operations of the layers' products for one text: two for a multiplication and an addition."""
    heads, neurons = counts(sparsity)
    width, context = SHAPE["hidden_size"], heads * HEAD_SIZE
    weights = LENGTH * (4 * width * context + 2 * width * neurons)
    return 2.0 * layers * (weights + 2 * LENGTH**2 * context)


def rows_of(ms: dict[Name, float], layers: int) -> list[dict[str, Any]]:
    """Return a row a sparsity; milliseconds are of the layers, ratios to the whole model's."""
    rest = {"fp32": ms["fp32", 1.0], "int8": ms["int8", 1.0], "dense": ms["fp32", 1.0]}
    rows = []
    for sparsity in SPARSITIES:
        heads, neurons = counts(sparsity)
        row = {"sparsity": sparsity, "heads": heads, "neurons": neurons, "flops": flops(sparsity, layers)}
        row["flop_ratio"] = flops(0.0, layers) / row["flops"]
        for kind, outside in rest.items():
            row[f"{kind}_ms"] = ms[kind, sparsity] - outside
            row[f"{kind}_outside_ms"] = outside
            row[f"{kind}_ratio"] = (ms[kind, 0.0] - outside) / row[f"{kind}_ms"]
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        "| sparsity | heads, FFN | MFLOPs | ratio | fp32 (ms) | ratio | INT8 (ms) | ratio | dense, fp32 (ms) |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [f"{row['sparsity']:.0%}", f"{row['heads']}, {row['neurons']}", f"{row['flops'] / 1e6:.0f}"]
        cells += [f"{row['flop_ratio']:.2f}×"]
        for kind in ("fp32", "int8"):
            cells += [f"{row[f'{kind}_ms']:.2f}", f"{row[f'{kind}_ratio']:.2f}×"]
        lines.append(f"| {' | '.join([*cells, format(row['dense_ms'], '.2f')])} |")
    fp32, int8 = (rows[0][f"{kind}_outside_ms"] for kind in ("fp32", "int8"))
    lines.append(f"\nSubtracted, of embeddings, pooler and classifier: fp32 {fp32:.2f} ms, INT8 {int8:.2f} ms.")
    return "\n".join(lines)


def verdict(kind: str, half: dict[str, Any], graphs: dict[Name, Path], options: argparse.Namespace) -> str:
    """Say whether 50% reaches the goal; if not, which operators take the time that does not shrink."""
    ratio = half[f"{kind}_ratio"]
    said = f"{kind}: 50% of heads and neurons make the layers {ratio:.2f}x as fast, of FLOPs {half['flop_ratio']:.2f}x"
    if ratio >= GOAL:
        return f"{said}: {GOAL}x is reached."
    cost = partial(profile, inputs=inputs(), threads=options.threads, passes=options.rounds)
    whole, less = (cost(graphs[kind, sparsity]) for sparsity in (0.0, 0.5))
    outside = cost(graphs[kind, 1.0])
    layers = {op: (whole[op] - outside[op], less[op] - outside[op]) for op in whole}
    lines = [f"{said}: {GOAL}x is not reached. Operators of the layers in ONNX Runtime's profile, ms at 0% and 50%:"]
    for op, (before, after) in sorted(layers.items(), key=lambda item: -item[1][1]):
        lines.append(f"  {op:<28}{before:>8.3f}{after:>8.3f}  {before / max(after, 1e-6):.2f}x")
    slow = [(op, after) for op, (before, after) in layers.items() if before < GOAL * after]
    share = sum(after for _, after in slow) / sum(after for _, after in layers.values())
    names = ", ".join(op for op, _ in sorted(slow, key=lambda item: -item[1]))
    lines.append(f"  Those below {GOAL}x take {share:.0%} of the time at 50%: {names}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
