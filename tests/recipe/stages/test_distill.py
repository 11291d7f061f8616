import json
import re

import pytest
import yaml
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig

from edgemin_hf import DistillationTrainer
from edgemin_hf.cli import main
from edgemin_hf.distillation.known import METHODS
from edgemin_hf.recipe.stages.known import SETTINGS
from tests.helpers.models import sentences, tiny, write_tsv

TASK = {"train_file": "train.tsv", "test_file": "test.tsv", "max_length": 24}
SHORT = {"max_steps": 4, "per_device_train_batch_size": 8}


@pytest.fixture
def here(place, tokenizer, monkeypatch):
    """A folder with a teacher that has a masked-LM head, raw text, and tables."""
    tiny(head=AutoModelForMaskedLM, pad_token_id=0).save_pretrained(place / "masked_lm")
    tokenizer.save_pretrained(place / "masked_lm")
    (place / "raw.txt").write_text("\n\n".join(text for text, _ in sentences(400)))
    monkeypatch.setattr("edgemin_hf.recipe.raw_rows.CACHE", place / "cache")
    monkeypatch.chdir(place)
    return place


def write(here, stages, **settings):
    recipe = {"name": "r", "output_dir": "run", "teacher": {"model": "masked_lm"}, "threads": 1, "precision": "fp32"}
    recipe |= {"raw_text": {"files": ["raw.txt"], "max_length": 16, "validation_blocks": 8}, "stages": stages}
    recipe |= {"student": {"num_hidden_layers": 2}, **settings}
    (here / "recipe.yaml").write_text(
        yaml.safe_dump({key: value for key, value in recipe.items() if value is not None})
    )
    return str(here / "recipe.yaml")


def record(here, stage):
    return json.loads((here / "run/stages" / f"{stage}.json").read_text())


def one_method(name, **settings):
    # The words that a random teacher has masked can't be guessed.
    small = {"minilmv2": {"relation_heads": 8}, "distilbert": {"mlm_weight": 0.0}}.get(name, {})
    return {"stage": "distill", "method": name, **small, **SHORT, **settings}


@pytest.mark.long
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"mlkd_task", "similarities"}))
def test_a_method_is_one_line_of_a_recipe_without_a_task(here, method):
    assert main(["run", write(here, [one_method(method, learning_rate=1e-3, max_steps=30)])]) == 0
    found = record(here, "distill")
    assert found["after"] < found["before"]
    assert 25 * 8 < found["examples"] <= 30 * 8
    architecture = AutoConfig.from_pretrained(here / "run/distill").architectures
    assert architecture == ["BertForMaskedLM" if method == "distilbert" else "BertModel"]
    assert AutoModel.from_pretrained(here / "run/distill").config.num_hidden_layers == 2
    assert len(AutoTokenizer.from_pretrained(here / "run/distill")) == len(AutoTokenizer.from_pretrained("masked_lm"))
    with safe_open(here / "run/distill/model.safetensors", "pt") as weights:
        assert not [name for name in weights.keys() if "projection" in name]  # noqa: SIM118


@pytest.mark.long
def test_several_methods_are_summed_with_weights(here):
    also = [{"method": "pkd", "weight": 0.5}, {"method": "minilmv2", "relation_heads": 4, "weight": 2.0}]
    stages = [
        {"stage": "finetune", **SHORT},
        one_method("minilm", also=also),
        {"stage": "task_distill", **SHORT, "also": [{"method": "mlkd_task", "contrast_weight": 0.07}, *also]},
    ]
    assert main(["run", write(here, stages, task=TASK)]) == 0
    assert record(here, "distill")["settings"]["also"][0]["weight"] == 0.5
    assert record(here, "task_distill")["metric"] == "accuracy"


