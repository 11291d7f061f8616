import pytest
import torch

from edgemin_hf.modeling.encoder import Activation
from edgemin_hf.modeling.hooks import record
from edgemin_hf.modeling.length_groups import record_by_length
from tests.helpers.models import FAMILIES, batch, tiny

TAPS = [Activation(1, "q"), Activation(2, "v"), Activation(0, "output")]
LENGTHS = (30, 12, 60, 27, 58, 25, 50, 29, 28)
"""Three passes: of 60 to 50 tokens, of 30 to 25, and of 12."""


def lengths_of_passes(model, inputs):
    """The recording, and for each pass how many positions it computed for an example, and how many are real."""
    seen = []

    def forward(**part):
        real = part["attention_mask"].sum(dim=1).tolist() if "attention_mask" in part else None
        seen.append((part["input_ids"].shape[1], real))
        return model(**part)

    return record_by_length(model, TAPS, inputs, forward), seen


@pytest.mark.parametrize("family", FAMILIES)
def test_records_what_one_pass_records(family):
    model, inputs = tiny(family), batch(LENGTHS, pad_to=64)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        found, seen = lengths_of_passes(model, inputs)
        expected = record(model, TAPS, logits=False, inputs=inputs)
    assert seen == [(60, [60, 58, 50]), (30, [30, 29, 28, 27, 25]), (12, [12])]
    assert found.activations.keys() == expected.activations.keys()
    for activation, tensor in expected.activations.items():
        assert found.activations[activation].shape == tensor.shape
        torch.testing.assert_close(found.activations[activation][real], tensor[real], rtol=1e-4, atol=1e-5)
        assert not found.activations[activation][1, 12:].any()


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
    [batch(LENGTHS, side="left"), {"input_ids": batch(LENGTHS)["input_ids"]}, batch((60, 50, 55, 46))],
    ids=["padding on the left", "no mask", "like lengths"],
)
def test_one_pass_where_nothing_can_be_cut(inputs):
    model = tiny()
    with torch.no_grad():
        found, seen = lengths_of_passes(model, inputs)
        expected = record(model, TAPS, logits=False, inputs=inputs)
    assert [width for width, _ in seen] == [60]
    for activation, tensor in expected.activations.items():
        torch.testing.assert_close(found.activations[activation], tensor)


def test_short_passes_are_put_together():
    with torch.no_grad():
        _, seen = lengths_of_passes(tiny(max_position_embeddings=128), batch((10, 128, 11, 60, 120, 12, 59)))
    assert seen == [(128, [128, 120]), (60, [60, 59, 12]), (11, [11, 10])]
