import pytest
from safetensors.torch import load_file

from edgemin_hf import TaskDistillationConfig, WiseFT
from edgemin_hf.cli import main
from tests.helpers.models import tiny
from tests.helpers.recipes import finetuning, record
from tests.helpers.training import assert_same, dataset, make, weights

LABELS_ALONE = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)
BEGAN = {name: tensor.clone() for name, tensor in tiny(seed=5).state_dict().items()}


def trainer(folder, tokenizer, alpha=None, **arguments):
    model = tiny(seed=5)
    model.get_input_embeddings().requires_grad_(False)
    arguments = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2} | arguments
    made = make(folder, tokenizer, model, config=LABELS_ALONE, eval_data=dataset(rows=24), **arguments)
    if alpha is not None:
        made.add_callback(WiseFT(alpha))
    return made


def trained(*given, resume=None, **arguments):
    made = trainer(*given, **arguments)
    made.train(resume_from_checkpoint=resume)
    return weights(made)


def mixed(came_to, alpha):
    doubles = {name: (BEGAN[name].double(), came_to[name].double()) for name in came_to}
    return {name: ((1 - alpha) * began + alpha * ended).float() for name, (began, ended) in doubles.items()}


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_a_training_ends_between_its_two_ends(tmp_path, tokenizer, alpha):
    as_usual = trained(tmp_path / "usual", tokenizer)
    assert any((as_usual[name] - BEGAN[name]).abs().max() > 0.02 for name in BEGAN)
    assert_same(trained(tmp_path / "wise", tokenizer, alpha), mixed(as_usual, alpha), rtol=0, atol=1e-6)


def test_a_killed_training_ends_where_it_would_have(tmp_path, tokenizer):
    whole = trained(tmp_path, tokenizer, 0.5)
    assert_same(trained(tmp_path, tokenizer, 0.5, resume=str(tmp_path / "checkpoint-2")), whole)
    # At the last step nothing is left to train, and the checkpoint has not been mixed yet.
    assert_same(trained(tmp_path, tokenizer, 0.5, resume=str(tmp_path / "checkpoint-4")), whole)


def test_it_is_the_best_model_that_is_mixed(tmp_path, tokenizer):
    """Steps as long as these make the loss worse, so that the last model is not the best one."""
    best = {"learning_rate": 0.5, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    best |= {"eval_strategy": "steps", "eval_steps": 1, "lr_scheduler_type": "constant"}
    made = trainer(tmp_path / "usual", tokenizer, **best)
    made.train()
    assert not made.state.best_model_checkpoint.endswith("checkpoint-4")
    assert_same(trained(tmp_path / "wise", tokenizer, 0.5, **best), mixed(weights(made), 0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha: .*; allowed: above 0 and below 1"):
        WiseFT(alpha)


def test_a_recipes_teacher_begins_with_its_head_fitted(place, tokenizer):
    (place / "teacher").unlink()
    tiny().base_model.save_pretrained(place / "teacher")
    tokenizer.save_pretrained(place / "teacher")
    runs = {"began": {"max_steps": 0}, "usual": {"max_steps": 3}, "wise": {"max_steps": 3, "wise_ft_alpha": 0.25}}
    for output, settings in runs.items():
        assert main(["run", finetuning(place, output, learning_rate=1e-2, **settings)]) == 0
    began, usual, wise = (load_file(place / output / "teacher/model.safetensors") for output in runs)
    assert_same(wise, {name: 0.75 * began[name] + 0.25 * usual[name] for name in wise}, rtol=1e-6, atol=1e-6)
    usual, wise = (record(place, output)["settings"] for output in ("usual", "wise"))
    assert "wise_ft_alpha" not in usual, "a run of before this setting would be made anew"
    assert wise["wise_ft_alpha"] == 0.25


REFUSED = {
    "of a head that is not fitted": ({"fit_head": False}, "wise_ft_alpha: 0.5 with fit_head: false; allowed: None"),
    "of nothing trained": ({"max_steps": 0}, "wise_ft_alpha: 0.5 with max_steps: 0; allowed: None"),
    "of everything": ({"wise_ft_alpha": 1.0}, "finetune.wise_ft_alpha: 1.0; allowed: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_mixed_is_refused(place, capsys, case):
    settings, told = REFUSED[case]
    assert main(["run", finetuning(place, "run", **({"wise_ft_alpha": 0.5} | settings))]) == 2
    assert told in capsys.readouterr().err


def test_shards_are_refused(place, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(["run", finetuning(place, "run", wise_ft_alpha=0.5)]) == 2
    assert "wise_ft_alpha: 0.5 under FSDP" in capsys.readouterr().err
