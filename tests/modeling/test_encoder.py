import pytest
import torch
from torch import nn
from transformers import AlbertConfig, AutoModel, BertConfig, BertModel, GPT2Config
from transformers.models.modernbert import modeling_modernbert

from edgemin_hf.modeling.attention import attention_scores, check_scores
from edgemin_hf.modeling.encoder import EMBEDDINGS, Activation, Encoder
from edgemin_hf.modeling.families import family_of, shape_of
from edgemin_hf.modeling.hooks import record
from edgemin_hf.utils.compat import RELEASE
from tests.helpers.models import FAMILIES, batch, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_shape_and_parts_are_those_of_the_family(family):
    model = tiny(family)
    encoder = Encoder(model)
    assert shape_of(model.config) == (3, 32, 4, 64)
    assert [(layer.num_heads, layer.attention_width) for layer in encoder.layers] == [(4, 32)] * 3
    layer = encoder.layers[0]
    assert layer.ffn_out.in_features == 64
    assert {child.num_embeddings for _, _, child in encoder.embeddings()} >= {model.config.vocab_size}
    heads = {name for _, name, _ in encoder.linears()}
    assert heads & {"classifier", "out_proj"}


def projections_by_hand(family, model, layer, hidden):
    """Queries, keys and values of one layer from its input, by the names of its family's own modules."""
    base = model.base_model
    if family == "modernbert":
        module = base.layers[layer]
        return module.attn.Wqkv(module.attn_norm(hidden)).split(32, dim=-1)
    if family == "albert":
        attention = base.encoder.albert_layer_groups[0].albert_layers[0].attention
        return attention.query(hidden), attention.key(hidden), attention.value(hidden)
    if family == "deberta":
        attention = base.encoder.layer[layer].attention.self
        rows = attention.in_proj.weight.view(4, 3, 8, 32)  # each head's q, k and v in turn
        q, k, v = (nn.functional.linear(hidden, rows[:, part].reshape(32, 32)) for part in range(3))
        return q + attention.q_bias, k, v + attention.v_bias
    if family == "deberta-v2":
        attention = base.encoder.layer[layer].attention.self
        return attention.query_proj(hidden), attention.key_proj(hidden), attention.value_proj(hidden)
    if family == "distilbert":
        attention = base.transformer.layer[layer].attention
        return attention.q_lin(hidden), attention.k_lin(hidden), attention.v_lin(hidden)
    if family == "mpnet":
        attention = base.encoder.layer[layer].attention.attn
        return attention.q(hidden), attention.k(hidden), attention.v(hidden)
    attention = base.encoder.layer[layer].attention.self
    return attention.query(hidden), attention.key(hidden), attention.value(hidden)


def eager(family, seed=0, **changes):
    model = tiny(family, seed, **changes)
    twin = type(model)._from_config(model.config, attn_implementation="eager").eval()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("headless", [False, True])
def test_activations_are_the_tensors_of_the_model(family, headless, tmp_path):
    model = tiny(family)
    if headless:
        model.save_pretrained(tmp_path)
        model = AutoModel.from_pretrained(tmp_path).eval()
    inputs = batch()
    activations = [Activation(layer, name) for layer in range(3) for name in ("q", "k", "v", "context", "output")]
    with torch.no_grad():
        recording = record(model, [*activations, Activation(EMBEDDINGS, "output")], logits=False, inputs=inputs)
        outputs = model.base_model(**inputs, output_hidden_states=True)
        hidden = [*outputs.hidden_states[:-1], outputs.last_hidden_state]
        torch.testing.assert_close(recording.activations[Activation(EMBEDDINGS, "output")], hidden[0])
        for layer in range(3):
            torch.testing.assert_close(recording.activations[Activation(layer, "output")], hidden[layer + 1])
            by_hand = projections_by_hand(family, model, layer, hidden[layer])
            for name, expected in zip("qkv", by_hand, strict=True):
                torch.testing.assert_close(recording.activations[Activation(layer, name)], expected)
    assert recording.logits is None


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_maps_are_those_of_the_model(family):
    model, inputs = eager(family), batch((20, 13, 7))
    real = inputs["attention_mask"].bool()
    encoder = Encoder(model)
    with torch.no_grad():
        expected = model(**inputs, output_attentions=True).attentions
        activations = [Activation(layer, name) for layer in range(3) for name in ("q", "k", "v", "context")]
        found = record(model, activations, logits=False, inputs=inputs).activations
        for layer in range(3):
            q, k, v, context = (found[Activation(layer, name)] for name in ("q", "k", "v", "context"))
            scores = attention_scores(encoder, layer, q, k).masked_fill(~real[:, None, None], -torch.inf)
            maps = scores.softmax(dim=-1)
            rows = real[:, None, :, None].expand_as(maps)  # DeBERTa lets padding see nothing at all
            torch.testing.assert_close(maps[rows], expected[layer][rows])
            mixed = (maps @ v.unflatten(-1, (4, 8)).transpose(1, 2)).transpose(1, 2).flatten(-2)
            torch.testing.assert_close(mixed[real], context[real])


