import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForTokenClassification, BertModel

from edgemin_hf.modeling.head_fitting import fit_head, fit_linear, frozen_features, last_linear
from edgemin_hf.modeling.weights import is_head
from edgemin_hf.tasks import Regression, TextClassification, TokenClassification
from tests.helpers.models import FAMILIES, batch, tiny


def blobs(rows=300, width=6, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=rows)
    features = generator.normal(size=(rows, width)) + 1.5 * np.eye(classes, width)[labels]
    features = 5 + features * np.arange(1, width + 1)  # neither centred nor of one scale
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def test_a_classifier_is_the_one_of_scikit_learn():
    features, labels = blobs()
    weight, bias = fit_linear(features, labels, TextClassification.hard_loss, 3, penalty=1e-2)
    rows = (features - features.mean(0)).numpy()
    rows /= np.sqrt(np.square(rows).mean())
    peer = LogisticRegression(C=1 / (len(features) * 1e-2), tol=1e-8, max_iter=1000).fit(rows, labels.numpy())
    expected = torch.from_numpy(peer.predict_proba(rows)).float()
    torch.testing.assert_close((features @ weight.T + bias).softmax(-1), expected, atol=1e-3, rtol=0)


def test_a_feature_that_hardly_varies_gets_no_weight():
    features, labels = blobs()
    features[:, 0] = 3 + 1e-9 * features[:, 0]
    weight, bias = fit_linear(features, labels, TextClassification.hard_loss, 3, penalty=1e-2)
    assert weight[:, 0].abs().max() < 1e-3
    rounded = (features / 0.1).round() * 0.1  # as a quantised graph would
    torch.testing.assert_close(rounded @ weight.T + bias, features @ weight.T + bias, atol=0.1, rtol=0)


def test_rows_that_differ_by_rounding_alone_are_alike():
    """The last rows of a product may be rounded otherwise than those before: that tells nothing of their label."""
    features = torch.full((11, 6), 0.7)
    features[-1] += 3e-7
    labels = torch.tensor([0] * 10 + [1])
    weight, bias = fit_linear(features, labels, TextClassification.hard_loss, 2, penalty=3e-4)
    shares = (features @ weight.T + bias).softmax(-1)[:, 1]
    torch.testing.assert_close(shares, torch.full((11,), 1 / 11), atol=0.01, rtol=0)


def test_scores_are_fitted_by_least_squares():
    features, _ = blobs()
    scores = features @ torch.arange(1.0, 7.0) - 3
    weight, bias = fit_linear(features, scores, Regression.hard_loss, 1, penalty=1e-9)
    torch.testing.assert_close(weight[0], torch.arange(1.0, 7.0), atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(bias[0], torch.tensor(-3.0), atol=0.1, rtol=0)


def test_of_a_head_for_tokens_the_rows_are_those_that_count():
    model = tiny(head=AutoModelForTokenClassification).eval()
    inputs = batch()
    labels = torch.randint(3, inputs["input_ids"].shape, generator=torch.Generator().manual_seed(0))
    labels[inputs["attention_mask"] == 0] = -100
    labels[:, 0] = -100
    features, found = frozen_features(model, [{**inputs, "labels": labels}, {**inputs, "labels": labels}])
    hidden = model.bert(**inputs).last_hidden_state[labels != -100]
    torch.testing.assert_close(features, torch.cat([hidden, hidden]))
    assert found.tolist() == 2 * labels[labels != -100].tolist()
    assert fit_head(model, (features, found), (features, found), TokenClassification.hard_loss) < 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_fitted_to_what_its_last_layer_reads_and_nothing_else_moves(family):
    model = tiny(family).train()
    batches = [{**batch(seed=seed), "labels": torch.tensor([0, 1, 2])} for seed in range(8)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features, labels = frozen_features(model, batches)
    assert model.training
    layer = last_linear(model)
    assert features.shape == (24, layer.in_features)
    loss = TextClassification.hard_loss
    first = loss(features @ layer.weight.T + layer.bias, labels).item()
    assert fit_head(model, (features, labels), (features, labels), loss) < first
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert len(changed) == 2
    assert all(is_head(model, name) for name in changed)
    with torch.no_grad():
        logits = torch.cat([model.eval()(**batch(seed=seed)).logits for seed in range(8)])
    torch.testing.assert_close(logits, features @ layer.weight.T + layer.bias, atol=1e-4, rtol=1e-4)


def test_a_model_without_a_head_is_told():
    with pytest.raises(ValueError, match="BertModel"):
        last_linear(BertModel(tiny().config))
