"""The arguments of `edgemin benchmark`; imports nothing heavy."""

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
    parser = commands.add_parser(
        "benchmark", parents=[common], help="measure an artefact's latency and size on this machine"
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder that `edgemin run` made")
    parser.add_argument("--teacher", type=Path, metavar="FOLDER", help="measure this checkpoint beside it")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="texts, one a line, or tab-separated pairs")
    parser.add_argument("--threads", type=int, default=1, help="threads of a pass (%(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds over the sentences (%(default)s)")
    parser.add_argument("--openvino", action="store_true", help="run the graphs in OpenVINO too (extra `openvino`)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the rows as JSON too")
    parser.set_defaults(command=command)
