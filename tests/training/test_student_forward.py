import pytest
import torch

from edgemin_hf import MiniLMv2Config, TaskDistillationConfig, create_student
from tests.helpers.models import tiny
from tests.helpers.training import RELATIONS, make

TASK = TaskDistillationConfig()


def forwards(model):
    """A list that gets the forward of each pass of a model."""
    seen = []
    model.register_forward_pre_hook(lambda module, _args: seen.append(module.forward))
    return seen


@pytest.mark.parametrize("config", [RELATIONS, TASK, [RELATIONS, TASK]], ids=["layers", "logits", "both"])
def test_the_forward_is_made_once_and_on_the_model_only_while_a_batch_runs(tmp_path, tokenizer, config):
    student = create_student(tiny(), 2)
    seen = forwards(student)
    trainer = make(tmp_path, tokenizer, student, config=config, max_steps=3)
    between = []
    step = trainer.training_step
    trainer.training_step = lambda *args: [step(*args), between.append("forward" in vars(student))][0]
    trainer.train()
    assert len(seen) == 3
    assert all(forward is seen[0] for forward in seen)
    assert seen[0] != student.forward
    assert between == [False] * 3


def test_a_step_that_fails_leaves_no_hook_and_no_forward(tmp_path, tokenizer):
    class Failing(MiniLMv2Config):
        def objective(self, student, teacher):
            objective = super().objective(student, teacher)

            class Fails(type(objective)):
                def __call__(self, *_args):
                    raise FloatingPointError

            objective.__class__ = Fails
            return objective

    student, teacher = create_student(tiny(), 2), tiny()
    trainer = make(tmp_path, tokenizer, student, teacher, Failing(teacher_layer=2, relation_heads=8))
    with pytest.raises(FloatingPointError):
        trainer.train()
    for module in (*student.modules(), *teacher.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_the_forward_that_accelerate_wraps_is_the_one_that_runs(tmp_path, tokenizer):
    student = create_student(tiny(), 2)
    seen, dtypes = forwards(student), []
    student.bert.encoder.layer[0].output.dense.register_forward_hook(lambda *passing: dtypes.append(passing[2].dtype))
    trainer = make(tmp_path, tokenizer, student, config=TASK, max_steps=2, bf16=True)
    trainer.train()
    assert dtypes == [torch.bfloat16] * 2
    assert seen[0] is seen[1]
