"""The arguments of `edgemin push`; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def add_arguments(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("push", parents=[common], help="push an artefact to the Hub in one commit")
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder that `edgemin run` made")
    parser.add_argument("repo_id", metavar="REPO", help="repository, such as me/banking-edge")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--revision", metavar="NAME", help="branch to push to; made where it does not exist (main)")
    parser.add_argument(
        "--tag", action="append", default=[], metavar="NAME", dest="tags", help="tag of the commit; repeatable"
    )
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of changing the branch")
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")
    parser.add_argument("--force", action="store_true", help="push what misses a bound of its gate all the same")
    parser.add_argument("--dry-run", action="store_true", help="list the files to push, nothing more; needs no token")
    parser.set_defaults(command=command)
