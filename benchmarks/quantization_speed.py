"""Latency and size after quantisation: our graphs beside ONNX Runtime's fp32, Optimum's INT8 and OpenVINO.

    python benchmarks/quantization_speed.py [--threads 1 2] [--rounds 20] [--openvino] [--write docs/speed.md]

sentence-transformers/all-MiniLM-L6-v2 with a new head of 77 labels is quantised after training, in every way; a pass
takes as long whatever the weights are. Per number of threads all graphs take turns, at batch 1 x 16, 1 x 128 and 8 x
128 tokens, without padding. Then ONNX Runtime's profiler says where our INT8 graph spends its time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import PASSES, profile, write_json
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.benchmark.measure import measure_latency
from edgemin_hf.benchmark.runners import OnnxRunner, OpenVinoRunner, Runner
from edgemin_hf.export.fidelity import SAMPLE_TEXTS
from edgemin_hf.export.graph import optimized_graph, quantized_nodes, size_bytes
from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.export.onnx_quantized import INT4_GRAPH, INT8_GRAPH
from edgemin_hf.export.ptq import quantize_static
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.quantization.native import calibrate, prepare_qat
from edgemin_hf.utils.hardware import environment

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SHAPES = ((1, 16), (1, 128), (8, 128))
FP32, OURS, DYNAMIC, STATIC = "fp32", "INT8, ours", "INT8 dynamic, Optimum", "INT8 static, Optimum"
INT4_TABLES, INT4 = "INT8, embeddings INT4, ours", "INT4, ours"
PRECISIONS = {OURS: ("int8", "int8"), INT4_TABLES: ("int8", "int4"), INT4: ("int4", "int4")}
MARKER = "<!-- table: written by benchmarks/quantization_speed.py -->"


def main() -> None:
    """Make all graphs, time them, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--openvino", action="store_true", help="run fp32 and our INT8 graphs in OpenVINO too")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    parser.add_argument("--write", type=Path, help="write the tables into this Markdown file")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        graphs = write_graphs(Path(folder))
        sizes = {name: size_bytes(path) for name, path in graphs.items()}
        kernels = quantized_nodes(optimized_graph(graphs[OURS], Path(folder) / "optimized.onnx"))
        times = {
            (threads, shape): measured(graphs, threads, shape, options)
            for threads, shape in product(options.threads, SHAPES)
        }
        ours = profile(graphs[OURS], inputs(1, 128), 1, options.rounds)
    parts = [*table(times, sizes), "", *breakdown(ours, kernels)]
    print("\n".join(parts))
    rows = [
        {"graph": name, "threads": threads, "batch_size": shape[0], "length": shape[1], "p50_ms": ms}
        for (threads, shape), found in times.items()
        for name, ms in found.items()
    ]
    packages = ["openvino"] * options.openvino
    result = {"rows": rows, "size_bytes": sizes, "environment": environment(max(options.threads), *packages).to_dict()}
    write_json(options.output, result)
    if options.write:
        before, marker, _ = options.write.read_text(encoding="utf-8").partition(MARKER)
        options.write.write_text("\n".join([f"{before}{marker}", "", *parts]) + "\n", encoding="utf-8")


def write_graphs(folder: Path) -> dict[str, Path]:
    """Write the graphs: Optimum's of the plain model, then ours."""
    checkpoint = resolve_checkpoint(MODEL).path
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    plain = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=77).eval()
    plain.save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    optimum, static = folder / "optimum", folder / "static.onnx"
    export_baseline(folder / "plain", optimum)
    quantize_static(optimum / FP32_GRAPH, tokenizer, plain.config, SAMPLE_TEXTS, static)
    graphs = {FP32: optimum / FP32_GRAPH, DYNAMIC: optimum / INT8_GRAPH, STATIC: static}
    for index, (name, (weights, embeddings)) in enumerate(PRECISIONS.items()):
        model = AutoModelForSequenceClassification.from_pretrained(folder / "plain").eval()
        config = QuantizationConfig(weights=weights, embeddings=embeddings)
        quantize(model, tokenizer, config)
        made = export_onnx(model, tokenizer, folder / f"ours_{index}")
        graphs[name] = made.folder / (INT8_GRAPH if weights == "int8" else INT4_GRAPH)
    return graphs


def quantize(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: QuantizationConfig) -> None:
    """Quantise a model after training, in place, with ranges from a few sentences."""
    prepare_qat(model, config)
    batch = dict(tokenizer(list(SAMPLE_TEXTS), padding=True, return_tensors="pt"))
    calibrate(model, [batch], lambda batch: model(**batch))


def inputs(batch: int, length: int) -> dict[str, np.ndarray]:
    """Return a batch of random token ids."""
    ids = np.random.default_rng(0).integers(1000, 30000, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def measured(
    graphs: Mapping[str, Path], threads: int, shape: tuple[int, int], options: argparse.Namespace
) -> dict[str, float]:
    """Return each graph's median milliseconds of a batch."""
    runners: dict[str, Runner] = {name: OnnxRunner(path, threads) for name, path in graphs.items()}
    if options.openvino:
        runners |= {f"{name}, in OpenVINO": OpenVinoRunner(graphs[name], threads) for name in (FP32, OURS)}
    passes = [inputs(*shape)] * PASSES
    title = f"{threads} thread(s), {shape[0]} x {shape[1]}"
    times = measure_latency(runners, dict.fromkeys(runners, passes), options.rounds, title)
    return {name: float(np.median(values)) for name, values in times.items()}


def table(times: Mapping[tuple[int, tuple[int, int]], Mapping[str, float]], sizes: Mapping[str, int]) -> list[str]:
    """Return a Markdown table: a row a graph, a column a case; ratios are to ONNX Runtime's fp32."""
    cases = [f"{threads} thread{'s' * (threads > 1)}, {b} x {n}" for threads, (b, n) in times]
    lines = [f"| ms (times as fast as fp32) | MB | {' | '.join(cases)} |", f"| --- {'| ---: ' * (len(cases) + 1)}|"]
    for name in next(iter(times.values())):
        size = sizes[name.removesuffix(", in OpenVINO")] / 1e6
        cells = [f"{found[name]:.2f} ({found[FP32] / found[name]:.2f}×)" for found in times.values()]
        lines.append(f"| {name} | {size:.1f} | {' | '.join(cells)} |")
    return lines


def breakdown(ours: Counter[str], kernels: Mapping[str, int]) -> list[str]:
    """Say where our INT8 graph spends its time, and which quantised kernels it runs."""
    total = sum(ours.values())
    shares = [
        f"{op} {ms / total:.0%}" for op, ms in sorted(ours.items(), key=lambda item: -item[1]) if ms > total / 100
    ]
    counts = ", ".join(f"{count} {op}" for op, count in kernels.items())
    return [
        "Our INT8 graph at 1 x 128, one thread, in the profile of ONNX Runtime "
        f"{onnxruntime.__version__}: {', '.join(shares)}. Its quantised kernels: {counts}."
    ]


if __name__ == "__main__":
    main()
