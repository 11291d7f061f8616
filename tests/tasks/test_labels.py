"""Labels keep the order of their numbers, and are found again by name and value."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig

from edgemin_hf.data import read_table
from edgemin_hf.tasks import MultiLabel, TextClassification
from edgemin_hf.tasks.labels import labels_of, number_of, ordered, similar

CLASSES = ClassLabel(names=["world", "sports", "business"])


def written(folder, labels, name="rows.csv", feature=None):
    rows = {"text": [f"text {row}" for row in range(len(labels))], "label": labels}
    features = None if feature is None else Features({"text": Value("string"), "label": feature})
    table = Dataset.from_dict(rows, features)
    path = folder / name
    {".csv": table.to_csv, ".jsonl": table.to_json, ".parquet": table.to_parquet}[path.suffix](path)
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (list(range(12)), [str(number) for number in range(12)]),
        ([2, -1, 10, 0], ["-1", "0", "2", "10"]),
        ([2.0, 10.0, 0.0], ["0", "2", "10"]),
        ([2.5, 10.0, 0.0], ["0.0", "2.5", "10.0"]),
        ([True, False], ["False", "True"]),
        (["b", "a", "c"], ["a", "b", "c"]),
        ([f"LABEL_{number}" for number in range(11)], [f"LABEL_{number}" for number in range(11)]),
        ([" a", "a ", "b"], ["a", "b"]),
    ],
)
def test_the_order_of_labels(tmp_path, name, labels, order):
    written(tmp_path, labels, name)
    task = TextClassification(name, name)
    assert task.labels(tmp_path) == order
    numbers = {label: number for number, label in enumerate(order)}
    encoded = task.encoded(read_table(tmp_path / name), numbers)
    if isinstance(labels[0], str):
        assert encoded == [order.index(label.strip()) for label in labels]
    else:
        assert encoded == [sorted(set(labels)).index(label) for label in labels]


def test_orders_that_only_look_like_numbers():
    assert ordered(["10", "9", "other"]) == ["10", "9", "other"]
    assert ordered(["a-2", "a-10"]) == ["a-2", "a-10"]
    assert ordered(["v1.10", "v1.9"]) == ["v1.10", "v1.9"]
    assert ordered(["01", "10", "02"]) == ["01", "02", "10"]


def test_class_labels_keep_names_and_order(tmp_path):
    written(tmp_path, [2, 0, 0], "rows.parquet", CLASSES)
    written(tmp_path, ["business", "world"], "test.csv")
    task = TextClassification("rows.parquet", "test.csv")
    task.check_table(tmp_path / "rows.parquet")
    assert task.labels(tmp_path) == CLASSES.names  # also the one that no row has
    numbers = {name: number for number, name in enumerate(CLASSES.names)}
    assert task.encoded(read_table(tmp_path / "rows.parquet"), numbers) == [2, 0, 0]
    assert task.encoded(read_table(tmp_path / "test.csv"), numbers) == [2, 0]
    # Of a model that has no names for its labels, they are the numbers; of one with names, the names.
    assert task.encoded(read_table(tmp_path / "rows.parquet"), {f"LABEL_{n}": n for n in range(3)}) == [2, 0, 0]
    others = {"business": 0, "sports": 1, "world": 2}
    assert task.encoded(read_table(tmp_path / "rows.parquet"), others) == [0, 2, 2]


def test_lists_of_class_labels_keep_names_and_order(tmp_path):
    written(tmp_path, [[2], [], [0, 2]], "rows.parquet", List(CLASSES))
    task = MultiLabel("rows.parquet", "rows.parquet")
    task.check_table(tmp_path / "rows.parquet")
    assert task.labels(tmp_path) == CLASSES.names
    numbers = {name: number for number, name in enumerate(CLASSES.names)}
    assert task.encoded(read_table(tmp_path / "rows.parquet"), numbers) == [[0, 0, 1], [0, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("name", "labels", "number"),
    [
        ("1", {"LABEL_0": 0, "LABEL_1": 1}, 1),
        ("1.0", {"LABEL_0": 0, "LABEL_1": 1}, 1),
        ("2", {"LABEL_0": 0, "LABEL_1": 1}, None),
        ("yes", {"LABEL_0": 0, "LABEL_1": 1}, None),
        ("1", {"LABEL_0": 0, "yes": 1}, None),
        ("1", {"1.0": 3, "2.0": 4}, 3),
        ("01", {"1": 3, "01": 4}, 4),
        ("True", {"false": 0, "true": 1}, 1),
        ("True", {"0": 0, "1": 1}, None),
        ("Card", {"card": 0}, None),
    ],
)
def test_a_model_knows_a_label_by_name_or_value(name, labels, number):
    assert number_of(name, labels) == number


@pytest.mark.parametrize(
    ("by_name", "by_number", "message"),
    [
        ({"no": 1, "yes": 0}, {0: "no", 1: "yes"}, "label2id of its configuration: 1 for no; expected: as no is 0"),
        ({"no": 0, "maybe": 1}, {0: "no", 1: "yes"}, "label2id of its configuration: None for yes; expected: "),
        ({"no": 0, "yes": 1}, {0: "no", 1: "no"}, "id2label of its configuration: no stands there twice"),
    ],
)
def test_labels_that_a_model_tells_in_two_ways_are_refused(by_name, by_number, message):
    config = BertConfig(id2label=by_number, label2id=by_name)
    with pytest.raises(ValueError, match=message):
        labels_of(config)


def test_labels_that_a_model_tells_by_number_alone_are_enough(tmp_path):
    config = BertConfig(id2label={0: "no", 1: "yes"})
    config.label2id = None  # as it is where config.json has none
    (tmp_path / "rows.csv").write_text("text,label\na,yes\nb,no\n")
    TextClassification("rows.csv", "rows.csv").check_table(tmp_path / "rows.csv", config)
    assert labels_of(config) == {"no": 0, "yes": 1}


def test_an_unknown_label_is_told_with_one_that_looks_alike(tmp_path):
    written(tmp_path, ["Card", "transfer"])
    table = read_table(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match=r"label_column: 'Card' in the data; allowed: card, transfer .*'card'"):
        TextClassification("rows.csv", "rows.csv").encoded(table, {"card": 0, "transfer": 1})


def test_labels_that_look_alike():
    assert similar(["a", "b"]) == []
    names = ["a", "A", "a b", "a_b", "A-B", "1", "01", "1.0", "-1", "café", "cafe\u0301", "b\u200b", "b"]
    assert similar(names) == [
        ["A", "a"],
        ["A-B", "a b", "a_b"],
        ["01", "1", "1.0"],
        ["cafe\u0301", "café"],
        ["b", "b\u200b"],
    ]


def test_numbers_of_classes_may_be_stored_as_floats():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    numbers = torch.tensor([0, 2, 1, 1])
    found, expected = (TextClassification.hard_loss(logits, labels) for labels in (numbers.float(), numbers))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match=r"labels: .*0\.5.*; expected: the numbers of classes"):
        TextClassification.hard_loss(logits, torch.tensor([0.0, 0.5, 1.0, 2.0]))
    probabilities = torch.full((4, 3), 1 / 3)
    assert TextClassification.hard_loss(logits, probabilities).isfinite()
