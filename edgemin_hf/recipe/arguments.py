"""The arguments of `edgemin recipe`; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

TASKS = (
    "text_classification", "regression", "multi_label", "token_classification", "question_answering", "reranking",
    "sentence_embedding", "masked_lm",
)  # fmt: skip
"""Types of the tasks that there are, `edgemin_hf.tasks.TASKS`."""


def add_arguments(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("recipe", parents=[common], help="write a first recipe, or explain every setting")
    told = "print every stage and setting as Markdown: type, default, meaning"
    parser.add_argument("--reference", action="store_true", help=told)
    parser.set_defaults(command=command, parser=parser)
    new = parser.add_subparsers(metavar="COMMAND", dest="recipe_command").add_parser(
        "new",
        parents=[common],
        help="write a commented first recipe",
        description="Write a commented first recipe, which `edgemin run RECIPE --dry-run` checks. Columns that are "
        "not named have the task's default names.",
    )
    add = new.add_argument
    add("--task", required=True, choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    add("--teacher", required=True, metavar="MODEL", help="the large model: folder, or Hub id such as org/name")
    add("--train-file", required=True, metavar="FILE", help="table, or texts, to train on")
    add("--test-file", required=True, metavar="FILE", help="table, or texts, to test on")
    add("--validation-file", metavar="FILE", help="table for every choice (a tenth of the training table)")
    add("--text-column", metavar="NAME", help="column of the texts, of token_classification of the words")
    add("--text-pair-column", metavar="NAME", help="column of the second texts, where rows are pairs")
    add("--label-column", metavar="NAME", help="column of the labels, scores or tags")
    add("--layers", type=int, metavar="N", help="layers of the student (as many as the teacher has)")
    add("--output", type=Path, default=Path("recipe.yaml"), metavar="FILE", help="where to write it (%(default)s)")
