import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from edgemin_hf import (
    MiniLMv2Config,
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    create_student,
    prune,
    quantize,
)
from tests.helpers.models import batch, tiny
from tests.helpers.training import dataset, make

TASK = TaskDistillationConfig()


def rows(ids=(5, 6, 7), count=8, **columns):
    return Dataset.from_dict({"input_ids": [list(ids)] * count, "attention_mask": [[1] * len(ids)] * count, **columns})


ODD = {
    "no rows": (rows(count=0), "dataset: no rows"),
    "text": (Dataset.from_dict({"text": ["my card"], "labels": [0]}), "dataset: columns text, labels; expected: input"),
    "long rows": (rows([5] * 67, labels=[0] * 8), "dataset: a row of 67 tokens; allowed: up to 66, the student's"),
    "tokens": (rows([5, 71], labels=[0] * 8), "dataset: token 71; allowed: below 71, the student's vocabulary"),
    "a label too high": (rows(labels=[0, 3] * 4), "labels: 3 in the dataset; allowed: 0 to 2, the numbers"),
    "a label too low": (rows(labels=[-1, 2] * 4), "labels: -1 in the dataset; allowed: 0 to 2"),
    "labels to ignore": (rows(labels=[-100] * 8), "labels: -100 in the dataset; allowed: 0 to 2"),
    "half a label": (rows(label=[0.5, 1.0] * 4), "label: 0.5 in the dataset; allowed: 0 to 2"),
    "a missing label": (rows(labels=[None, 1] * 4), "labels: a missing one in the dataset; allowed: 0 to 2"),
    "names": (rows(labels=["no", "yes"] * 4), "labels: 'no' in the dataset; allowed: 0 to 2"),
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("how", ["train", "evaluate", "predict"])
def test_rows_that_a_student_can_not_take_are_told_before_the_first(case, how, tmp_path, tokenizer):
    data, message = ODD[case]
    trainer = make(tmp_path, tokenizer, config=TASK, data=data)
    with pytest.raises(ValueError, match=message) as error:
        trainer.train() if how == "train" else getattr(trainer, how)(data)
    assert len(str(error.value).splitlines()) == 1


def test_rows_longer_than_the_teachers_positions(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, config=TASK, teacher=tiny(max_position_embeddings=8))
    with pytest.raises(ValueError, match="dataset: a row of 9 tokens; allowed: up to 8, the teacher's positions"):
        trainer.train()


@pytest.mark.parametrize("labels", [[0.0, 1.0], [False, True], [0, 2]])
def test_numbers_of_labels_of_any_type_are_taken(labels, tmp_path, tokenizer):
    assert make(tmp_path, tokenizer, config=TASK, data=rows(labels=labels * 4)).train().global_step == 4


def test_some_rows_may_have_no_label_to_train_on_and_none_to_measure(tmp_path, tokenizer):
    data = rows(labels=[0, -100] * 4)
    trainer = make(tmp_path, tokenizer, config=TASK, data=data)
    assert trainer.train().global_step == 4
    with pytest.raises(ValueError, match="labels: -100 in the dataset; allowed: 0 to 2"):
        trainer.evaluate(rows(labels=[0, -100] * 4))


def test_labels_that_nothing_learns_may_be_any(tmp_path, tokenizer):
    assert make(tmp_path, tokenizer, data=rows(labels=[-1] * 8)).train().global_step == 4


def test_a_batch_that_no_rows_fill(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, config=TASK, per_device_train_batch_size=64, dataloader_drop_last=True)
    with pytest.raises(ValueError, match="dataloader_drop_last: True, and the rows fill no batch of 64"):
        trainer.train()


def test_weights_that_training_made_nan_are_neither_returned_nor_saved(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, config=TASK, save_strategy="steps", save_steps=2)
    with torch.no_grad():
        trainer.teacher_model.classifier.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"model: training made weights NaN or infinite: .*; expected: a lower learn"):
        trainer.train()
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("layers", [1, 3])
def test_a_checkpoint_of_another_student_is_not_resumed(layers, tmp_path, tokenizer):
    make(tmp_path, tokenizer, config=TASK, save_strategy="steps", save_steps=2).train()
    trainer = make(tmp_path, tokenizer, create_student(tiny(), layers), config=TASK, max_steps=6)
    message = f"resume_from_checkpoint: .*checkpoint-2, of 2 layers, .*; expected: the student's, {layers} layers"
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_a_generator_does_not_take(seed):
    with pytest.raises(ValueError, match=f"pruning_seed: {seed}; allowed: 0 to 4294967295"):
        PruningConfig(head_sparsity=0.5, pruning_seed=seed)


@pytest.mark.parametrize("config", [None, {"temperature": 2.0}, MiniLMv2Config, "minilmv2", []])
def test_what_is_no_method(config, tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"distillation_config: .*; expected: a method's settings"):
        make(tmp_path, tokenizer, config=config)


CALLS = {"prune": (prune, PruningConfig(head_sparsity=0.5)), "quantize": (quantize, QuantizationConfig())}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("loader", [None, 3, dataset(), [5, 6]])
def test_what_gives_no_batches(call, loader):
    function, config = CALLS[call]
    model = tiny()
    with pytest.raises(ValueError, match=r"dataloader: .*; expected: "):
        function(model, config, loader)
    assert type(model.classifier) is torch.nn.Linear


def test_a_model_without_a_head_has_no_loss_to_prune_by():
    with pytest.raises(ValueError, match="model: BertModel, without a head; expected: one"):
        prune(tiny().bert, PruningConfig(head_sparsity=0.5), [batch()])


def test_weights_that_are_no_numbers_get_no_grid():
    model = tiny()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="model: weights that are NaN or infinite: bert"):
        quantize(model, QuantizationConfig(), DataLoader([batch()], batch_size=None))
