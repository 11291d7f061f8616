import pytest
import torch

from edgemin_hf.modeling.encoder import EMBEDDINGS, Activation, Encoder
from edgemin_hf.modeling.hooks import (
    PartialForward,
    filter_forward_inputs,
    hooked,
    record,
    recorded,
    replaced_forward,
)
from tests.helpers.models import FAMILIES, batch, tiny

QUERIES = [Activation(0, "q")]


def assert_nothing_left(model):
    for module in model.modules():
        # transformers 5 leaves hooks of its own where hidden states were once asked for.
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        assert not [hook for hook in hooks if not hook.__module__.startswith("transformers.")]
        assert "forward" not in vars(module)


class BrokenError(Exception):
    pass


def broken(*_args, **_kwargs):
    raise BrokenError


def count_layers(model):
    """A list that gets the number of each layer that computes."""
    ran = []
    for index, layer in enumerate(model.bert.encoder.layer):
        layer.output.register_forward_hook(lambda *_, index=index: ran.append(index))
    return ran


def test_hooks_see_and_change_what_passes_and_are_gone_afterwards():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    x, seen = torch.randn(3, 2), []
    expected = torch.relu(model[0](2 * x)) + 1
    with hooked(
        before=[(model, lambda _module, inputs: (2 * inputs[0],)), (model[1], lambda *passing: seen.append(passing))],
        after=[(model, lambda _module, _inputs, output: output + 1)],
    ):
        torch.testing.assert_close(model(x), expected)
    module, inputs = seen[0]
    assert module is model[1]
    torch.testing.assert_close(inputs[0], model[0](2 * x))
    assert_nothing_left(model)


def test_a_hook_that_can_not_be_put_on_leaves_none_of_the_others():
    model = tiny()
    with pytest.raises(AttributeError), hooked(before=[(model, broken)], after=[(None, broken)]):
        pass
    assert_nothing_left(model)


@pytest.mark.parametrize(
    "run",
    [
        lambda model: record(model, [Activation(1, "v")], logits=False, inputs=batch()),
        lambda model: record(model, [Activation(0, "context")], logits=True, inputs=batch()),
        lambda model: record(model, QUERIES, logits=True, inputs=batch(), forward=broken),
        lambda model: PartialForward(model).run(batch(), None, 0, 3),
        lambda model: PartialForward(model).observe(lambda: model(**batch())),
    ],
)
def test_an_error_in_the_model_is_not_swallowed_and_leaves_nothing(run):
    model = tiny()
    with replaced_forward(model.bert.encoder.layer[1], broken), pytest.raises(BrokenError):
        run(model)
    assert_nothing_left(model)


def test_an_error_after_kept_states_leaves_nothing():
    model = tiny()
    layers = PartialForward(model)
    hidden = layers.run(batch(), None, 0, 1)
    with replaced_forward(model.bert.encoder.layer[1], broken), pytest.raises(BrokenError):
        layers.run(batch(), hidden, 1, 3)
    assert_nothing_left(model)


def test_a_forward_on_a_forward_comes_back():
    model = tiny()
    with replaced_forward(model, lambda: "outer"):
        with replaced_forward(model, lambda: "inner"):
            assert model() == "inner"
        assert model() == "outer"
    assert_nothing_left(model)


def test_nothing_runs_after_the_last_activation():
    model = tiny()
    ran = count_layers(model)
    record(model, [Activation(1, "q"), Activation(1, "v")], logits=False, inputs=batch())
    assert ran == [0]
    record(model, [Activation(1, "q")], logits=True, inputs=batch())
    assert ran == [0, 0, 1, 2]
    assert record(model, [], logits=False, inputs=batch()).activations == {}
    assert ran == [0, 0, 1, 2]
    found = record(model, [Activation(1, "q")], logits=False, inputs=batch(), to_the_end=True)
    assert ran == [0, 0, 1, 2, 0, 1, 2]
    assert (list(found.activations), found.logits) == ([Activation(1, "q")], None)


