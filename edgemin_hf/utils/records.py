"""Typed records that stand in JSON files: frozen dataclasses, checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Self

from pydantic import TypeAdapter, ValidationError

Json = Mapping[str, object]
"""What a JSON object holds."""


class Record:
    """Base of frozen dataclasses that are written as JSON objects and read from them.

    A field that holds its default is not written, so that what does not apply does not stand in the file.
    """

    def to_dict(self) -> dict[str, object]:
        """Return what `json.dumps` takes, in the order of the fields."""
        return _plain_fields(self)

    @classmethod
    def from_dict(cls, content: Json) -> Self:
        """Make the record again; keys that it does not have are passed over.

        Raises:
            ValueError: If a field is missing or has a value of another type; one line that names it.
        """
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"])) or cls.__name__
            if first["type"] == "value_error":  # what a record's own check says
                raise ValueError(first["msg"].removeprefix("Value error, ")) from None
            raise ValueError(f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _plain_fields(value) if is_dataclass(value) else value


def _plain_fields(record: object) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if default is MISSING or value != default:
            found[field.name] = _plain(value)
    return found
