"""What the stage `evaluate` refuses to tell, before anything runs."""

import pytest

from edgemin_hf.recipe.analysis import check_slices
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.yaml_file import load_recipe
from tests.helpers.recipes import write_recipe


@pytest.fixture
def context(place):
    (place / "test.tsv").unlink()
    rows = [f"where is my card {number}\tcard_problem\tsouth\t{number}" for number in range(60)]
    (place / "test.tsv").write_text("\n".join(["text\tlabel\tdialect\tnumber", *rows]) + "\n")
    return Context(*load_recipe(write_recipe(place)), place, place / "run")


@pytest.mark.parametrize(("by", "expected"), [
    (["dialekt"], "slices: dialekt; allowed: a column of task.test_file: text, label, dialect, number, length_bucket"),
    (["number"], "slices: number, which has 60 values; allowed: 50 groups or fewer"),
    (["dialect", "dialect"], "slices: dialect twice; allowed: each column once"),
])  # fmt: skip
def test_groups_that_there_are_not_are_refused(context, by, expected):
    with pytest.raises(ValueError, match=f"^{expected}$"):
        check_slices(context, by, robustness=False)
    check_slices(context, ["dialect", "length_bucket"], robustness=True)


@pytest.mark.parametrize(("task", "by", "robustness", "expected"), [
    ({"type": "masked_lm"}, ["dialect"], False, "slices: dialect for masked_lm; allowed: where each row"),
    ({"type": "token_classification"}, [], True, "robustness: true for token_classification; allowed: for an answer"),
])  # fmt: skip
def test_tasks_that_have_no_such_thing_are_refused(place, task, by, robustness, expected):
    def change(recipe):
        recipe["task"] = {**recipe["task"], **task}

    context = Context(*load_recipe(write_recipe(place, change)), place, place / "run")
    with pytest.raises(ValueError, match=f"^{expected}"):
        check_slices(context, by, robustness)
