from pathlib import Path

import pytest

from edgemin_hf.hub.privacy import publishable

ROOT = Path("/home/anna/secret/recipes")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/home/anna/secret/recipes/runs/bank", "runs/bank"),
        ("/home/anna/secret/runs/bank/", "bank"),
        ("~/models/teacher", "teacher"),
        ("../../other/train.tsv", "train.tsv"),
        ("..", ".."),
        (r"C:\Users\anna\bank", "bank"),
        ("data/train.tsv", "data/train.tsv"),
        ("PolyAI/banking77", "PolyAI/banking77"),
        ("a/b testing, or ../both", "a/b testing, or ../both"),
    ],
)
def test_of_a_path_that_leads_elsewhere_the_name_is_told(path, told):
    settings = {"output_dir": path, "stages": [{"stage": "report", "files": [path]}], "seed": 3}
    assert publishable(settings, ROOT) == {
        "output_dir": told,
        "stages": [{"stage": "report", "files": [told]}],
        "seed": 3,
    }
