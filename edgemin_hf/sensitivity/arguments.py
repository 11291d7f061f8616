"""The arguments of `edgemin sensitivity`; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from edgemin_hf.utils.cpus import usable_cpus


def add_arguments(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "sensitivity",
        parents=[common],
        help="measure and draw where a fine-tuned model can be cut or quantised",
        description="Mask ever more of each layer's heads and neurons, leave it out, or quantise one module at "
        "a time, and measure what it costs: pictures and a page show where the model can be cut or stored in fewer "
        "bits. Nothing is trained.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="fine-tuned model: folder, or Hub id such as org/name")
    add(
        "--train",
        type=Path,
        metavar="FILE",
        help="table whose rows tell which units matter least, and the ranges of inputs (the rows of MODEL's run)",
    )
    measured = "table whose rows are measured, not those of --train (the validation rows of MODEL's run)"
    add("--data", type=Path, metavar="FILE", help=measured)
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder for numbers, pictures and the page")
    what = "pruning (heads, neurons, layers), quantization (linear layers, embeddings); one or two of them (pruning)"
    add("--measure", nargs="+", default=["pruning"], metavar="WHAT", help=what)
    add("--text-column", metavar="NAME", help="column of the texts (that of MODEL's run, or text)")
    add("--text-pair-column", metavar="NAME", help="column of the second texts, where rows are pairs")
    add("--label-column", metavar="NAME", help="column of the labels or scores (that of MODEL's run, or label)")
    several = "columns of 0 and 1, one a label, instead of one column that lists them"
    add("--label-columns", nargs="+", metavar="NAME", help=several)
    metrics = "accuracy, f1, f1_macro, ...; for scores pearsonr, spearmanr, ...; for label sets f1_micro, f1_macro, "
    metrics += "...; for tags seqeval; for answers squad, squad_v2; for rankings ndcg_at_10, mrr_at_10"
    add("--metric", metavar="NAME", help=f"{metrics} (that of MODEL's run, or accuracy)")
    add("--max-length", type=int, metavar="N", help="tokens after which a text is cut (as in MODEL's run, or 128)")
    add("--examples", type=int, default=1000, metavar="N", help="rows that are measured; 0: all (%(default)s)")
    add(
        "--saliency",
        default="taylor",
        metavar="NAME",
        help="taylor, taylor_weights, fisher or random (%(default)s)",
    )
    add("--saliency-examples", type=int, default=1024, metavar="N", help="rows for saliency and ranges (%(default)s)")
    shares = "shares of a layer's units, above 0 to 1 (0.25 0.5 0.75 1)"
    add("--sparsities", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0], metavar="SHARE", help=shares)
    add("--batch-size", type=int, default=32, metavar="N", help="rows of a pass (%(default)s)")
    add("--threads", type=int, default=usable_cpus(), metavar="N", help="threads of a pass (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the rows drawn and of random saliency (%(default)s)")
    parser.set_defaults(command=command)
