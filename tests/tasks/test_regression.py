import re

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoConfig

from edgemin_hf.cli import main
from edgemin_hf.data.padding import TEACHER_LOGITS
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.tasks.regression import Regression
from tests.helpers.models import batch, tiny
from tests.helpers.recipes import put
from tests.helpers.tasks import (
    assert_every_stage_speaks_of,
    assert_measured,
    objective,
    pair_recipe,
    run_snippets,
    write_all_pairs,
)


def regression(seed=0, name="score", problem_type="regression"):
    return tiny(seed=seed, id2label={0: name}, label2id={name: 0}, num_labels=1, problem_type=problem_type)


def test_a_regression_learns_scores_by_squared_error_whatever_the_temperature():
    student, teacher = regression(seed=0), regression(seed=1)
    with torch.no_grad():
        ours, theirs = (model(**batch()).logits for model in (student, teacher))
    labels = torch.tensor([0.5, 4.25, 2.0])
    losses = []
    for temperature in (1.0, 3.0):
        compute = objective(student, teacher, soft_weight=0.3, hard_weight=0.7, temperature=temperature)
        losses.append(compute(Recording(logits=ours), Recording(logits=theirs), {"labels": labels}))
        beforehand = {"labels": labels, TEACHER_LOGITS: theirs}
        assert compute(Recording(logits=ours), Recording(), beforehand) == losses[-1]
    s, t = (scores.numpy().astype(np.float64).ravel() for scores in (ours, theirs))
    assert losses[0] == losses[1]
    assert losses[0]["soft_labels"].item() == pytest.approx(0.3 * np.mean((s - t) ** 2), rel=1e-5)
    assert losses[0]["hard_labels"].item() == pytest.approx(0.7 * np.mean((s - labels.numpy()) ** 2), rel=1e-5)


def test_student_and_teacher_must_have_like_heads():
    score = regression()
    objective(score, regression(name="similarity"))
    objective(regression(problem_type=None), score)  # as transformers takes it
    for student, teacher, message in (
        (
            score,
            tiny(),
            r"teacher_model: problem_type single_label_.* with 3 .*allowed: .*regression with 1",
        ),
        (tiny(), score, "teacher_model: problem_type regression with 1 .*single_label_.* with 3"),
        (tiny(problem_type="regression"), None, r"model: problem_type regression with 3 label\(s\)"),
    ):
        with pytest.raises(ValueError, match=message):
            objective(student, teacher)
    # transformers 5 makes no such model.
    with pytest.raises(ValueError, match=r"model: .* with 1 label|requires `num_labels > 1`"):
        objective(regression(problem_type="single_label_classification"), None)
    logits = Recording(logits=torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"teacher_logits: \(4, 3\); allowed: \(4, 1\)"):
        objective(score)(logits, Recording(), {TEACHER_LOGITS: torch.zeros(4, 3), "labels": torch.zeros(4)})


TASK = {"metric": "spearmanr", "label_column": "score"}


@pytest.fixture(scope="module")
def root(workplace, tmp_path_factory):
    return write_all_pairs(tmp_path_factory.mktemp("scores"), workplace)


@pytest.fixture(scope="module")
def run(root):
    longer = [put("finetune.max_steps", 100), put("task_distill.max_steps", 60)]
    assert main(["run", str(pair_recipe(root, TASK, *longer, put("report.repo_id", str(root / "run/artefact"))))]) == 0
    return root / "run"


@pytest.mark.long
def test_every_stage_speaks_of_the_metric(run):
    assert_every_stage_speaks_of("spearmanr", run, 40)


@pytest.mark.long
def test_what_is_measured_are_the_predictions(run, root):
    lines = [line.split("\t") for line in (root / "test.tsv").read_text().splitlines()[1:]]
    scores = np.array([float(line[3]) for line in lines])
    assert_measured(run, scores, lambda labels, predictions: spearmanr(labels, predictions).statistic)


@pytest.mark.long
def test_the_checkpoint_says_what_its_output_is(run):
    for folder in ("teacher", "artefact"):
        config = AutoConfig.from_pretrained(run / folder)
        assert (config.problem_type, config.id2label) == ("regression", {0: "score"})


@pytest.mark.long
def test_the_snippets_of_the_card_take_a_pair_and_agree(run, monkeypatch):
    card = (run / "artefact/README.md").read_text()
    assert len(re.findall(r'"text": ".*", "text_pair": "|predict\(\(".*", "', card)) == 4
    optimum, _, torch_fp32 = answers = run_snippets(card, monkeypatch)
    assert all("score" in answer for answer in (optimum, torch_fp32))
    optimum, plain, torch_fp32 = (float(re.search(r"-?\d+\.\d+", answer)[0]) for answer in answers)
    assert optimum == pytest.approx(plain, abs=1e-4)
    assert torch_fp32 == pytest.approx(plain, abs=0.5)


def test_scores_are_read_as_they_are(root, tokenizer):
    columns = {"text_column": "sentence1", "text_pair_column": "sentence2", "max_length": 12}
    scores = Regression("train.tsv", "test.tsv", label_column="score", metric="pearsonr", **columns)
    assert scores.labels(root) == ["score"]
    train, validation = scores.train_and_validation(root, tokenizer, {}, seed=0)
    assert (len(train), len(validation)) == (144, 16)
    assert set(train["labels"]) == {0.0, 2.5, 5.0}
