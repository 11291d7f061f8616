from dataclasses import dataclass

from edgemin_hf import PKDConfig, TaskDistillationConfig, Weighted
from edgemin_hf.distillation.known import describe_method, described_method


@dataclass
class Stage(TaskDistillationConfig):
    max_steps: int = 3


class Foreign:
    def objective(self, student, teacher):
        raise NotImplementedError


def test_a_description_holds_the_settings_of_the_method_alone():
    assert describe_method(Stage(temperature=3.0)) == {
        "method": "task", "soft_weight": 0.5, "hard_weight": 0.5, "temperature": 3.0
    }  # fmt: skip
    weighted = describe_method(Weighted(PKDConfig(layers=(1,)), 2.0))
    assert (weighted["method"], weighted["weight"], weighted["config"]["method"]) == ("weighted", 2.0, "pkd")
    assert describe_method(Foreign()) == {"method": "Foreign"}


def test_a_described_method_is_the_method():
    config = PKDConfig(beta=0.5, layers=(2,))
    assert described_method(describe_method(config)) == config
