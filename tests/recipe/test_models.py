import json
import re
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertTokenizerFast, PreTrainedModel

from edgemin_hf.cli import main
from edgemin_hf.hub.checkpoints import CheckpointError, resolve_checkpoint
from tests.helpers.models import VOCABULARY, SlowTokenizer, tiny
from tests.helpers.recipes import put, write_recipe


def changed_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def another_shape(folder):
    changed_config(folder, intermediate_size=48)


def fewer_layers(folder):
    changed_config(folder, num_hidden_layers=2)


def lost_layer(folder):
    tensors = {n: v for n, v in load_file(folder / "model.safetensors").items() if "layer.1." not in n}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def cut_off(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def no_activation(folder):
    changed_config(folder, hidden_act="glue")


def by_another_library(folder):
    changed_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})


def larger_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<user>"])
    tokenizer.save_pretrained(folder)


def no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)  # transformers 5 writes the first two alone


@pytest.fixture
def no_weights(monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))


@pytest.fixture
def dry_run(place, capsys, no_weights, tokenizer):
    """Change the recipe's teacher, and return the one line that a dry run ends with; "" where it goes through."""

    def run(change, *others):
        teacher = place / "teacher"
        teacher.unlink() if teacher.is_symlink() else shutil.rmtree(teacher)
        tiny(num_labels=2).save_pretrained(place / "teacher")
        tokenizer.save_pretrained(place / "teacher")
        (place / "text.txt").write_text("where is my card\n\nsend money now\n" * 50)
        change(place / "teacher")

        def recipe(settings):
            for other in others:
                other(settings)

        code = main(["run", str(write_recipe(place, recipe)), "--dry-run"])
        error = capsys.readouterr().err
        assert code == (2 if error else 0)
        assert error.count("\n") == bool(error)
        assert not (place / "run").exists()
        return error

    return run


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (another_shape, r"teacher\.model: .*another shape than its config: bert\S+ is \(64,"),
        (fewer_layers, r"teacher\.model: .*layers that its config has none of"),
        (lost_layer, r"teacher\.model: .*lacks weights of a bert's encoder: bert\.encoder\.layer\.1\."),
        (cut_off, r"teacher\.model: .*model\.safetensors.* is cut off"),
        (larger_tokenizer, r"teacher\.model: .*token '<user>' has id"),
        (no_tokenizer, r"teacher\.model: .*tokenizer"),
        (no_activation, r"teacher\.model: .*its configuration makes no model \(KeyError: 'glue'\)"),
        (by_another_library, r"teacher\.model: .*quantization_config of bitsandbytes; expected: .*not quantised"),
    ],
)
def test_a_teacher_that_would_not_do_is_one_line_of_a_dry_run(dry_run, change, told):
    assert re.search(told, dry_run(change))


def test_a_published_student_is_checked_in_a_dry_run(dry_run, place, tokenizer):
    tiny(num_labels=7).save_pretrained(place / "published")
    published = put("student", {"checkpoint": "published"}, "distill.relation_heads", 4)
    assert re.search(r"student\.checkpoint: .*tokenizer", dry_run(lambda folder: None, published))
    tokenizer.save_pretrained(place / "published")
    assert not dry_run(lambda folder: None, published)  # its head is for other labels: it gets a new one
    lost_layer(place / "published")
    assert re.search(r"student\.checkpoint: .*lacks weights", dry_run(lambda folder: None, published))


def packed(recipe):
    recipe["raw_text"] = {"files": ["text.txt"], "max_length": 24}


def cut_the_vocabulary(recipe):
    recipe["stages"].insert(5, {"stage": "prune_vocabulary"})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (packed, r"teacher\.model: tokenizer: BertTokenizer\w*, a slow one .*pack: false"),
        (cut_the_vocabulary, r"prune_vocabulary\.tokenizer: .*fast"),
        (put("finetune.max_steps", 4), None),
    ],
)
def test_what_needs_a_fast_tokenizer_says_so_in_a_dry_run(dry_run, monkeypatch, settings, told):
    def words(folder):
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY))

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda folder: SlowTokenizer(f"{folder}/vocab.txt"))
    found = dry_run(words, settings)
    assert re.search(told, found) if told else not found


def test_masks_need_a_mask_token(dry_run):
    def change(folder):
        tiny(head=AutoModelForMaskedLM).save_pretrained(folder)
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("\n".join(token.replace("[MASK]", "spare") for token in VOCABULARY))
        BertTokenizerFast(str(folder / "vocab.txt"), mask_token=None).save_pretrained(folder)

    def method(recipe):
        recipe["stages"][1] = {"stage": "distill", "method": "distilbert", "max_steps": 4}

    assert re.search(r"distill\.method: distilbert .*mask token", dry_run(change, method))


def test_a_student_of_the_hub_is_fetched_before_the_first_stage(place, capsys, monkeypatch):
    """Else its loss would be found after the teacher's fine-tuning."""
    monkeypatch.setattr("edgemin_hf.recipe.runner._run_step", lambda *_: pytest.fail("a stage began"))
    lost = place / "lost"
    shutil.copytree((place / "teacher").resolve(), lost)
    seen = resolve_checkpoint

    def without_weights(model, *, weights=True, revision=None):
        if weights and "lost" in model:
            raise CheckpointError("'me/lost' holds no model.safetensors")
        return seen(model, weights=weights, revision=revision)

    monkeypatch.setattr("edgemin_hf.recipe.shapes.resolve_checkpoint", without_weights)
    recipe = write_recipe(place, put("student", {"checkpoint": "lost"}, "distill.relation_heads", 4))
    assert main(["run", str(recipe)]) == 2
    assert "'me/lost' holds no model.safetensors" in capsys.readouterr().err
