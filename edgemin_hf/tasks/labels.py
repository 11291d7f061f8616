"""Labels of a table: their names, their order, and which of a model's labels they are."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from datasets import ClassLabel, Dataset
from transformers import PretrainedConfig

from edgemin_hf.data.tables import values_of

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_NUMBERED = re.compile(r"(\D+)([0-9]+)")
_INTEGER_WITH_ZEROS = re.compile(r"([+-]?[0-9]+)\.0+")
_UNNAMED = re.compile(r"LABEL_[0-9]+")
_TRUTHS = ("false", "true")
_SHOWN = 6


def classes_of(table: Dataset, column: str) -> ClassLabel | None:
    """Return the classes whose numbers a column holds, or whose numbers stand in its lists; None where names do."""
    feature = table.features.get(column)
    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, ClassLabel) else None


def labels_of(config: PretrainedConfig) -> dict[str, int]:
    """Return the number of each of a model's labels, by name.

    Raises:
        ValueError: If a name stands for several of them, or `id2label` and `label2id` tell them otherwise: nobody knows
            then which output is which label.

    Example:
        >>> from transformers import BertConfig
        >>> from edgemin_hf.tasks.labels import labels_of
        >>> labels_of(BertConfig(id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1}))
        {'no': 0, 'yes': 1}
    """
    labels: dict[str, int] = {}
    for number, name in config.id2label.items():
        if str(name) in labels:
            raise ValueError(f"id2label of its configuration: {name} stands there twice; expected: once")
        labels[str(name)] = int(number)
    told = {str(name): int(number) for name, number in (config.label2id or labels).items()}
    for name, number in [*labels.items(), *told.items()]:
        if labels.get(name) != told.get(name):
            given = f"{name} is {number} in id2label" if name in labels else f"{name} is not in id2label"
            raise ValueError(f"label2id of its configuration: {told.get(name)} for {name}; expected: as {given}")
    return labels


def names_in_column(table: Dataset, column: str) -> list[str]:
    """Return the names of the labels that a column has, in the order of their numbers.

    Those of a `ClassLabel` are its own, in its order. Others are ordered as `ordered` does. White space around a name
    is no part of it, and integers are written without decimals ("1" for 1.0).

    Example:
        >>> from datasets import Dataset
        >>> from edgemin_hf.tasks.labels import names_in_column
        >>> names_in_column(Dataset.from_dict({"label": [10.0, 2.0, 0.0]}), "label")
        ['0', '2', '10']
    """
    classes = classes_of(table, column)
    if classes is not None:
        return list(classes.names)
    names = {str(value).strip() for value in set(values_of(table, column))}
    integers = {name: _as_integer(name) for name in names}
    if all(integers.values()):
        names = {integer or name for name, integer in integers.items()}
    return ordered(names)


def ordered(names: Iterable[str]) -> list[str]:
    """Order names of labels: numbers, and names that differ in a number at their end, by number; else as text.

    Example:
        >>> from edgemin_hf.tasks.labels import ordered
        >>> ordered(["10", "9", "1"]), ordered(["LABEL_10", "LABEL_9"]), ordered(["b", "10", "9"])
        (['1', '9', '10'], ['LABEL_9', 'LABEL_10'], ['10', '9', 'b'])
    """
    names = sorted(names)
    if all(map(_NUMBER.fullmatch, names)):
        return sorted(names, key=float)
    numbered = [match for match in map(_NUMBERED.fullmatch, names) if match]
    if len(numbered) == len(names) and len({match[1] for match in numbered}) == 1:
        return [match[0] for match in sorted(numbered, key=lambda match: int(match[2]))]
    return names


def numbers_in_column(table: Dataset, column: str, labels: Mapping[str, int]) -> list[int]:
    """Return the number of each row's label.

    Raises:
        ValueError: If a label is not among `labels`.
    """
    classes = classes_of(table, column)
    numbers: dict[object, int] = {}
    for value in sorted(set(values_of(table, column)), key=str):
        name = classes.int2str(value) if classes and isinstance(value, int) else str(value).strip()
        number = number_of(name, labels, classes)
        if number is None:
            raise ValueError(f"label_column: {name!r} in the data; allowed: {shown(labels)}{_hint(name, labels)}")
        numbers[value] = number
    return [numbers[value] for value in values_of(table, column)]


def number_of(name: str, labels: Mapping[str, int], classes: ClassLabel | None = None) -> int | None:
    """Return the number that a model knows a label by: of the same name, or of the same value.

    A model whose labels have no names (LABEL_0, LABEL_1, ...) knows those that are numbers, and classes, by number.

    Args:
        name: The label's name.
        labels: The model's labels.
        classes: The classes that the name is one of, where its table has such.

    Returns:
        The number; None where the model does not know it.

    Example:
        >>> from edgemin_hf.tasks.labels import number_of
        >>> number_of("1.0", {"0": 0, "1": 1}), number_of("1", {"LABEL_0": 0, "LABEL_1": 1})
        (1, 1)
    """
    if name in labels:
        return labels[name]
    value = _value(name)
    same = [number for label, number in labels.items() if value is not None and _value(label) == value]
    if same:
        return same[0]
    if all(map(_UNNAMED.fullmatch, labels)):
        return labels.get(f"LABEL_{_as_integer(name) if classes is None else classes.str2int(name)}")
    return None


def numbers_in(theirs: Mapping[str, int], labels: Mapping[str, int]) -> list[int]:
    """Return the numbers that another model knows labels by, in the order of the labels' own.

    Args:
        theirs: The other model's labels.
        labels: The labels.

    Raises:
        ValueError: If it does not know one of them, or knows others too.

    Example:
        >>> from edgemin_hf.tasks.labels import numbers_in
        >>> numbers_in({"yes": 0, "no": 1}, {"no": 0, "yes": 1})
        [1, 0]
    """
    numbers = [number_of(name, theirs) for name in sorted(labels, key=lambda name: labels[name])]
    found = [number for number in numbers if number is not None]
    if sorted(found) != sorted(theirs.values()) or len(found) != len(labels):
        raise ValueError(f"labels {shown(theirs)}; allowed: the same labels, in any order: {shown(labels)}")
    return found


def _as_integer(name: str) -> str | None:
    """Return an integer as it is written without decimals; None where a name is none."""
    if _NUMBER.fullmatch(name) and "." not in name:
        return name
    match = _INTEGER_WITH_ZEROS.fullmatch(name)
    return match[1] if match else None


def _value(name: str) -> object:
    """Return what a name says, where it is a number or a truth."""
    if _NUMBER.fullmatch(name):
        return float(name)
    return name.lower() if name.lower() in _TRUTHS else None


def similar(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ in case, spaces, or how a character or a number is written alone.

    Example:
        >>> from edgemin_hf.tasks.labels import similar
        >>> similar(["card", "Card", "cards", "lost card", "lost_card", "01", "1"])
        [['Card', 'card'], ['lost card', 'lost_card'], ['01', '1']]
    """
    groups: dict[object, list[str]] = defaultdict(list)
    for name in names:
        groups[_key(name)].append(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _key(name: str) -> object:
    if _NUMBER.fullmatch(name):
        return float(name)
    return re.sub(r"[\s_\u200b\ufeff-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def _hint(name: str, labels: Mapping[str, int]) -> str:
    alike = [label for label in labels if _key(label) == _key(name)]
    return f" (such as {alike[0]!r}?)" if alike else ""


def shown(names: Sequence[str] | Mapping[str, int]) -> str:
    """Return names for an error or a plan, the first of them and the last."""
    listed = list(names)
    return ", ".join(listed if len(listed) <= _SHOWN + 1 else [*listed[:_SHOWN], "...", listed[-1]])


def describe_order(names: Sequence[str]) -> str:
    """Return which number each label has, for a plan."""
    return f"{len(names)} labels, by number: {shown([f'{number} = {name}' for number, name in enumerate(names)])}"
