import json

import pytest

from edgemin_hf import (
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    Weighted,
    create_student,
    load_pruned,
)
from tests.helpers.models import tiny
from tests.helpers.training import RELATIONS, make


def saved(folder):
    return json.loads((folder / "edgemin_config.json").read_text())["trainings"]


def test_what_is_saved_tells_every_training_that_made_the_model(tmp_path, tokenizer):
    first = make(tmp_path / "work", tokenizer, config=RELATIONS, max_steps=1, save_strategy="steps", save_steps=1)
    first.train()
    first.save_model(tmp_path / "first")
    (training,) = saved(tmp_path / "first")
    assert training == {
        "distillation": [{"method": "minilmv2", **RELATIONS.to_dict()}], "pruning": None, "quantization": None
    }  # fmt: skip
    assert saved(tmp_path / "work" / "checkpoint-1") == [training]

    pruning, grids = PruningConfig(ffn_sparsity=0.5), QuantizationConfig(embeddings="fp32")
    config = [TaskDistillationConfig(), Weighted(RELATIONS, 0.5)]
    student = load_pruned(tmp_path / "first")
    second = make(
        tmp_path / "work",
        tokenizer,
        student,
        config=config,
        pruning_config=pruning,
        quantization_config=grids,
        max_steps=1,
    )
    second.train()
    for _ in range(2):  # into the folder that the student came from: once is enough
        second.save_model(tmp_path / "first")
    before, after = saved(tmp_path / "first")
    assert before == training
    assert [method["method"] for method in after["distillation"]] == ["task", "weighted"]
    assert after["pruning"] == pruning.to_dict()
    assert after["quantization"] == grids.to_dict()

    third = make(tmp_path / "work", tokenizer, second.model, config=RELATIONS, max_steps=1)  # the same object
    third.save_model(tmp_path / "third")
    assert saved(tmp_path / "third") == [before, after, training]


def test_a_new_student_does_not_inherit_what_made_its_teacher(tmp_path, tokenizer):
    make(tmp_path / "work", tokenizer, tiny(), max_steps=1).save_model(tmp_path / "teacher")
    teacher = load_pruned(tmp_path / "teacher")
    trainer = make(tmp_path / "work", tokenizer, create_student(teacher, 2), teacher)
    trainer.save_model(tmp_path / "student")
    assert len(saved(tmp_path / "student")) == 1


def test_neural_compressors_own_configuration_is_told_by_its_file(tmp_path, tokenizer):
    inc = pytest.importorskip("neural_compressor")
    config = inc.WeightPruningConfig(pruning_type="magnitude", pattern="channelx1", start_step=1, end_step=1)
    trainer = make(tmp_path, tokenizer, config=TaskDistillationConfig(), pruning_config=config)
    trainer.save_model(tmp_path / "saved")
    assert saved(tmp_path / "saved")[0]["pruning"] == {"provider": "inc"}
