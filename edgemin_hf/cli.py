"""`edgemin`: parses, calls, prints. Bad input ends with one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from edgemin_hf import __version__
from edgemin_hf.benchmark import arguments as benchmark
from edgemin_hf.hub import arguments as hub
from edgemin_hf.recipe import arguments as recipe_arguments
from edgemin_hf.recipe.errors import RecipeError, StageError
from edgemin_hf.runtime import arguments as runtime
from edgemin_hf.sensitivity import arguments as sensitivity
from edgemin_hf.utils.atomic_files import check_writable_folder, write_atomic
from edgemin_hf.utils.cpus import spin_only_alone, warn_if_busy
from edgemin_hf.utils.extras import MissingFactoryError, check_factory
from edgemin_hf.utils.terminal import JsonLines, log_to_terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments; None takes the process's own.

    Returns:
        The exit code: 0, 1 where something failed, 2 for bad input, 130 for Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    json_lines = getattr(options, "log_format", "text") == "json"
    log_to_terminal(("edgemin_hf.recipe", "edgemin_hf.sensitivity"), json_lines)
    # Tokenizers warn about forks of DataLoader workers, of which we start none.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        if options.command not in _WITHOUT_FACTORY:
            check_factory(f"edgemin {options.name}")
        _call(options)
    except KeyboardInterrupt:
        hint = "; the same command goes on from the last checkpoint" if options.command is _run else ""
        return _fail(f"interrupted{hint}", 130, json_lines)
    except Exception as error:
        if options.traceback:
            traceback.print_exc()
        return _fail(*_told(error, options), json_lines)
    return 0


def _call(options: argparse.Namespace) -> None:
    """Run a command, and have nothing of it log what is secret."""
    if options.command is _run:
        from edgemin_hf.recipe.keys import read_settings

        read_settings(options.recipe, options.overrides)  # a typo is told before PyTorch is imported
    from edgemin_hf.hub.privacy import unsigned_log

    with unsigned_log():
        options.command(options)


def _told(error: Exception, options: argparse.Namespace) -> tuple[str, int]:
    """Return the line and the exit code of an error."""
    if isinstance(error, (RecipeError, MissingFactoryError)):
        return str(error), 2
    if isinstance(error, (StageError, OSError)):
        return str(error), 1
    if options.command in _WITHOUT_FACTORY:
        from edgemin_hf.runtime.verification import VerificationError

        if isinstance(error, (ValueError, VerificationError)):
            return str(error), 2 if isinstance(error, ValueError) else 1
        return _fault(error)
    from edgemin_hf.export.fidelity import FidelityError
    from edgemin_hf.hub.checkpoints import CheckpointError
    from edgemin_hf.hub.push import PushError

    # A run's bad input has errors of its own: any other ValueError of so much code would be a fault, not the input's.
    if isinstance(error, CheckpointError if options.command is _run else ValueError):
        return str(error), 2
    if isinstance(error, (FidelityError, PushError)):
        return str(error), 1
    return _fault(error)


def _fault(error: Exception) -> tuple[str, int]:
    return f"{type(error).__name__}: {error} (a fault of edgemin; --traceback shows where)", 1


def _fail(message: str, code: int, json_lines: bool) -> int:
    line = " ".join(message.split())
    if json_lines:
        event = {"event": "failed", "message": line, "code": code}
        line = JsonLines().format(logging.makeLogRecord({"levelname": "ERROR", "event": event}))
    print(line if json_lines else f"edgemin: {line}", file=sys.stderr)
    return code


def _quieten_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    # Its warnings (a new head, unused weights) are of what a recipe does on purpose.
    transformers_logging.set_verbosity_error()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # of processes that are started


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgemin",
        description="Make a BERT-class encoder small and fast: distil, prune, quantise, export, measure, publish.",
    )
    parser.add_argument("--version", action="version", version=f"edgemin {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="name")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show the traceback of an error, for a bug report")

    logged = argparse.ArgumentParser(add_help=False, parents=[common])
    formats = "how to tell what happens: for people, or as JSON lines for machines (%(default)s)"
    logged.add_argument("--log-format", choices=("text", "json"), default="text", help=formats)

    run = commands.add_parser("run", parents=[logged], help="run a recipe, from a teacher to a measured artefact")
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
    anyway = "go on with what was made with other threads, processes or precision, which round otherwise"
    run.add_argument("--resume-anyway", action="store_true", help=anyway)
    run.set_defaults(command=_run)

    recipe_arguments.add_arguments(commands, common, _recipe)

    benchmark.add_arguments(commands, common, _benchmark)
    sensitivity.add_arguments(commands, common, _sensitivity)

    lazy = (
        "measure the lazy ways to the same answers (bag of words, static embeddings, frozen encoder) on a recipe's task"
    )
    rivals = commands.add_parser("rivals", parents=[logged], help=lazy)
    rivals.add_argument(
        "recipe",
        type=Path,
        metavar="RECIPE",
        help="a recipe in YAML; only its teacher, task and student checkpoint count",
    )
    rivals.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="as of `edgemin run`"
    )
    rivals.set_defaults(command=_rivals)

    runtime.add_arguments(commands, common, _predict, _verify, _pull)

    demo = commands.add_parser(
        "demo", parents=[common], help="try an artefact on a page in the browser, by transformers.js; needs no PyTorch"
    )
    demo.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder that `edgemin run` made")
    demo.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port of 127.0.0.1, or 0 for any (%(default)s)"
    )
    demo.set_defaults(command=_demo)

    hub.add_arguments(commands, common, _push)
    return parser


def _predict(options: argparse.Namespace) -> None:
    from edgemin_hf.runtime.commands import predict

    predict(options)


def _verify(options: argparse.Namespace) -> None:
    from edgemin_hf.runtime.commands import verify

    verify(options)


def _pull(options: argparse.Namespace) -> None:
    from edgemin_hf.runtime.pull import pull

    print(pull(options.repo_id, options.folder, options.revision))


def _demo(options: argparse.Namespace) -> None:
    from edgemin_hf.demo.server import serve

    serve(options.artefact, options.port, tell=partial(print, flush=True))


_WITHOUT_FACTORY = (_predict, _verify, _pull, _demo)
"""Commands that the base installation can run."""


def _run(options: argparse.Namespace) -> None:
    spin_only_alone()
    _quieten_transformers()
    from edgemin_hf.recipe.plan import make_plan
    from edgemin_hf.recipe.runner import run_recipe, tell_plan
    from edgemin_hf.recipe.yaml_file import load_recipe

    recipe, settings = load_recipe(options.recipe, options.overrides)
    root = options.recipe.resolve().parent
    if options.dry_run:
        tell_plan(make_plan(recipe, root, options.overwrite, options.resume_anyway))
        warn_if_busy("the minutes are what it takes beside them")
    else:
        run_recipe(recipe, settings, root, options.overwrite, options.resume_anyway)


def _recipe(options: argparse.Namespace) -> None:
    if options.reference == (options.recipe_command is not None):
        options.parser.error("expected: new, or --reference")
    if options.reference:
        from edgemin_hf.recipe.reference import reference

        print(reference(), end="")
        return
    from edgemin_hf.recipe.starter import Starter, write_starter

    write_starter(Starter(**{field.name: getattr(options, field.name) for field in fields(Starter)}), options.output)
    print(f"written: {options.output}; next: edgemin run {options.output} --dry-run")


def _rivals(options: argparse.Namespace) -> None:
    spin_only_alone()
    _quieten_transformers()
    from edgemin_hf.recipe.runner import run_recipe
    from edgemin_hf.recipe.yaml_file import load_rivals

    recipe, settings = load_rivals(options.recipe, options.overrides)
    run_recipe(recipe, settings, options.recipe.resolve().parent, overwrite=True, resume_anyway=True)


def _benchmark(options: argparse.Namespace) -> None:
    if options.output:
        check_writable_folder(options.output.absolute().parent)
    _quieten_transformers()
    from edgemin_hf.benchmark.artefact import benchmark_artefact
    from edgemin_hf.neural_compressor.optimum_pipelines import optimum_call
    from edgemin_hf.report.page import summary_table

    benchmark = benchmark_artefact(
        options.artefact,
        options.teacher,
        options.texts,
        threads=options.threads,
        rounds=options.rounds,
        openvino=options.openvino,
        pipeline=optimum_call,
    )
    print(summary_table(benchmark))
    if options.output:
        write_atomic(options.output, json.dumps(benchmark.to_dict(), indent=2) + "\n")


def _sensitivity(options: argparse.Namespace) -> None:
    spin_only_alone()
    _quieten_transformers()
    from edgemin_hf.sensitivity.page import summary
    from edgemin_hf.sensitivity.run import run_sensitivity
    from edgemin_hf.sensitivity.settings import PAGE, SensitivitySettings

    given = {name: value for name, value in vars(options).items() if name not in ("command", "traceback")}
    print(summary(run_sensitivity(SensitivitySettings.of_run(given))))
    print(f"written: {options.output / PAGE} and its numbers and pictures beside it")


def _push(options: argparse.Namespace) -> None:
    from edgemin_hf.hub.files import published_files
    from edgemin_hf.hub.push import MESSAGE, check_push, push_artefact

    published = published_files(options.artefact)
    if published.left_out_line is not None:
        print(f"edgemin: {published.left_out_line}", file=sys.stderr)
    asked = {name: getattr(options, name) for name in ("revision", "tags", "create_pr", "force")}
    if options.dry_run:
        check_push(published, options.repo_id, **asked)
        print(published.listing())
        return
    message = MESSAGE if options.message is None else options.message
    print(push_artefact(options.artefact, options.repo_id, private=options.private, message=message, **asked))