@pytest.mark.parametrize("kinds", [["c2p"], ["p2c"], []])
@pytest.mark.parametrize("family", ["deberta", "deberta-v2"])
def test_attention_maps_with_other_disentangled_terms(family, kinds):
    model, inputs = eager(family, pos_att_type=kinds, relative_attention=bool(kinds), share_att_key=False), batch()
    with torch.no_grad():
        found = record(model, [Activation(1, "q"), Activation(1, "k")], logits=False, inputs=inputs).activations
        scores = attention_scores(Encoder(model), 1, found[Activation(1, "q")], found[Activation(1, "k")])
        expected = model(**inputs, output_attentions=True).attentions[1]
    torch.testing.assert_close(scores[2].softmax(dim=-1), expected[2])  # the text without padding


def test_a_convolution_and_groups_of_layers():
    model = tiny("deberta-v2", conv_kernel_size=3, conv_act="gelu")
    hidden = model(**batch(), output_hidden_states=True).hidden_states
    torch.testing.assert_close(
        record(model, [Activation(0, "output")], False, batch()).activations[Activation(0, "output")], hidden[1]
    )
    model = tiny("albert", num_hidden_layers=4, num_hidden_groups=2)
    hidden = model(**batch(), output_hidden_states=True).hidden_states
    for layer in range(4):
        activation = Activation(layer, "output")
        torch.testing.assert_close(
            record(model, [activation], False, batch()).activations[activation], hidden[layer + 1]
        )


@pytest.mark.skipif(RELEASE > 4, reason="ModernBERT unpads up to transformers 4 alone")
def test_unpadded_attention_is_padded_again(monkeypatch):
    """The code path of FlashAttention, with a plain attention over each text instead of its kernel."""

    def unpadded(module, qkv, cu_seqlens, bs, dim, local_attention, **_):
        texts = []
        for start, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
            positions = torch.arange(end - start)
            window = local_attention[0] if local_attention[0] >= 0 else end
            far = (positions[:, None] - positions).abs() > window
            mask = torch.zeros(far.shape).masked_fill(far, -torch.inf)
            arguments = {"attention_mask": mask, "sliding_window_mask": mask, "position_ids": positions[None]}
            arguments |= {"local_attention": (-1, -1), "bs": 1, "dim": dim}
            texts.append(modeling_modernbert.eager_attention_forward(module, qkv[None, start:end], **arguments)[0][0])
        return (torch.cat(texts),)

    model, inputs = tiny("modernbert"), batch((20, 13, 7))
    activations = [
        Activation(EMBEDDINGS, "output"),
        *(Activation(2, name) for name in ("q", "k", "v", "context", "output")),
    ]
    with torch.no_grad():
        padded = record(model, activations, False, inputs).activations
        monkeypatch.setitem(modeling_modernbert.MODERNBERT_ATTENTION_FUNCTION, "flash_attention_2", unpadded)
        model.config._attn_implementation = "flash_attention_2"
        again = record(model, activations, False, inputs).activations
    real = inputs["attention_mask"].bool()
    for activation in activations:
        assert again[activation].shape == padded[activation].shape
        torch.testing.assert_close(again[activation][real], padded[activation][real])


def test_an_unknown_family_is_named_with_those_known():
    with pytest.raises(ValueError, match="'gpt2' is not supported; allowed: bert, roberta"):
        family_of(GPT2Config())


def test_what_can_not_be_supported_says_so():
    with pytest.raises(ValueError, match="inner_group_num: 2; allowed: 1"):
        Encoder(AutoModel.from_config(AlbertConfig(**{**tiny("albert").config.to_dict(), "inner_group_num": 2})))
    config = BertConfig(**{**tiny().config.to_dict(), "position_embedding_type": "relative_key"})
    with pytest.raises(ValueError, match="position_embedding_type: relative_key; allowed: absolute"):
        check_scores(Encoder(BertModel(config)))
