import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from edgemin_hf import load_pruned
from edgemin_hf.hub.checkpoints import CheckpointError, resolve_checkpoint
from edgemin_hf.utils.weight_files import WeightsError, weight_shapes
from tests.helpers.models import tiny


@pytest.fixture
def checkpoint(tmp_path):
    tiny().save_pretrained(tmp_path)
    return tmp_path


def cut_off(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def emptied(folder):
    (folder / "model.safetensors").write_bytes(b"")


def pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 90868376\n"
    (folder / "model.safetensors").write_text(text)


def page_of_an_error(folder):
    (folder / "model.safetensors").write_text("<html>Not found</html>" * 20)


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def quantised(folder):
    save_file({"bert.pooler.dense.weight": torch.zeros(2, 2, dtype=torch.int8)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (cut_off, r"model\.safetensors, of [\d,]+ bytes, is cut off or broken; expected: [\d,]+ bytes"),
        (emptied, r"model\.safetensors, of 0 bytes"),
        (pointer, r"model\.safetensors, a Git LFS pointer .* git lfs pull"),
        (page_of_an_error, "no safetensors file"),
        (pickled, r"holds no model\.safetensors, but pytorch_model\.bin; .*BertForSequenceClassification\.from_pret"),
        (quantised, r"bert\.pooler\.dense\.weight is I8; allowed: .*F32"),
    ],
)  # fmt: skip
def test_broken_weights_are_told_in_one_line_without_loading_them(checkpoint, broken, told, monkeypatch):
    broken(checkpoint)
    monkeypatch.setattr(BertForSequenceClassification, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    for look in (resolve_checkpoint, load_pruned):
        with pytest.raises((CheckpointError, WeightsError), match=told) as error:
            look(str(checkpoint))
        assert "\n" not in str(error.value)


def in_two_files(folder):
    tensors = {f"layer.{i}.weight": torch.zeros(4) for i in range(4)}
    places = {name: f"model-0000{1 + (i > 1)}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(places.values()):
        save_file({name: tensors[name] for name, place in places.items() if place == shard}, folder / shard)
    return places


@pytest.mark.parametrize("wrong", ["moved", "lost", "unlisted", "no file", "no map"])
def test_an_index_that_lists_what_the_files_do_not_hold(tmp_path, wrong):
    places = in_two_files(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert weight_shapes(tmp_path) == dict.fromkeys(places, (4,))
    first, second = sorted(set(places.values()))
    changed = {
        "moved": {**places, "layer.0.weight": second},
        "lost": {**places, "layer.9.weight": first},
        "unlisted": {name: place for name, place in places.items() if name != "layer.0.weight"},
        "no file": {**places, "layer.9.weight": "model-00003-of-00003.safetensors"},
    }
    index.write_text("[]" if wrong == "no map" else json.dumps({"weight_map": changed[wrong]}))
    with pytest.raises(WeightsError, match=r"index|model-00003"):
        weight_shapes(tmp_path)


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds no config\.json: an adapter"):
        resolve_checkpoint(str(tmp_path))
