"""The card that `trainer.push_to_hub` pushes: ours, and not Trainer's."""

import io
import json
from copy import deepcopy

import pytest
import torch
import yaml
from huggingface_hub import HfApi, constants
from transformers import trainer as trainer_module

from edgemin_hf import PruningConfig, QuantizationConfig, TaskDistillationConfig, load_quantized
from edgemin_hf.hub.identifiers import hub_id_of
from tests.helpers.hub_server import HubServer
from tests.helpers.models import tiny
from tests.helpers.training import dataset, make


def front_matter(card):
    return yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))


def test_it_tells_how_the_model_was_made_and_no_folder_of_this_machine(tmp_path, tokenizer):
    teacher = tiny()
    teacher.save_pretrained(tmp_path / "teacher")
    (tmp_path / "teacher/README.md").write_text("---\nlicense: mit\nlanguage: [de]\ndatasets: [org/data]\n---\n")
    teacher = type(teacher).from_pretrained(tmp_path / "teacher")
    trainer = make(
        tmp_path / "banking", tokenizer, None, teacher, TaskDistillationConfig(), max_steps=1, eval_data=dataset(4),
        pruning_config=PruningConfig(ffn_sparsity=0.5), quantization_config=QuantizationConfig(), push_to_hub=False,
    )  # fmt: skip
    trainer.train()
    trainer.evaluate()
    trainer.create_model_card()
    trainer.save_model()
    card = (tmp_path / "banking/README.md").read_text()
    told = front_matter(card)
    assert "base_model" not in told
    assert str(tmp_path) not in card
    assert (told["license"], told["language"], told["datasets"]) == ("mit", ["de"], ["org/data"])
    assert told["tags"] == ["distillation", "pruning", "quantization-aware-training"]
    assert told["pipeline_tag"] == "text-classification"
    made = json.loads((tmp_path / "banking/edgemin_config.json").read_text())["trainings"]
    assert json.loads(card.split("```json\n")[1].split("\n```")[0]) == made
    assert "| metric | value |" in card
    assert "| loss | " in card
    assert 'repo = "your-name/banking"' in card
    # Its snippet loads it.
    snippet = card.split("```python\n")[1].split("\n```")[0].replace("your-name/banking", str(tmp_path / "banking"))
    names = {}
    exec(snippet, names)
    assert isinstance(names["model"], type(load_quantized(tmp_path / "banking")))
    # What is given wins.
    trainer.create_model_card(language="en", license="apache-2.0", dataset="org/other", tags="banking", model_name="x")
    told = front_matter((tmp_path / "banking/README.md").read_text())
    assert (told["license"], told["language"], told["datasets"]) == ("apache-2.0", ["en"], ["org/other"])
    assert told["tags"][-1] == "banking"
    with pytest.raises(ValueError, match=r"license: Apache 2; allowed: "):
        trainer.create_model_card(license="Apache 2")


def test_a_teacher_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cached = tmp_path / "hub/models--org--bert/snapshots/abc"
    cached.mkdir(parents=True)
    (tmp_path / "runs/teacher").mkdir(parents=True)
    names = ["org/bert", str(cached), "runs/teacher", str(tmp_path / "runs/teacher"), "/nowhere/bert", "./bert"]
    assert [hub_id_of(name) for name in names] == ["org/bert", "org/bert", None, None, None, None]


def test_push_to_hub_pushes_it(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HubServer("hf_token") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        api = HfApi(hub.endpoint, token="hf_token")
        # transformers 4 calls the first two, 5 the third.
        ways = {"create_repo": api.create_repo, "upload_folder": api.upload_folder, "hf_api": lambda: api}
        for name, way in ways.items():
            monkeypatch.setattr(trainer_module, name, way, raising=False)
        trainer = make(tmp_path, tokenizer, push_to_hub=True, hub_model_id="me/edge", hub_token="hf_token", max_steps=1)
        trainer.train()
        assert f"Bearer {trainer.args.hub_token}" == f"Bearer {deepcopy(trainer.args).hub_token}" == "Bearer hf_token"
        trainer.push_to_hub(language="en")
        files = hub.repos["me/edge"].files
    assert torch.load(io.BytesIO(files["training_args.bin"]), weights_only=False).hub_token is None
    assert not [name for name, content in files.items() if b"hf_token" in content]
    card = files["README.md"].decode()
    assert "by the `DistillationTrainer` of" in card
    assert 'repo = "me/edge"' in card
    assert front_matter(card)["language"] == ["en"]
    assert "edgemin_config.json" in files
