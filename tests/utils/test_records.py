import json
from dataclasses import dataclass

import pytest

from edgemin_hf.report.records import LayerSearch, StageRecord
from edgemin_hf.utils.records import Record


@dataclass(frozen=True)
class Part(Record):
    size: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thing(Record):
    name: str
    parts: tuple[Part, ...]
    best: dict[str, Part] | None = None

    def __post_init__(self):
        if self.name == "no":
            raise ValueError("name: no; allowed: any other")


def test_what_is_written_is_read_again_and_defaults_are_left_out():
    thing = Thing("a", (Part(None), Part(1, ("b",))), {"c": Part(2)})
    content = thing.to_dict()
    parts = [{"size": None}, {"size": 1, "notes": ["b"]}]
    assert content == {"name": "a", "parts": parts, "best": {"c": {"size": 2}}}
    assert Thing.from_dict(json.loads(json.dumps(content))) == thing
    assert Thing.from_dict({**content, "newer": 1}) == thing
    assert "best" not in Thing("a", ()).to_dict()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "a"}, "^parts: field required$"),
        ({"name": "a", "parts": [{"size": "many"}]}, r"^parts\.0\.size: input should be a valid integer"),
        ({"name": "no", "parts": []}, "^name: no; allowed: any other$"),
    ],
)
def test_what_does_not_fit_is_named(content, message):
    with pytest.raises(ValueError, match=message):
        Thing.from_dict(content)


def test_a_stages_record_reads_what_older_versions_wrote():
    search = {"metric": "accuracy", "layers": [1, 2], "values": [0.5, 0.75], "best": 2}
    record = StageRecord.from_dict({"stage": "distill", "finished": True, "examples": 3, "search": search})
    assert record == StageRecord(
        "distill", finished=True, examples=3, search=LayerSearch("accuracy", (1, 2), (0.5, 0.75), 2)
    )
    assert record.to_dict() == {"stage": "distill", "finished": True, "examples": 3, "search": search}
