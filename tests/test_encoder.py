import pytest
import torch
from conftest import FAMILIES, batch, tiny
from transformers import AutoModel, GPT2Config

from edgemin_hf.distillation.capture import accepted, record
from edgemin_hf.encoder import Encoder, Tap, family_of, shape_of


@pytest.mark.parametrize("family", FAMILIES)
def test_shape_and_parts_are_those_of_the_family(family):
    model = tiny(family)
    encoder = Encoder(model)
    assert shape_of(model.config) == (3, 32, 4, 64)
    assert [layer.num_heads for layer in encoder.layers] == [4, 4, 4]
    layer = encoder.layers[0]
    shapes = {part: tuple(getattr(layer, part).weight.shape) for part in ("q", "k", "v", "attention_output")}
    assert set(shapes.values()) == {(32, 32)}
    assert (layer.ffn_in.out_features, layer.ffn_out.in_features) == (64, 64)
    names = [name for _, name, _ in encoder.embeddings()]
    assert {"word_embeddings", "position_embeddings"} <= set(names)
    linears = [f"{name}" for _, name, _ in encoder.linears()]
    assert len(linears) >= 3 * 6 + 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("headless", [False, True])
def test_taps_are_the_projections_of_the_layers_input(family, headless, tmp_path):
    model = tiny(family)
    if headless:
        model.save_pretrained(tmp_path)
        model = AutoModel.from_pretrained(tmp_path).eval()
    inputs = batch()
    taps = [Tap(1, name) for name in "qkv"]
    with torch.no_grad():
        recording = record(model, model, taps, logits=False, inputs=inputs)
        hidden = model(**inputs, output_hidden_states=True).hidden_states[1]
        for tap in taps:
            torch.testing.assert_close(recording.taps[tap], Encoder(model).module(tap)(hidden))
    assert recording.logits is None


def test_nothing_runs_behind_the_last_tap():
    model = tiny()
    ran = []
    for index, layer in enumerate(model.bert.encoder.layer):
        layer.output.register_forward_hook(lambda *_, index=index: ran.append(index))
    record(model, model, [Tap(1, "q"), Tap(1, "v")], logits=False, inputs=batch())
    assert ran == [0]
    record(model, model, [Tap(1, "q")], logits=True, inputs=batch())
    assert ran == [0, 0, 1, 2]
    assert record(model, model, [], logits=False, inputs=batch()).taps == {}
    assert ran == [0, 0, 1, 2]


def test_recording_leaves_the_model_as_it_was():
    model = tiny()
    before = model(**batch()).logits
    record(model, model, [Tap(0, "k")], logits=False, inputs=batch())
    assert "forward" not in model.__dict__
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(model(**batch()).logits, before)


def test_an_error_in_the_model_is_not_swallowed_and_leaves_no_hook():
    model = tiny()
    with pytest.raises(IndexError):
        record(model, model, [Tap(0, "k")], logits=False, inputs={"input_ids": torch.tensor([[10**6]])})
    assert not any(module._forward_hooks for module in model.modules())


def test_inputs_are_those_that_forward_names():
    inputs = {**batch(), "token_type_ids": torch.zeros(3, 9, dtype=torch.long), "labels": torch.zeros(3)}
    assert set(accepted(tiny("bert"), inputs)) == {"input_ids", "attention_mask", "token_type_ids"}
    assert set(accepted(tiny("distilbert"), inputs)) == {"input_ids", "attention_mask"}


def test_an_unknown_family_is_named_with_those_known():
    with pytest.raises(ValueError, match="'gpt2' is not supported; allowed: bert, roberta"):
        family_of(GPT2Config())
