"""`edgemin`: parses, calls, prints. Bad input ends with one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edgemin_hf import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments; None takes the process's own.

    Returns:
        The exit code: 0, 1 where the Hub refused or an export was not faithful, 2 for bad input, 130 for Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Tokenizers warn about forks of DataLoader workers, of which we start none.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    # Its warnings (a new head, unused weights) are of what a recipe does on purpose.
    transformers_logging.set_verbosity_error()
    from edgemin_hf.export.fidelity import FidelityError
    from edgemin_hf.hub.checkpoints import CheckpointError
    from edgemin_hf.hub.privacy import unsigned_log
    from edgemin_hf.hub.push import PushError
    from edgemin_hf.recipe.schema import RecipeError

    # A run's bad input has errors of its own: any other ValueError of so much code would be a fault, not the input's.
    bad_input = (RecipeError, CheckpointError) if options.command is _run else (ValueError,)
    try:
        with unsigned_log():
            options.command(options)
    except bad_input as error:
        return _fail(str(error), 2)
    except (FidelityError, PushError, OSError) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        hint = "; the same command goes on from the last checkpoint" if options.command is _run else ""
        return _fail(f"interrupted{hint}", 130)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"edgemin: {' '.join(message.split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgemin",
        description="Make a BERT-class encoder small and fast: distil, prune, quantise, export, measure, publish.",
    )
    parser.add_argument("--version", action="version", version=f"edgemin {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a recipe, from a teacher to a measured artefact")
    run.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe in YAML, such as recipes/quickstart.yaml")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting: seed=1, task.max_length=64, or a stage's as in distill.max_steps=100; repeatable",
    )
    run.add_argument("--dry-run", action="store_true", help="check the recipe and print the plan, nothing more")
    run.add_argument("--overwrite", action="store_true", help="make stages anew that were made with other settings")
    run.set_defaults(command=_run)

    benchmark = commands.add_parser("benchmark", help="measure an artefact's latency and size on this machine")
    benchmark.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder that `edgemin run` made")
    benchmark.add_argument("--teacher", type=Path, metavar="FOLDER", help="measure this checkpoint beside it")
    benchmark.add_argument("--texts", type=Path, metavar="FILE", help="texts, one a line, or tab-separated pairs")
    benchmark.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of a pass (%(default)s)")
    benchmark.add_argument("--rounds", type=int, default=20, help="rounds over the sentences (%(default)s)")
    benchmark.add_argument("--openvino", action="store_true", help="run the graphs in OpenVINO too (extra `openvino`)")
    benchmark.add_argument("--output", type=Path, metavar="FILE", help="write the rows as JSON too")
    benchmark.set_defaults(command=_benchmark)

    _add_sensitivity(commands)

    push = commands.add_parser("push", help="push an artefact to the Hub in one commit")
    push.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder that `edgemin run` made")
    push.add_argument("--repo-id", required=True, metavar="ID", help="repository, such as me/banking-edge")
    push.add_argument("--private", action="store_true", help="make the repository private")
    push.set_defaults(command=_push)
    return parser


def _add_sensitivity(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "sensitivity",
        help="measure and draw where a fine-tuned model can be cut or quantised",
        description="Mask ever more of each layer's heads and neurons, leave it out, or quantise one module at "
        "a time, and measure what it costs: pictures and a page show where the model can be cut or stored in fewer "
        "bits. Nothing is trained.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="fine-tuned sequence classifier: folder, or Hub id such as org/name")
    add(
        "--train",
        type=Path,
        required=True,
        metavar="FILE",
        help="table whose rows tell which units matter least, and the ranges of inputs",
    )
    add("--data", type=Path, required=True, metavar="FILE", help="table whose rows are measured, not those of --train")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder for numbers, pictures and the page")
    what = "pruning (heads, neurons, layers), quantization (linear layers, embeddings); one or two of them (pruning)"
    add("--measure", nargs="+", default=["pruning"], metavar="WHAT", help=what)
    add("--text-column", default="text", metavar="NAME", help="column of the texts (%(default)s)")
    add("--text-pair-column", metavar="NAME", help="column of the second texts, where rows are pairs")
    add("--label-column", default="label", metavar="NAME", help="column of the labels or scores (%(default)s)")
    several = "columns of 0 and 1, one a label, instead of one column that lists them"
    add("--label-columns", nargs="+", metavar="NAME", help=several)
    metrics = "accuracy, f1, matthews_correlation; for scores pearsonr, spearmanr; for label sets f1_micro, f1_macro"
    add("--metric", default="accuracy", metavar="NAME", help=f"{metrics} (%(default)s)")
    add("--max-length", type=int, default=128, metavar="N", help="tokens after which a text is cut (%(default)s)")
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
    add("--threads", type=int, default=os.cpu_count(), metavar="N", help="threads of a pass (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the rows drawn and of random saliency (%(default)s)")
    parser.set_defaults(command=_sensitivity)


def _run(options: argparse.Namespace) -> None:
    from edgemin_hf.recipe.plan import describe_plan, make_plan
    from edgemin_hf.recipe.runner import run_recipe
    from edgemin_hf.recipe.yaml_file import load_recipe

    recipe, settings = load_recipe(options.recipe, options.overrides)
    root = options.recipe.resolve().parent
    if options.dry_run:
        print(describe_plan(make_plan(recipe, root, options.overwrite)))
    else:
        run_recipe(recipe, settings, root, options.overwrite)


def _benchmark(options: argparse.Namespace) -> None:
    from edgemin_hf.benchmark.artefact import benchmark_artefact
    from edgemin_hf.report.page import summary_table

    benchmark = benchmark_artefact(
        options.artefact,
        options.teacher,
        options.texts,
        threads=options.threads,
        rounds=options.rounds,
        openvino=options.openvino,
    )
    print(summary_table(benchmark))
    if options.output:
        from edgemin_hf.utils.atomic_files import write_atomic

        write_atomic(options.output, json.dumps(benchmark.to_dict(), indent=2) + "\n")


def _sensitivity(options: argparse.Namespace) -> None:
    from edgemin_hf.sensitivity.page import summary
    from edgemin_hf.sensitivity.run import PAGE, SensitivitySettings, run_sensitivity

    settings = {name: value for name, value in vars(options).items() if name != "command"}
    print(summary(run_sensitivity(SensitivitySettings(**settings))))
    print(f"written: {options.output / PAGE} and its numbers and pictures beside it")


def _push(options: argparse.Namespace) -> None:
    from edgemin_hf.hub.push import push_artefact

    print(push_artefact(options.artefact, options.repo_id, private=options.private))
    if options.repo_id not in (options.artefact / "README.md").read_text(encoding="utf-8"):
        hint = f"`edgemin run RECIPE --set report.repo_id={options.repo_id} --overwrite` writes the card anew"
        print(f"edgemin: note: the snippets of the card do not load {options.repo_id}; {hint}", file=sys.stderr)
