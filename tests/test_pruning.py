import pytest
import torch
from conftest import PRUNABLE, batch, tiny
from transformers import AutoModelForSequenceClassification

from edgemin_hf import PruningConfig
from edgemin_hf.encoder import Encoder
from edgemin_hf.families import shape_of
from edgemin_hf.pruning.structured import random_saliency, select, taylor_saliency
from edgemin_hf.pruning.surgery import Selection, remove, resize_like

SELECTION = Selection(heads=[[0, 3], [1], [0, 1, 2]], neurons=[range(0, 64, 2), range(32), range(1, 64, 2)])


def mask(model, selection):
    """Silences what a selection leaves out, without removing it: the columns that read it become zero."""
    encoder = Encoder(model)
    with torch.no_grad():
        for layer, heads, neurons in zip(encoder.layers, selection.heads, selection.neurons, strict=True):
            gone = [head for head in range(4) if head not in heads]
            layer.attention_output.weight.unflatten(1, (4, -1))[:, gone] = 0
            layer.ffn_out.weight[:, [n for n in range(64) if n not in neurons]] = 0


@pytest.mark.parametrize("family", PRUNABLE)
def test_removal_computes_what_masking_computes_and_reloads(family, tmp_path):
    model, masked = tiny(family), tiny(family)
    mask(masked, SELECTION)
    remove(model, SELECTION)
    with torch.no_grad():
        logits = model(**batch()).logits
        torch.testing.assert_close(logits, masked(**batch()).logits, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(logits, tiny(family)(**batch()).logits, atol=1e-3)
        model.save_pretrained(tmp_path)
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(**batch()).logits, logits, rtol=0, atol=0)
    assert shape_of(again.config).intermediate_size == 32
    assert [layer.num_heads for layer in Encoder(again).layers] == [2, 1, 3]


def test_parameters_fall_as_computed():
    model = tiny()
    before = model.num_parameters()
    remove(model, Selection([[0, 1]] * 3, [range(32)] * 3))
    heads = 2 * (3 * (32 * 8 + 8) + 32 * 8)
    neurons = 32 * (32 + 1 + 32)
    assert before - model.num_parameters() == 3 * (heads + neurons)


def test_removal_twice_keeps_first_numbers():
    once, twice = tiny(), tiny()
    remove(once, Selection([[3]] * 3, [range(64)] * 3))
    remove(twice, Selection([[1, 3]] * 3, [range(64)] * 3))
    remove(twice, Selection([[1]] * 3, [range(64)] * 3))
    assert once.config.pruned_heads == twice.config.pruned_heads == {layer: [0, 1, 2] for layer in range(3)}
    torch.testing.assert_close(once(**batch()).logits, twice(**batch()).logits)


@pytest.mark.parametrize("family", PRUNABLE)
def test_resize_like_makes_room_for_the_pruned_weights(family):
    pruned, other = tiny(family), tiny(family, seed=5)
    remove(pruned, SELECTION)
    resize_like(other, pruned.config)
    other.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(other(**batch()).logits, pruned(**batch()).logits)


def test_mpnet_loses_neurons_but_no_heads():
    model = tiny("mpnet")
    remove(model, Selection([range(4)] * 3, [range(32)] * 3))
    assert shape_of(model.config).intermediate_size == 32
    with pytest.raises(ValueError, match="'mpnet', whose layers can't lose heads"):
        remove(model, Selection([[0]] * 3, [range(32)] * 3))
    with pytest.raises(ValueError, match="mpnet"):
        select(model, random_saliency(model, 0), PruningConfig(head_sparsity=0.5))


def test_layers_of_different_width_are_refused():
    with pytest.raises(ValueError, match="the same number in each"):
        remove(tiny(), Selection([range(4)] * 3, [range(32), range(32), range(31)]))


def loss_of(model):
    labels = torch.tensor([0, 2, 1])

    def loss(inputs):
        return torch.nn.functional.cross_entropy(model(**inputs).logits, labels)

    return loss


def test_saliency_is_the_gradient_of_a_mask_of_each_example():
    model = tiny()
    measured = taylor_saliency(model, [batch(), batch(seed=1)], loss_of(model))
    labels = torch.tensor([0, 2, 1])
    heads, neurons = torch.zeros(4), torch.zeros(64)
    layer = Encoder(model).layers[1]
    for inputs in (batch(), batch(seed=1)):
        for example in range(3):
            masks = torch.ones(4, requires_grad=True), torch.ones(64, requires_grad=True)
            hooks = [
                module.register_forward_pre_hook(lambda _, args, m=m, n=n: (args[0] * m.repeat_interleave(n),))
                for module, m, n in ((layer.attention_output, masks[0], 8), (layer.ffn_out, masks[1], 1))
            ]
            one = {name: value[example : example + 1] for name, value in inputs.items()}
            torch.nn.functional.cross_entropy(model(**one).logits, labels[example : example + 1]).backward()
            heads += masks[0].grad.abs()
            neurons += masks[1].grad.abs()
            for hook in hooks:
                hook.remove()
    torch.testing.assert_close(measured[1][0].float(), heads, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(measured[1][1].float(), neurons, rtol=1e-4, atol=1e-5)


def test_saliency_ignores_padding():
    model = tiny()
    narrow = taylor_saliency(model, [batch()], loss_of(model))
    wide = taylor_saliency(model, [batch(pad_to=20)], loss_of(model))
    for ours, theirs in zip(narrow, wide, strict=True):
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-6)


def test_what_does_nothing_goes_first():
    model = tiny()
    mask(model, Selection([[1, 3]] * 3, [range(32, 64)] * 3))
    saliency = taylor_saliency(model, [batch()], loss_of(model))
    chosen = select(model, saliency, PruningConfig(head_sparsity=0.5, ffn_sparsity=0.5))
    assert chosen.heads == [[1, 3]] * 3
    assert chosen.neurons == [list(range(32, 64))] * 3


def test_counts():
    config = PruningConfig(head_sparsity=0.5, ffn_sparsity=0.667)
    assert (config.kept_heads(12), config.kept_neurons(1536)) == (6, 512)
    assert PruningConfig().kept_neurons(100) == 100
    assert PruningConfig(head_sparsity=0.99, ffn_sparsity=0.99).kept_heads(12) == 1
    for wrong in ({"head_sparsity": 1.0}, {"ffn_sparsity": -0.1}, {"saliency": "luck"}, {"saliency_examples": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PruningConfig(**wrong)


def test_random_saliency_follows_its_seed():
    first, again, other = (random_saliency(tiny(), seed) for seed in (0, 0, 1))
    assert torch.equal(first[2][1], again[2][1])
    assert not torch.equal(first[2][1], other[2][1])
