import pytest
import torch
from transformers import TrainingArguments

from edgemin_hf import DistillationTrainer, TaskDistillationConfig
from edgemin_hf.modeling.weights import is_head
from edgemin_hf.training.parameter_groups import learning_rates
from tests.helpers.models import FAMILIES, tiny

LABELS_ALONE = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)
BELOW = ("embeddings", "embeddings_project", "rel_embeddings", "relative_attention_bias", "embedding_hidden_mapping_in")
"""What stands below the layers, or what all of them share, by a part of its name."""


def layer_of(name):
    """Return the number in a parameter's name; the layers of ALBERT are one."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return numbers[0] if numbers else None


def optimizer_of(folder, model, **rates):
    args = TrainingArguments(str(folder), learning_rate=1e-4, use_cpu=True, report_to=[], max_steps=1)
    return DistillationTrainer(model, args=args, distillation_config=LABELS_ALONE, **rates).create_optimizer()


def of_parameters(optimizer, setting):
    """Return a setting of the groups by parameter, each of which is in one group."""
    found = {id(parameter): group[setting] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in optimizer.param_groups)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_learns_slower_for_each_layer_above_it(family):
    model = tiny(family)
    depth = 1 if family == "albert" else 3
    rates = learning_rates(model, 1.0, head=7.0, layer_decay=0.5)
    assert rates.keys() == dict(model.named_parameters()).keys()
    for name, rate in rates.items():
        if is_head(model, name):
            expected = 7.0
        elif "pooler" in name.split(".") or "final_norm" in name:
            expected = 1.0
        elif any(part in BELOW for part in name.split(".")) or "encoder.LayerNorm" in name:
            expected = 0.5**depth
        else:
            assert layer_of(name) is not None, name
            expected = 0.5 ** (depth - 1 - layer_of(name))
        assert rate == expected, name
    assert min(rates.values()) == 0.5**depth
    assert len(set(rates.values())) == depth + 2


def test_a_convolution_is_of_the_layer_that_it_follows():
    rates = learning_rates(tiny("deberta-v2", conv_kernel_size=3), 1.0, layer_decay=0.5)
    found = {rate for name, rate in rates.items() if "encoder.conv" in name}
    assert found == {rate for name, rate in rates.items() if "encoder.layer.0." in name} == {0.25}


def test_layers_that_share_their_weights_are_one():
    rates = learning_rates(tiny("albert", num_hidden_layers=4, num_hidden_groups=2), 1.0, layer_decay=0.5)
    groups = [{rate for name, rate in rates.items() if f"albert_layer_groups.{group}." in name} for group in (0, 1)]
    assert groups == [{0.5}, {1.0}]
    assert {rate for name, rate in rates.items() if "embedding" in name} == {0.25}


def test_without_decay_all_learn_alike():
    assert set(learning_rates(tiny(), 1e-4).values()) == {1e-4}


HEAD, DECAY, SLOW = {"head_learning_rate": 1e-3}, {"layer_learning_rate_decay": 0.9}, {"head_learning_rate": 1e-6}


@pytest.mark.parametrize("rates", [HEAD, DECAY, HEAD | DECAY, SLOW], ids=["head", "decay", "both", "slow head"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_optimizer_has_these_rates_and_transformers_weight_decay(family, rates, tmp_path):
    model = tiny(family)
    optimizer, plain = optimizer_of(tmp_path, model, **rates), optimizer_of(tmp_path, model)
    head, decay = rates.get("head_learning_rate"), rates.get("layer_learning_rate_decay", 1.0)
    expected = learning_rates(model, 1e-4, head, decay)
    found = of_parameters(optimizer, "lr")
    assert {name: found[id(parameter)] for name, parameter in model.named_parameters()} == expected
    assert of_parameters(optimizer, "weight_decay") == of_parameters(plain, "weight_decay")
    assert all(group["params"] for group in optimizer.param_groups)
    assert len(plain.param_groups) == 2


def test_the_schedule_scales_all_rates_alike(tmp_path):
    model = tiny()
    args = TrainingArguments(str(tmp_path), learning_rate=1e-4, use_cpu=True, report_to=[], max_steps=4)
    trainer = DistillationTrainer(
        model, args=args, distillation_config=LABELS_ALONE, head_learning_rate=1e-3, layer_learning_rate_decay=0.5
    )
    trainer.create_optimizer_and_scheduler(4)
    first = of_parameters(trainer.optimizer, "lr")
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    later = of_parameters(trainer.optimizer, "lr")
    assert all(later[key] == pytest.approx(0.75 * first[key]) for key in first)


def test_what_learns_slower_moves_less(tmp_path):
    model = tiny()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = optimizer_of(tmp_path, model, layer_learning_rate_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # of which Adam's first step is the learning rate
    optimizer.step()
    moved = {name: (parameter - before[name]).abs().median().item() for name, parameter in model.named_parameters()}
    for name, rate in learning_rates(model, 1e-4, layer_decay=0.1).items():
        assert moved[name] == pytest.approx(rate, rel=0.05, abs=2e-8), name