@pytest.mark.long
def test_a_student_of_an_assistant(here):
    stages = [{**one_method("minilm"), "stage": "assistant"}, one_method("minilm")]
    recipe = write(here, stages, assistant={"hidden_size": 16}, student={"num_hidden_layers": 1, "hidden_size": 16})
    assert main(["run", recipe]) == 0
    assert AutoConfig.from_pretrained(here / "run/assistant").num_hidden_layers == 3
    assert AutoConfig.from_pretrained(here / "run/distill").num_hidden_layers == 1
    assert AutoConfig.from_pretrained(here / "run/distill").hidden_size == 16


@pytest.mark.long
def test_an_assistant_is_advised_for_a_much_smaller_student(here, caplog):
    caplog.set_level("WARNING", "edgemin_hf")
    assert main(["run", write(here, [one_method("minilm")], student={"num_hidden_layers": 1, "hidden_size": 16})]) == 0
    assert "advises an assistant" in caplog.text
    caplog.clear()
    assert main(["run", write(here, [one_method("minilm")], output_dir="other")]) == 0
    assert "advises an assistant" not in caplog.text


@pytest.mark.long
def test_tinybert_as_in_its_paper(here):
    tinybert = {"method": "tinybert", **SHORT}
    stages = [
        {"stage": "finetune", **SHORT},
        {"stage": "augment", "copies": 2, "model": "masked_lm"},
        {"stage": "distill", **tinybert},
        {"stage": "distill_on_task", **tinybert},
        {"stage": "task_distill", "soft_weight": 1.0, "hard_weight": 0.0, "temperature": 1.0, "num_train_epochs": 1.0},
    ]
    assert main(["run", write(here, stages, task=TASK)]) == 0
    (note,) = record(here, "augment")["notes"]
    before, after = (int(number) for number in re.findall(r"\d+", note))
    assert (before, before < after <= 3 * before) == (144, True)
    assert record(here, "task_distill")["examples"] == after


def test_distillation_on_the_task_needs_no_raw_text(here, capsys):
    stages = [{"stage": "finetune", **SHORT}, {"stage": "distill_on_task", "method": "tinybert", **SHORT}]
    assert main(["run", write(here, stages, task=TASK, raw_text=None), "--dry-run"]) == 0
    assert "distill_on_task" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("last", ["distill", "task_distill"])
def test_the_teachers_layer_is_searched(here, capsys, last):
    stages = [
        {"stage": "finetune", **SHORT},
        one_method("minilmv2", teacher_layer="search", search_steps=2, search_layers=[1, 3]),
        {"stage": "task_distill", **SHORT},
    ]
    stages = stages[:2] if last == "distill" else stages
    recipe = write(here, stages, task=TASK)
    assert main(["run", recipe]) == 0
    search = record(here, "distill")["search"]
    assert search["layers"] == [1, 3]
    assert search["metric"] == "accuracy"
    assert search["values"][search["layers"].index(search["best"])] == max(search["values"])
    assert "teacher layer 1: validation accuracy" in capsys.readouterr().out
    assert (here / "run/stages/teacher_layers.svg").read_text().startswith("<svg ")
    assert main(["run", recipe]) == 0, "done is done"


@pytest.mark.long
def test_a_student_from_a_checkpoint(here):
    assert main(["run", write(here, [one_method("minilm")])]) == 0
    stages = [{"stage": "finetune", **SHORT}, {"stage": "task_distill", **SHORT}]
    settings = {"student": {"checkpoint": "run/distill"}, "output_dir": "second", "task": TASK, "raw_text": None}
    assert main(["run", write(here, stages, **settings)]) == 0
    student = AutoConfig.from_pretrained(here / "second/task_distill")
    assert (student.num_hidden_layers, student.id2label) == (2, {0: "card_problem", 1: "transfer"})


@pytest.mark.long
def test_packed_text_is_tokenised_once_for_all_runs(here, capfd):
    assert main(["run", write(here, [one_method("minilm")])]) == 0
    (stream,) = (here / "cache").glob("*.uint*")
    before = stream.stat().st_mtime_ns
    longer = {"raw_text": {"files": ["raw.txt"], "max_length": 32, "validation_blocks": 4}, "output_dir": "second"}
    assert main(["run", write(here, [one_method("minilm")], **longer)]) == 0
    assert stream.stat().st_mtime_ns == before


