import pytest
import torch

from edgemin_hf import MiniLMv2Config, TaskDistillationConfig, TinyBERTConfig, create_student
from edgemin_hf.training.terms import TermMeans, summed
from tests.helpers.models import tiny
from tests.helpers.training import RELATIONS, dataset, make

TASK = TaskDistillationConfig()


def test_a_sum_without_one_of_its_terms_is_none():
    one = torch.tensor(1.0)
    assert summed({"a": one, "b": one}) == 2
    assert summed({"a": one, "b": None}) is None
    assert summed({}) is None


def test_means_count_rows_and_are_told_once():
    means = TermMeans()
    means.add({"a": torch.tensor(1.0), "b": None}, 3)
    means.add({"a": torch.tensor(5.0)}, 1)
    means.add({"a": torch.tensor(7.0)}, 0)
    assert means.take(lambda total: total) == {"a": 2.0}
    assert means.take(lambda total: total) == {}


@pytest.mark.parametrize(
    ("config", "name"),
    [(RELATIONS, "minilmv2_qq"), ([TASK, RELATIONS], "minilmv2_qq"), (TinyBERTConfig(), "tinybert_embedding")],
    ids=["alone", "beside another", "with projections"],
)
def test_a_term_that_trains_nothing_is_refused_at_the_first_step(tmp_path, tokenizer, config, name):
    student = create_student(tiny(), 2)
    student.bert.requires_grad_(False)
    with pytest.raises(ValueError, match=f"model: {name} gives no gradient") as error:
        make(tmp_path, tokenizer, student, config=config).train()
    assert "\n" not in str(error.value)


def test_a_hook_or_forward_without_gradients_is_refused(tmp_path, tokenizer):
    student = create_student(tiny(), 2)
    for layer in student.bert.encoder.layer:
        layer.forward = torch.no_grad()(layer.forward)
    with pytest.raises(ValueError, match="minilmv2_qq gives no gradient"):
        make(tmp_path, tokenizer, student, config=[RELATIONS, TASK]).train()


def test_what_is_frozen_in_part_trains(tmp_path, tokenizer):
    student = create_student(tiny(), 2)
    student.bert.embeddings.requires_grad_(False)
    make(tmp_path, tokenizer, student.eval(), config=[RELATIONS, TASK], max_steps=1).train()


def test_the_first_step_of_each_training_is_looked_at(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, config=MiniLMv2Config(teacher_layer=1, relation_heads=8), max_steps=1)
    trainer.train()
    trainer.model.requires_grad_(False)
    trainer.model.classifier.requires_grad_(True)
    with pytest.raises(ValueError, match="gives no gradient"):
        trainer.train()


def test_unlabelled_rows_have_no_loss_and_not_a_loss_of_zero(tmp_path, tokenizer):
    hard = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)
    trainer = make(tmp_path, tokenizer, config=hard, eval_data=dataset(8, labels=False))
    with pytest.raises(ValueError, match="dataset: without what hard_labels takes; expected: labels"):
        trainer.evaluate()
    trainer = make(tmp_path, tokenizer, config=TASK, eval_data=dataset(8, labels=False))
    result = trainer.evaluate()
    assert "eval_loss" not in result  # the soft term alone is another loss
    assert result["eval_soft_labels"] > 0