def test_a_recording_inside_does_not_end_one_around_it():
    model = tiny()
    first, second = Activation(0, "output"), Activation(2, "output")
    with recorded(Encoder(model), [second], end=True) as found:
        assert record(model, [first], logits=False, inputs=batch()).activations.keys() == {first}
        assert not found
        with recorded(Encoder(model), [first]) as inner:
            model(**batch())
        pytest.fail("the pass inside has ended the block around it")
    assert (found.keys(), inner.keys()) == ({second}, {first})
    assert_nothing_left(model)


def test_recording_leaves_the_model_as_it_was():
    model = tiny()
    before = model(**batch()).logits
    record(model, [Activation(0, "k"), Activation(EMBEDDINGS, "output")], logits=False, inputs=batch())
    assert_nothing_left(model)
    torch.testing.assert_close(model(**batch()).logits, before, rtol=0, atol=0)


def test_gradients_flow_through_what_was_recorded():
    gradients = []
    for whole in (False, True):
        model = tiny()
        if whole:
            output = model(**batch(), output_hidden_states=True).hidden_states[2]
        else:
            output = record(model, [Activation(1, "output")], False, batch()).activations[Activation(1, "output")]
        output.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_run_from_kept_states_as_in_the_complete_model(family):
    model, data = tiny(family), batch((7, 4, 9), pad_to=11)
    layers = PartialForward(model)
    with torch.no_grad():
        expected = model(**data, output_hidden_states=True)
        second = layers.run(data, None, 0, 2)
        torch.testing.assert_close(second, expected.hidden_states[2])
        if family != "albert":  # whose layers are one module: nothing begins between them
            last = layers.run(data, second, 2, 3)
            torch.testing.assert_close(layers.run(data, last, 3, 4), expected.logits)
        last = layers.run(data, None, 0, 3)
        torch.testing.assert_close(layers.run(data, last, 3, 4), expected.logits)
        torch.testing.assert_close(model(**data).logits, expected.logits)
    assert_nothing_left(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_observed_states_are_what_goes_into_the_layers(family):
    model, data = tiny(family), batch((7, 4, 9), pad_to=11)
    layers = PartialForward(model)
    with torch.no_grad():
        logits, hidden = layers.observe(lambda: model(**data).logits)
        expected = model(**data, output_hidden_states=True)
        assert torch.equal(logits, expected.logits)
        assert (len(hidden), hidden[0]) == (4, None)
        for found, states in zip(hidden[1:3], expected.hidden_states[1:3], strict=True):
            assert torch.equal(found, states)
        for start in (0, 3) if family == "albert" else range(4):
            assert torch.equal(layers.run(data, hidden[start], start, 4), logits)
    assert_nothing_left(model)


def test_layers_run_alone_with_debertas_convolution():
    model, data = tiny("deberta-v2", conv_kernel_size=3, conv_act="gelu"), batch()
    layers = PartialForward(model)
    with torch.no_grad():
        first = layers.run(data, None, 0, 1)
        last = layers.run(data, first, 1, 3)
        torch.testing.assert_close(layers.run(data, last, 3, 4), model(**data).logits)


def test_layers_before_a_kept_state_and_after_the_end_do_not_run():
    model = tiny()
    ran, layers = count_layers(model), PartialForward(model)
    hidden = layers.run(batch(), None, 0, 1)
    assert ran == [0]
    layers.run(batch(), hidden, 1, 2)
    assert ran == [0, 1]
    with pytest.raises(ValueError, match="layer: 3; expected: a pass through all layers before it"):
        layers.run(batch(), hidden, 3, 4)
    assert ran == [0, 1]


def test_a_kept_state_decides_what_follows():
    model, data = tiny(), batch()
    layers = PartialForward(model)
    with torch.no_grad():
        hidden = layers.run(data, None, 0, 1)
        difference = layers.run(data, 2 * hidden, 1, 3) - layers.run(data, hidden, 1, 3)
    assert difference.abs().max() > 0.1


def test_inputs_are_those_that_forward_names():
    inputs = {**batch(), "token_type_ids": torch.zeros(3, 9, dtype=torch.long), "labels": torch.zeros(3)}
    assert set(filter_forward_inputs(tiny("bert"), inputs)) == {"input_ids", "attention_mask", "token_type_ids"}
    assert set(filter_forward_inputs(tiny("distilbert"), inputs)) == {"input_ids", "attention_mask"}