@pytest.mark.long
@pytest.mark.parametrize("method", ["tinybert", "distilbert"])
def test_killed_and_resumed_equals_uninterrupted(here, method, monkeypatch):
    stage = {**one_method(method), "max_steps": 70, "save_steps": 25}  # into a second epoch
    narrow = {"student": {"num_hidden_layers": 2, "hidden_size": 16 if method == "tinybert" else 32}}
    assert main(["run", write(here, [stage], output_dir="whole", **narrow)]) == 0
    step, steps = DistillationTrainer.training_step, []

    def killed(self, *arguments):
        steps.append(1)
        if len(steps) == 60:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(DistillationTrainer, "training_step", killed)
    recipe = write(here, [stage], output_dir="killed", **narrow)
    assert main(["run", recipe]) == 130
    monkeypatch.undo()
    monkeypatch.setattr("edgemin_hf.recipe.raw_rows.CACHE", here / "cache")
    monkeypatch.chdir(here)
    assert main(["run", recipe]) == 0
    ours, theirs = ((here / name / "distill/model.safetensors").read_bytes() for name in ("killed", "whole"))
    assert ours == theirs


@pytest.mark.long
def test_sentences_without_a_task_are_validated_on_some_of_them(here):
    write_tsv(here / "rows.tsv", sentences(100))
    raw = {"files": ["rows.tsv"], "max_length": 16, "pack": False}
    assert main(["run", write(here, [one_method("minilm")], raw_text=raw)]) == 0
    assert record(here, "distill")["after"] < record(here, "distill")["before"]


