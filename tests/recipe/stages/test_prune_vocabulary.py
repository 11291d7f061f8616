import json

import pytest
from transformers import AutoConfig

from edgemin_hf.cli import main
from edgemin_hf.modeling.pruned_shape import pruned_shape
from tests.helpers.recipes import RECIPE, only, write_recipe


@pytest.mark.long
def test_a_domain_edition_of_a_pruned_student(place, capsys):
    """A second recipe takes up teacher and pruned student of a first, as recipes/quickstart-domain.yaml does."""
    assert main(["run", str(write_recipe(place, only("finetune", "task_distill", "prune")))]) == 0

    def domain(recipe):
        stages = {stage["stage"]: stage for stage in RECIPE["stages"]}
        recipe["output_dir"] = str(place / "domain")
        recipe["teacher"]["model"], recipe["student"] = "run/teacher", {"checkpoint": "run/prune"}
        recipe["stages"] = [
            {**stages["quantize"], "embeddings": "int4"},
            {"stage": "prune_vocabulary", "min_count": 40},
            stages["export"],
            stages["evaluate"],
        ]

    recipe = write_recipe(place, domain, "domain.yaml")
    assert main(["run", str(recipe), "--dry-run"]) == 0
    assert main(["run", str(recipe)]) == 0
    before, after = (AutoConfig.from_pretrained(place / folder) for folder in ("run/prune", "domain/prune_vocabulary"))
    assert after.vocab_size < before.vocab_size
    assert pruned_shape(after) == pruned_shape(before)
    results = json.loads((place / "domain/evaluate/results.json").read_text())
    assert results["student_onnxruntime_int8"]["value"] > 0.4
