"""Templates of model cards, in Markdown, filled without a variable that is not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
from huggingface_hub import ModelCard, ModelCardData


def fill_template(template: Path, data: ModelCardData, variables: Mapping[str, Any]) -> str:
    """Fill a card's template as the Hub's library does, but refuse the misspelt variables that it would leave blank.

    Args:
        template: Jinja template in Markdown, with `{{ card_data }}` as its front matter.
        data: The front matter.
        variables: Every other variable that the template may use.

    Returns:
        The card.

    Raises:
        ValueError: The template uses a variable that does not exist.
    """
    _check_variables(template, {*variables, "card_data"})
    return str(ModelCard.from_template(data, template_path=str(template), **variables))


def fill_part(template: Path, variables: Mapping[str, Any]) -> str:
    """Fill a template of a part of a card."""
    _check_variables(template, variables)
    text: str = jinja2.Template(template.read_text(encoding="utf-8")).render(**variables)  # Markdown needs no escapes
    return text


def _check_variables(template: Path, known: Collection[str]) -> None:
    # Only the template's variables are read here, nothing is rendered.
    syntax = jinja2.Environment().parse(template.read_text(encoding="utf-8"))  # noqa: S701
    unknown = jinja2.meta.find_undeclared_variables(syntax) - set(known)
    if unknown:
        raise ValueError(f"{template.name} uses unknown variables: {', '.join(sorted(unknown))}")