WRONG = {
    "no such method": ([{"stage": "distill", "method": "bert"}], {}, "distill.method: bert; allowed: minilm, minilmv2"),
    "another's setting": ([one_method("minilm", teacher_layer=1)], {}, "distill.teacher_layer: 1; allowed: .*attent"),
    "labels on raw text": ([one_method("mlkd_task")], {}, "distill.method: mlkd_task; allowed: minilm"),
    "vectors on raw text": ([one_method("similarities")], {}, "distill.method: similarities; allowed: minilm"),
    "masked LM on the task": (
        [{"stage": "distill_on_task", "method": "distilbert"}], {"task": TASK}, "distill_on_task.method: distilbert; a",
    ),
    "a wrong value": ([one_method("tinybert", layers=[1])], {}, "distill.layers: .1.; allowed: 2 numbers"),
    "a wrong value beside": (
        [one_method("minilm", also=[{"method": "pkd", "beta": -1}])], {}, "distill.also.0.pkd.beta: -1.0; allowed: abo",
    ),
    "no method beside": ([one_method("minilm", also=[{"weight": 1}])], {}, "distill.also.0.method: missing; allowed: "),
    "no weight": ([one_method("minilm", also=[{"method": "pkd", "weight": 0}])], {}, "distill.also.0.pkd.weight: 0; a"),
    "heads differ": (
        [one_method("minilm")], {"student": {"num_attention_heads": 2}}, "distill.num_attention_heads: 2; allowed: 4",
    ),
    "no head": (
        [one_method("distilbert")], {"teacher": {"model": "teacher"}}, "distill.method: distilbert with a BertForSeq",
    ),
    "no task": ([{"stage": "task_distill"}], {}, "task: missing; expected: files and columns, since stage task_"),
    "no text": ([one_method("minilm")], {"raw_text": None}, "raw_text: missing; expected: files or dataset"),
    "two texts": ([one_method("minilm")], {"raw_text": {"files": ["raw.txt"], "dataset": "a/b"}}, "raw_text.files: "),
    "no packing": (
        [one_method("minilm")], {"raw_text": {"dataset": "a/b", "pack": False}}, "raw_text.pack: false beside dataset",
    ),
    "no such text": ([one_method("minilm")], {"raw_text": {"files": ["no.txt"]}}, "raw_text.files: .*no.txt"),
    "no assistant": ([{**one_method("minilm"), "stage": "assistant"}, one_method("pkd")], {}, "assistant: None; expec"),
    "assistant alone": (
        [{**one_method("minilm"), "stage": "assistant"}], {"assistant": {}}, "stages: assistant without distill",
    ),
    "assistant too late": (
        [one_method("pkd"), {**one_method("pkd"), "stage": "assistant"}], {"assistant": {}}, "stages: assistant in pla",
    ),
    "too large an assistant": (
        [{**one_method("minilm"), "stage": "assistant"}, one_method("minilm")], {"assistant": {"hidden_size": 99}},
        "assistant.hidden_size: 99; allowed: 1 to 32",
    ),
    "search without a task": ([one_method("minilmv2", teacher_layer="search")], {}, "distill.teacher_layer: search; a"),
    "search too high": (
        [{"stage": "finetune"}, one_method("minilmv2", teacher_layer="search", search_layers=[9])], {"task": TASK},
        "distill.search_layers: 9; allowed: 1 to 3",
    ),
    "shape and checkpoint": (
        [one_method("minilm")], {"student": {"checkpoint": "masked_lm", "hidden_size": 16}}, "student.hidden_size: 16 ",
    ),
    "no such checkpoint": ([one_method("minilm")], {"student": {"checkpoint": "no such"}}, "student.*no such"),
    "another vocabulary": (
        [one_method("minilm")], {"student": {"checkpoint": "other"}}, "student.checkpoint: other, whose vocabulary of",
    ),
    "nobody to predict words": (
        [{"stage": "finetune"}, {"stage": "augment"}], {"task": TASK, "teacher": {"model": "teacher"}},
        "augment.model: teacher, .*; allowed: a .*ForMaskedLM",
    ),
    "a head for words exported": (
        [one_method("distilbert"), {"stage": "export"}], {"task": TASK}, "stages: export needs a student with the task",
    ),
    "a head for words exported with fewer tokens": (
        [one_method("distilbert"), {"stage": "prune_vocabulary"}, {"stage": "export"}], {"task": TASK},
        "stages: export needs a student with the task's head, which distill does not leave",
    ),
    "augmented too late": (
        [{"stage": "finetune"}, {"stage": "task_distill"}, {"stage": "augment"}], {"task": TASK}, "stages: augment in ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_and_exit_code_2(here, capsys, case):
    stages, settings, message = WRONG[case]
    tiny(vocab_size=99).save_pretrained(here / "other")
    AutoTokenizer.from_pretrained("masked_lm").save_pretrained(here / "other")
    assert main(["run", write(here, stages, **settings)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"edgemin: .*{message}", line), line
    assert not (here / "run").exists()


def test_too_little_raw_text_and_attention_that_can_not_be_computed_are_one_line_too(here, capsys):
    assert main(["run", write(here, [one_method("minilm")], raw_text={"files": ["raw.txt"], "max_length": 16})]) == 2
    assert re.search(r"edgemin: raw_text: validation_blocks: 256; allowed: 1 to \d+", capsys.readouterr().err)
    config = BertConfig(**{**tiny().config.to_dict(), "position_embedding_type": "relative_key"})
    AutoModel.from_config(config).save_pretrained(here / "relative")
    AutoTokenizer.from_pretrained("masked_lm").save_pretrained(here / "relative")
    assert main(["run", write(here, [one_method("minilm")], teacher={"model": "relative"}, output_dir="other")]) == 2
    assert "edgemin: distill: position_embedding_type: relative_key; allowed: absolute" in capsys.readouterr().err


def test_every_stage_with_a_choice_has_every_method():
    chosen = {tuple(tag.split(":")) for tag in SETTINGS if ":" in tag}
    # None of labels or of vectors where a student has no head, and no masked words where it has one.
    assert len(chosen) == 3 * len(METHODS) - 5
