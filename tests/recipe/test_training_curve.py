from edgemin_hf.recipe.training_curve import training_curve


def test_a_resumed_training_has_each_step_once_and_a_long_one_few_points():
    log = [{"step": step, "loss": 1000.0 - step} for step in range(1, 1001)]
    curve = training_curve([*log, {"step": 7, "loss": 5.0}, {"step": 1000, "eval_f1": 0.5}], "f1", before=0.25)
    assert len(curve.steps) == len(curve.losses) == 200
    assert (curve.steps[0], curve.steps[-1]) == (1, 1000)
    assert list(curve.steps) == sorted(set(curve.steps))
    assert (curve.validated, curve.values) == ((0, 1000), (0.25, 0.5))
    again = training_curve([*log[:10], {"step": 7, "loss": 5.0}], "f1", before=0.25)
    assert dict(zip(again.steps, again.losses, strict=True))[7] == 5.0


def test_a_training_without_a_step_has_none():
    assert training_curve([{"step": 0, "eval_f1": 0.5}], "f1", before=0.5) is None


def test_the_best_model_is_not_taken_for_the_last_step():
    log = [{"step": step, "eval_f1": value} for step, value in ((4, 0.75), (8, 0.5))]
    best = {"step": 8, "eval_f1": 0.75}  # measured again once the training is over
    assert training_curve([*log, best], "f1", before=0.25).values == (0.25, 0.75, 0.5)
