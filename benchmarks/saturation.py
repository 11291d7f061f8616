"""What INT8 models lose on a CPU without VNNI, and what `reduce_range` saves: emulated, and measured on such a CPU.

    python benchmarks/saturation.py MODEL TABLE [--text text] [--label label] [--rows 300] [--output FILE]

Without VNNI, ONNX Runtime's kernels multiply uint8 inputs by int8 weights with `vpmaddubsw`: two neighbouring products
are added in int16, which saturates at -32768 and 32767, before the pairs are added in int32. A CPU with VNNI can't be
told to do so; here the linear layers of the integer model are computed exactly, and then what saturation would cut off
is subtracted, pair by pair. Neighbours are taken along the inner dimension, from its start, as the kernels pack them.
Where the CPU at hand saturates, the exported graph answers too, as it is and with ONNX Runtime's exact sums, in turns.

MODEL is the folder of a fine-tuned classifier. Its layers are quantised after training, with and without
`reduce_range`, by ranges from other rows of the table than those that are measured; nothing is trained.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from common import write_json
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf import QuantizationConfig
from edgemin_hf.data.tables import read_table
from edgemin_hf.export import export_onnx
from edgemin_hf.modeling.hooks import Inputs, PostHook, hooked
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.quantization.integer import IntegerLinear, integer_copy
from edgemin_hf.quantization.native import calibrate, prepare_qat
from edgemin_hf.runtime.graph import graph_feed
from edgemin_hf.runtime.sessions import integer_products_saturate, session_options

LEAST, LARGEST = -(2**15), 2**15 - 1
BATCH = 16
Batch = Mapping[str, Tensor]


class SaturatingPairs:
    """What int16 cuts off the pairs of a layer's products.

    Args:
        layer: The layer.

    Attributes:
        saturated: Number of pairs that saturated so far.
        pairs: Number of pairs that were added so far.
    """

    def __init__(self, layer: IntegerLinear) -> None:
        self.layer = layer
        self.saturated = self.pairs = 0
        weight = nn.functional.pad(layer.weight.int(), (0, 0, 0, len(layer.weight) % 2))
        self.first, self.second = weight[0::2], weight[1::2]
        # The largest and the least sum that inputs from 0 to 255 can make of a pair: few can reach beyond int16.
        high, low = (255 * (self.first.clamp(*ends) + self.second.clamp(*ends)) for ends in ((0, 127), (-128, 0)))
        self.rows, self.columns = torch.nonzero((high > LARGEST) | (low < LEAST), as_tuple=True)

    def cut_off(self, x: Tensor) -> Tensor:
        """Return what saturation adds to the integer product of inputs (tokens, inputs): (tokens, outputs)."""
        layer = self.layer
        zero = layer.input_zero_point.to(x.dtype)
        integers = torch.clamp(torch.round(x / layer.input_scale) + zero, 0, 255).int()
        integers = nn.functional.pad(integers, (0, integers.shape[1] % 2))
        self.pairs += len(x) * self.first.numel()
        first, second = (weight[self.rows, self.columns] for weight in (self.first, self.second))
        sums = integers[:, 0::2][:, self.rows] * first + integers[:, 1::2][:, self.rows] * second
        excess = sums.clamp(LEAST, LARGEST) - sums
        self.saturated += int(excess.count_nonzero())
        found = torch.zeros(len(x), layer.weight.shape[1], dtype=torch.int32)
        return found.index_add(1, self.columns, excess)


@contextmanager
def saturating(model: nn.Module) -> Iterator[list[SaturatingPairs]]:
    """Make the integer layers of a model compute as `vpmaddubsw` would."""
    layers = [module for module in model.modules() if isinstance(module, IntegerLinear)]
    pairs = [SaturatingPairs(layer) for layer in layers]

    def hook(one: SaturatingPairs) -> PostHook:
        def saturate(_module: nn.Module, args: Inputs, output: Tensor) -> Tensor:
            cut = one.cut_off(args[0].flatten(0, -2)).unflatten(0, output.shape[:-1])
            return output + cut * (one.layer.input_scale * one.layer.weight_scale)

        return saturate

    with hooked(after=[(one.layer, hook(one)) for one in pairs]):
        yield pairs


@torch.no_grad()
def logits_of(model: nn.Module, batches: Sequence[Batch]) -> np.ndarray:
    """Return a model's logits (rows, labels)."""
    return torch.cat([model(**batch).logits for batch in batches]).numpy()


