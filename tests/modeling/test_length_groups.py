import pytest
import torch
from helpers.models import FAMILIES, batch, tiny

from edgemin_hf.modeling.encoder import Activation
from edgemin_hf.modeling.hooks import record
from edgemin_hf.modeling.length_groups import _like_lengths, record_by_length

TAPS = [Activation(1, "q"), Activation(2, "v"), Activation(0, "output")]
LENGTHS = (7, 4, 9, 2, 8)


@pytest.fixture(autouse=True)
def many_passes(monkeypatch):
    monkeypatch.setattr("edgemin_hf.modeling.length_groups._TOKENS", 1)


def lengths_of_passes(model, inputs):
    """The recording, and how many positions each pass computed for an example."""
    seen = []

    def forward(**part):
        seen.append(part["input_ids"].shape[1])
        return model(**part)

    return record_by_length(model, TAPS, inputs, forward), seen


@pytest.mark.parametrize("family", FAMILIES)
def test_records_what_one_pass_records(family):
    model, inputs = tiny(family), batch(LENGTHS, pad_to=11)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        found, seen = lengths_of_passes(model, inputs)
        expected = record(model, TAPS, logits=False, inputs=inputs)
    assert seen == [9, 4, 2]
    assert found.activations.keys() == expected.activations.keys()
    for activation, tensor in expected.activations.items():
        assert found.activations[activation].shape == tensor.shape
        torch.testing.assert_close(found.activations[activation][real], tensor[real], rtol=1e-4, atol=1e-5)
        assert not found.activations[activation][3, 2:].any()


def test_gradients_are_those_of_one_pass():
    inputs = batch(LENGTHS)
    gradients = []
    for recorded in (record_by_length, lambda *arguments: record(arguments[0], arguments[1], False, arguments[2])):
        model = tiny()
        activations = recorded(model, TAPS, inputs).activations
        sum(tensor[inputs["attention_mask"].bool()].square().mean() for tensor in activations.values()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5 * gradients[1].abs().max().item())


@pytest.mark.parametrize(
    "inputs",
    [batch(LENGTHS, side="left"), {"input_ids": batch(LENGTHS)["input_ids"]}, batch((9, 8, 9, 7))],
    ids=["padding on the left", "no mask", "like lengths"],
)
def test_one_pass_where_nothing_can_be_cut(inputs):
    model = tiny()
    with torch.no_grad():
        found, seen = lengths_of_passes(model, inputs)
        expected = record(model, TAPS, logits=False, inputs=inputs)
    assert seen == [9]
    for activation, tensor in expected.activations.items():
        torch.testing.assert_close(found.activations[activation], tensor)


def test_short_passes_are_put_together(monkeypatch):
    monkeypatch.setattr("edgemin_hf.modeling.length_groups._TOKENS", 128)
    lengths = torch.tensor([10, 128, 11, 60, 120, 12, 59])
    found = [(longest, examples.tolist()) for longest, examples in _like_lengths(lengths)]
    assert found == [(128, [1, 4]), (60, [3, 6, 5]), (11, [2, 0])]
