"""The curve of a training, of what its Trainer logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgemin_hf.report.records import TrainingCurve

_POINTS = 200
"""Points of a curve that are kept at most: a record stays small."""


def training_curve(log: Sequence[Mapping[str, float]], metric: str, before: float) -> TrainingCurve | None:
    """Return the losses of a training and its validations.

    Args:
        log: The `log_history` of a `TrainerState`.
        metric: Name of the validation metric.
        before: Its value before the first step.

    Returns:
        The curve; None of a training without a step.

    Example:
        >>> from edgemin_hf.recipe.training_curve import training_curve
        >>> log = [{"step": 100, "loss": 1.2}, {"step": 200, "loss": 0.7}, {"step": 200, "eval_accuracy": 0.9}]
        >>> curve = training_curve(log, "accuracy", before=0.1)
        >>> curve.steps, curve.losses, curve.validated, curve.values
        ((100, 200), (1.2, 0.7), (0, 200), (0.1, 0.9))
    """
    # By step: what a resumed run trained again counts once, as it was trained last.
    losses = {int(entry["step"]): float(entry["loss"]) for entry in log if "loss" in entry}
    name = f"eval_{metric}"
    values = {0: before}
    for entry in log:
        if name in entry:  # the first of a step: the best model of all, which is measured at the end, is another step's
            values.setdefault(int(entry["step"]), float(entry[name]))
    if max([*losses, *values]) == 0:
        return None
    steps, validated = _thinned(sorted(losses)), _thinned(sorted(values))
    return TrainingCurve(
        metric, steps, tuple(losses[step] for step in steps), validated, tuple(values[step] for step in validated)
    )


def _thinned(steps: Sequence[int]) -> tuple[int, ...]:
    """Return evenly spaced ones of too many steps, the first and the last among them."""
    if len(steps) <= _POINTS:
        return tuple(steps)
    return tuple(steps[round(number * (len(steps) - 1) / (_POINTS - 1))] for number in range(_POINTS))