def measure(
    model: PreTrainedModel, batches: Sequence[Batch], labels: np.ndarray, plain: np.ndarray
) -> dict[str, float]:
    """Compare the integer form of a calibrated model with what saturation makes of it.

    Args:
        model: The model, prepared and calibrated.
        batches: Its inputs.
        labels: Number of each row's label.
        plain: Logits of the model in full precision (rows, labels).

    Returns:
        Share of the pairs that saturate; over all layers, and in the layer with most. Accuracy without and with
        saturation, the share of rows whose prediction it changes, and how far the logits are from full precision
        without and with it (mean, by their deviation).
    """
    integer = integer_copy(model)
    exact = logits_of(integer, batches)
    with saturating(integer) as layers:
        cut = logits_of(integer, batches)
    return {
        "saturated_share": sum(one.saturated for one in layers) / sum(one.pairs for one in layers),
        "largest_layer_share": max(one.saturated / one.pairs for one in layers),
        "accuracy": float((exact.argmax(1) == labels).mean()),
        "accuracy_saturating": float((cut.argmax(1) == labels).mean()),
        "changed_predictions": float((exact.argmax(1) != cut.argmax(1)).mean()),
        "logit_error": float(np.abs(exact - plain).mean() / plain.std()),
        "logit_error_saturating": float(np.abs(cut - plain).mean() / plain.std()),
    }


def measure_graph(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batches: Sequence[Batch], plain: np.ndarray
) -> dict[str, float]:
    """Run the graph of a calibrated model on this CPU, as it is and with exact sums, one thread each.

    Args:
        model: The model, prepared and calibrated.
        tokenizer: Its tokenizer.
        batches: Its inputs.
        plain: Logits of the model in full precision (rows, labels).

    Returns:
        How far the logits are from full precision without and with exact sums (mean, by their deviation), the share of
        rows whose prediction differs between them, and the time that exact sums take, by that without.
    """
    with TemporaryDirectory() as folder:
        graph = export_onnx(model, tokenizer, Path(folder) / "made").folder / "onnx" / "model_quantized.onnx"
        plain_options = onnxruntime.SessionOptions()
        plain_options.intra_op_num_threads = plain_options.inter_op_num_threads = 1
        found: list[list[np.ndarray]] = [[], []]
        seconds: list[list[float]] = [[], []]
        sessions = [onnxruntime.InferenceSession(str(graph), each) for each in (plain_options, session_options(1))]
        names = [node.name for node in sessions[0].get_inputs()]
        for batch in batches:
            feed = graph_feed(names, {name: tensor.numpy() for name, tensor in batch.items()})
            for index, session in enumerate(sessions):
                start = time.perf_counter()
                found[index].append(session.run(["logits"], feed)[0])
                seconds[index].append(time.perf_counter() - start)
    saturating, exact = (np.concatenate(answers) for answers in found)
    return {
        "measured_logit_error": float(np.abs(exact - plain).mean() / plain.std()),
        "measured_logit_error_saturating": float(np.abs(saturating - plain).mean() / plain.std()),
        "measured_changed_predictions": float((exact.argmax(1) != saturating.argmax(1)).mean()),
        "measured_exact_time": float(np.median(np.divide(seconds[1], seconds[0]))),
    }


def main() -> None:
    """Measure with and without `reduce_range` and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a fine-tuned classifier and its tokenizer")
    parser.add_argument("table", type=Path, help="its development rows: .tsv, .csv, .jsonl or .parquet")
    parser.add_argument("--text", default="text", help="column of the texts")
    parser.add_argument("--label", default="label", help="column of the labels")
    parser.add_argument("--rows", type=int, default=300, help="rows that are measured")
    parser.add_argument("--calibration", type=int, default=128, help="other rows that ranges are taken from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = read_table(options.table).shuffle(seed=0).select(range(options.rows + options.calibration))
    tokenizer = AutoTokenizer.from_pretrained(options.model)

    def batches(first: int, end: int) -> list[Batch]:
        texts = [table[options.text][start : min(start + BATCH, end)] for start in range(first, end, BATCH)]
        return [dict(tokenizer(some, padding=True, truncation=True, return_tensors="pt")) for some in texts]

    measured, calibrating = batches(0, options.rows), batches(options.rows, len(table))
    plain = load_pruned(options.model).eval()
    labels = np.array([plain.config.label2id[label] for label in table[options.label][: options.rows]])
    logits = logits_of(plain, measured)
    found = {"rows": options.rows, "accuracy_fp32": float((logits.argmax(1) == labels).mean())}
    for reduce_range in (False, True):
        model = load_pruned(options.model).eval()
        prepare_qat(model, QuantizationConfig(reduce_range=reduce_range))
        calibrate(model, calibrating, lambda batch, model=model: model(**batch))  # type: ignore[misc]
        values = measure(model, measured, labels, logits)
        if integer_products_saturate():
            values |= measure_graph(model, tokenizer, measured, logits)
        found[f"reduce_range {reduce_range}"] = values
    print(f"{options.rows} rows; accuracy in fp32 {found['accuracy_fp32']:.4f}")
    rows = {name: values for name, values in found.items() if isinstance(values, dict)}
    for key in next(iter(rows.values())):
        print(f"{key:<32}" + "".join(f"{name}: {values[key]:<12.5f}" for name, values in rows.items()))
    write_json(options.output, found)


if __name__ == "__main__":
    main()
