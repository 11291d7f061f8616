"""The arguments of `edgemin predict`, `edgemin verify` and `edgemin pull`; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Command = Callable[[argparse.Namespace], None]


def add_arguments(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    predict_command: Command,
    verify_command: Command,
    pull_command: Command,
) -> None:
    """Add the three commands to the command line."""
    loaded = argparse.ArgumentParser(add_help=False, parents=[common])
    loaded.add_argument("artefact", metavar="ARTEFACT", help="folder that `edgemin run` made, or its id on the Hub")
    loaded.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a pass (%(default)s)")
    loaded.add_argument("--revision", metavar="NAME", help="branch, tag or commit on the Hub")
    predict = commands.add_parser(
        "predict", parents=[loaded], help="answer texts by an artefact, as JSON lines; needs no PyTorch"
    )
    texts = (
        "texts: .txt with one a line (pairs with a tab between), .jsonl, .csv or .tsv with the task's columns, or - "
        "for lines of the standard input"
    )
    predict.add_argument("file", nargs="?", metavar="FILE", help=texts)
    predict.add_argument("--text", action="append", metavar="TEXT", help="a text instead of a file; repeatable")
    predict.add_argument("--columns", nargs="+", metavar="NAME", help="columns of the texts in a table (the task's)")
    predict.add_argument("--graph", metavar="FILE", help="which of its graphs, such as onnx/model.onnx (the fastest)")
    predict.set_defaults(command=predict_command)
    verify = commands.add_parser(
        "verify",
        parents=[loaded],
        help="check that an artefact computes on this machine what it should; needs no PyTorch",
    )
    verify.add_argument("--graph", metavar="FILE", help="which of its graphs (all that ONNX Runtime is new enough for)")
    verify.set_defaults(command=verify_command)
    pull = commands.add_parser(
        "pull", parents=[common], help="download an artefact from the Hub and check its hashes; needs no PyTorch"
    )
    pull.add_argument("repo_id", metavar="REPO", help="its id on the Hub, such as me/banking-edge")
    pull.add_argument("folder", nargs="?", metavar="FOLDER", help="the folder to make (the repository's name)")
    pull.add_argument("--revision", metavar="NAME", help="branch, tag or commit on the Hub")
    pull.set_defaults(command=pull_command)
