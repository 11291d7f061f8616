"""What a model's run tells of its task."""

from edgemin_hf.sensitivity import SensitivitySettings
from edgemin_hf.tasks import MultiLabel, TextClassification
from edgemin_hf.tasks.glue import Glue
from edgemin_hf.tasks.run_rows import write_rows


def settings(folder, **given):
    options = {
        "model": str(folder / "run/model"),
        "output": folder / "costs",
        "measure": ["pruning"],
        "sparsities": [0.5],
    }
    options |= {"examples": 0, "saliency_examples": 1, "saliency": "taylor", "batch_size": 1, "threads": 1, "seed": 0}
    return SensitivitySettings.of_run({**options, **given})


def test_the_task_of_a_run_is_the_runs_with_all_its_settings(tmp_path):
    rows = [f"text {number}\t{number % 2}\t{number % 3 % 2}" for number in range(20)]
    (tmp_path / "a.tsv").write_text("\n".join(["sentence\tjoy\tanger", *rows]))
    own = MultiLabel("a.tsv", "a.tsv", text_column="sentence", label_columns=["joy", "anger"], threshold=0.9)
    own.metric = "accuracy"  # which is of one label too
    write_rows(own, tmp_path, 0, tmp_path / "run")
    task = settings(tmp_path).task
    assert (task.type, task.threshold, task.label_columns) == ("multi_label", 0.9, ["joy", "anger"])
    assert settings(tmp_path, max_length=7, metric="f1_macro").task.max_length == 7


def test_a_run_of_glue_and_a_model_of_no_run(tmp_path):
    rows = [f"text {number}\t{number % 2}" for number in range(20)]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
    write_rows(Glue("sst2", ".").task(), tmp_path, 0, tmp_path / "run")
    task = settings(tmp_path).task
    assert (type(task), task.text_column) == (TextClassification, "sentence")
    files = {"train": tmp_path / "train.tsv", "data": tmp_path / "dev.tsv", "model": "me/model"}
    for metric, kind in (("f1_macro", "multi_label"), ("mse", "regression"), ("seqeval", "token_classification")):
        assert settings(tmp_path, metric=metric, **files).task.type == kind
