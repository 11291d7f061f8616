"""Settings as plain dictionaries, which JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Self, cast, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Settings:
    """Base of the dataclasses that hold the settings of a method.

    Example:
        >>> from edgemin_hf import MiniLMv2Config
        >>> MiniLMv2Config.from_dict({"relation_heads": 12}).to_dict()["relation_heads"]
        12
    """

    def to_dict(self) -> dict[str, object]:
        """Return all settings by name, tuples as lists."""
        return settings_of(self, type(self))

    @classmethod
    def from_dict(cls, settings: Mapping[str, object]) -> Self:
        """Make settings from a dictionary; what it lacks takes its default.

        Raises:
            ValueError: If it holds a name that is none of these settings, or a value that they do not allow.
        """
        kind = cast("type[DataclassInstance]", cls)
        allowed = [field.name for field in fields(kind) if field.init]
        for name, value in settings.items():
            if name not in allowed:
                raise ValueError(f"{name}: {value}; allowed: {', '.join(allowed)}")
        hints = get_type_hints(cls)
        return cls(**{name: _as_hinted(value, hints[name]) for name, value in settings.items()})


def settings_of(config: object, kind: type) -> dict[str, object]:
    """Return the settings that a class has, by name, of an instance that may derive from it and have more."""
    names = [field.name for field in fields(cast("type[DataclassInstance]", kind))]
    return {name: _plain(getattr(config, name)) for name in names}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _as_hinted(value: object, hint: object) -> object:
    """Return a list as a tuple where that is what the type hint says."""
    wants_tuple = any(get_origin(option) is tuple for option in (hint, *get_args(hint)))
    return tuple(value) if isinstance(value, list) and wants_tuple else value
