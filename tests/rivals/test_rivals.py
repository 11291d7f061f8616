import json
import re
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import softmax
from sklearn.svm import LinearSVC

from edgemin_hf.data.drawing import within_tokens
from edgemin_hf.recipe.stages.rivals import RivalName
from edgemin_hf.rivals.base import Given, joined
from edgemin_hf.rivals.compare import Ahead, Comparison, RivalRow, compare
from edgemin_hf.rivals.known import RIVALS
from edgemin_hf.rivals.linear import Linear
from edgemin_hf.tasks import MultiLabel, Regression, TextClassification, TokenClassification
from edgemin_hf.tasks.class_weights import balanced_weights
from tests.helpers.models import LABELS, sentences

TABLES = ("train.tsv", "test.tsv")


@pytest.fixture
def given(workplace):
    parts = [sentences(160), sentences(40, seed=2), sentences(40, seed=1)]
    texts = [[text for text, _ in part] for part in parts]
    truths = [np.array([LABELS.index(label) for _, label in part]) for part in parts]
    ids = {label: number for number, label in enumerate(LABELS)}
    task = TextClassification(*TABLES, max_length=24)
    made = Given(task, workplace / "teacher", False, ids, texts[0], truths[0], texts[1], truths[1], texts[2], 0)
    return made, truths[2]


@pytest.mark.parametrize("name", ["bag_of_words", "frozen_encoder"])
def test_a_rival_learns_and_its_whole_call_says_what_its_scores_say(name, given, tmp_path):
    given, labels = given
    for made in RIVALS[name](given, tmp_path):
        assert made.scores.shape == (40, 2)
        assert (made.scores.argmax(-1) == labels).mean() > 0.8
        for text, scores in zip(given.test, made.scores, strict=True):
            np.testing.assert_allclose(made.call(text)[0], scores, atol=1e-4)
        files = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
        assert 0 < made.size_bytes <= files


def test_a_frozen_encoder_heeds_class_weights(given, tmp_path):
    """Of ten rows of one label and one of the other, whose texts tell nothing, weights decide which is answered."""
    given, _ = given
    rare = {"train": ["my card"] * 11, "labels": np.array([0] * 10 + [1])}
    rare |= {"validation": ["my card"] * 11, "validation_labels": rare["labels"]}
    weights = balanced_weights("label", rare["labels"].tolist(), 2)
    shares = {}
    for name, loss in (("plain", None), ("balanced", partial(given.task.hard_loss, class_weights=weights))):
        (tmp_path / name).mkdir()
        made = RIVALS["frozen_encoder"](replace(given, **rare, test=["my card"], loss=loss), tmp_path / name)[0]
        shares[name] = softmax(made.scores, axis=-1)[0, 1]
    assert shares["plain"] == pytest.approx(1 / 11, abs=0.01)
    assert shares["balanced"] == pytest.approx(1 / 2, abs=0.01)


def test_a_frozen_encoder_of_tokens_is_fitted_on_a_sample(given, tmp_path, monkeypatch):
    given, _ = given
    tags = {"O": 0, "B-thing": 1, "I-thing": 2}
    rows = [text.split() for text in given.train]
    tables = [
        Dataset.from_dict({"tokens": some, "tags": [["B-thing"] + ["O"] * (len(row) - 1) for row in some]})
        for some in (rows, rows[:20], rows[20:30])
    ]
    task = TokenClassification("train.jsonl", "test.jsonl", max_length=24)
    asked = replace(
        given, task=task, label_ids=tags, tables=tuple(tables), labels=np.array([]), test=given.train[20:30]
    )
    monkeypatch.setattr("edgemin_hf.rivals.frozen_encoder.within_tokens", partial(within_tokens, tokens=100))
    made = RIVALS["frozen_encoder"](asked, tmp_path)
    found = re.match(r"frozen encoder, linear head on (\d+) of 160 rows", made[0].name)
    assert 10 <= int(found[1]) <= 40
    assert len(made[0].scores) == 10


@pytest.mark.long
def test_static_embeddings_learn(given, tmp_path):
    pytest.importorskip("model2vec.train")
    given, labels = given
    [made] = RIVALS["static_embeddings"](given, tmp_path)
    assert (made.scores.argmax(-1) == labels).mean() > 0.8
    np.testing.assert_allclose(made.call(given.test[0])[0], made.scores[0], atol=1e-4)


@pytest.mark.long
def test_static_embeddings_learn_sets_until_the_loss_rises(given, tmp_path, monkeypatch):
    kind = pytest.importorskip("model2vec.train").StaticModelForClassification
    fit, watched = kind.fit, []

    def watched_fit(model, *args, **kwargs):
        watched.append((model.val_metric, model.early_stopping_direction))
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(kind, "fit", watched_fit)
    given, labels = given
    sets = [np.stack([truth, 1 - truth], axis=-1) for truth in (given.labels, given.validation_labels)]
    task = MultiLabel(*TABLES, max_length=24)
    [made] = RIVALS["static_embeddings"](replace(given, task=task, labels=sets[0], validation_labels=sets[1]), tmp_path)
    assert (task.predictions(made.scores) == np.stack([labels, 1 - labels], axis=-1)).mean() > 0.8
    assert watched == [("val_loss", "min")]  # of many labels the share of right texts is 0 for too long


def test_two_labels_have_a_score_each_and_sets_a_plane_each():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 4)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    model = Linear(features, labels, "label")
    peer = LinearSVC(random_state=0).fit(features, labels)
    np.testing.assert_array_equal(model.scores(features).argmax(-1), peer.predict(features))
    sets = (features[:, :3] > 0).astype(np.int64)
    found = MultiLabel(*TABLES).predictions(Linear(features, sets, "label set").scores(features))
    assert (found == sets).mean() > 0.95
    scores = features @ np.array([1, 2, 3, 4]) + 5
    found = Regression(*TABLES).predictions(Linear(features, scores, "score").scores(features))
    assert np.corrcoef(found, scores)[0, 1] > 0.99


def test_pairs_are_one_text_to_who_knows_no_pairs():
    assert joined([("a", "b"), ("c", "d")]) == ["a\nb", "c\nd"]


def test_a_comparison_tells_the_lead_with_its_interval_and_is_read_back(given, tmp_path):
    given, labels = given
    [rival] = RIVALS["bag_of_words"](given, tmp_path)
    perfect = type(rival)("student", np.eye(2, dtype=np.float32)[labels], 10, lambda text: np.zeros((1, 2), np.float32))
    wrong = type(rival)("coin", np.eye(2, dtype=np.float32)[1 - labels], 10, perfect.call)
    found = compare(given, labels, [(rival, 1.0), (wrong, None)], perfect, sentences=4, rounds=1)
    student, words, coin = found.rows
    assert (student.value, student.ahead, coin.value, coin.seconds) == (1.0, None, 0.0, None)
    assert coin.ahead == Ahead(1.0, (1.0, 1.0))
    assert words.ahead.value == pytest.approx(1 - words.value)
    assert all(row.latency_ms.p50 > 0 for row in found.rows)
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert isinstance(found.rows[0], RivalRow)


def test_a_new_head_on_a_fine_tuned_encoder_is_called_that(given, tmp_path):
    made = RIVALS["frozen_encoder"](replace(given[0], knows_task=True), tmp_path)
    assert [one.name for one in made] == [f"fine-tuned encoder, new linear head, {kind}" for kind in ("fp32", "INT8")]


def test_a_recipe_may_name_every_rival():
    assert get_args(RivalName) == (*RIVALS, "labels_alone")
