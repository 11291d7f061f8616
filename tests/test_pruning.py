import pytest
import torch
from conftest import batch, tiny

from edgemin_hf import PruningConfig
from edgemin_hf.encoder import Encoder
from edgemin_hf.pruning.structured import random_saliency, select, taylor_saliency
from edgemin_hf.surgery import Selection

SELECTION = Selection(heads=[[0, 3], [1], [0, 1, 2]], neurons=[range(0, 64, 2), range(32), range(1, 64, 2)])


def mask(model, selection):
    """Silences what a selection leaves out, without removing it: the columns that read it become zero."""
    encoder = Encoder(model)
    with torch.no_grad():
        for layer, heads, neurons in zip(encoder.layers, selection.heads, selection.neurons, strict=True):
            gone = [head for head in range(4) if head not in heads]
            layer.attention_output.weight.unflatten(1, (4, -1))[:, gone] = 0
            layer.ffn_out.weight[:, [n for n in range(64) if n not in neurons]] = 0


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
