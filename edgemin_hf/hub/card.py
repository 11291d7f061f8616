"""The model card on its way to the Hub: the repository that its snippets load, and what the Hub would refuse of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import build_hf_headers, get_session

from edgemin_hf.hub.identifiers import check_dataset, check_language, check_licence, hub_id_of
from edgemin_hf.runtime.artefact import CARD

_REPOSITORY = re.compile(r"<!-- repository: (\".+?\") -->")
"""What the template of cards says of the repository that the snippets load, where no reader sees it."""

_WAIT = 60
"""Seconds without an answer after which the Hub is given up."""


def naming(card: str, repo_id: str) -> str:
    """Return a card whose snippets load a repository; one that does not tell which they load stays as it is."""
    told = _REPOSITORY.search(card)
    return card if told is None else card.replace(told[1], json.dumps(repo_id, ensure_ascii=False))


def check_card(card: str) -> None:
    """Check a card's metadata as the Hub does, as far as that can be told without it.

    Raises:
        ValueError: If the Hub would refuse it, or it names a folder of this machine as base model; one line.
    """
    try:
        # Of no metadata at all it says nothing, and of some it checks the results too.
        told = ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{CARD}: metadata that can't be read ({_line(error)}); expected: YAML between ---") from None
    try:
        for name in (*_CHECKS, *_TEXTS):
            for value in _strings(name, told):
                if name in _CHECKS:
                    _CHECKS[name](value)
    except ValueError as error:
        raise ValueError(f"{CARD}: {error}") from None


def _check_base_model(name: str) -> None:
    if hub_id_of(name) != name:
        folder = ", which is a folder here" if os.path.isdir(name) else ""
        raise ValueError(f"base_model: {name}{folder}; allowed: ids of models on the Hub")


_CHECKS: Mapping[str, Callable[[str], None]] = {
    "license": check_licence,
    "language": check_language,
    "datasets": check_dataset,
    "base_model": _check_base_model,
}
"""What is checked of each text under a name."""
_TEXTS = ("tags", "library_name", "pipeline_tag")
"""What else holds texts alone."""


def _strings(name: str, told: Mapping[str, Any]) -> list[str]:
    """Return the texts under a name: one, or a list."""
    value = told.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    odd = [one for one in values if not isinstance(one, str)]
    if odd:  # YAML reads the language "no" as False
        raise ValueError(
            f'{name}: {json.dumps(odd[0])}; allowed: text, in quotes where YAML reads another thing ("no")'
        )
    return values


def check_card_online(api: HfApi, card: str) -> None:
    """Have the Hub check a card, before anything is made there.

    Raises:
        ValueError: If it refuses the card; one line.
    """
    asked = {"content": card, "repoType": "model"}
    answer = get_session().post(
        f"{api.endpoint}/api/validate-yaml", json=asked, headers=build_hf_headers(), timeout=_WAIT
    )
    if answer.status_code == 400:
        errors = answer.json().get("errors", [])
        told = "; ".join(_line(error.get("message", "")) for error in errors)
        raise ValueError(f"Invalid metadata in {CARD}. - {told}")


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
