import pytest
import torch
from transformers import AutoModelForSequenceClassification

from edgemin_hf import load_pruned
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.pruned_shape import plain_releases, pruned_shape, reloads_plainly
from edgemin_hf.modeling.surgery import Selection, cut_like, remove, remove_layers
from edgemin_hf.utils.compat import RELEASE
from tests.helpers.models import FAMILIES, PRUNABLE, batch, tiny
from tests.helpers.optimum import ORTModelForSequenceClassification

HEADS, NEURONS = [[0, 3], [1], [0, 1, 2]], [range(0, 64, 2), range(32), range(1, 64, 2)]
UNEVEN = [range(0, 64, 2), range(48), range(1, 20)]


def selection(model, neurons):
    """What stays of each layer; ALBERT's layers are one."""
    blocks = len(Encoder(model).blocks)
    return Selection(HEADS[:blocks], neurons[:blocks])


def silence(model, selection):
    """Silence what a selection leaves out, without removing it: the columns that read it become zero."""
    with torch.no_grad():
        for block, heads, neurons in zip(Encoder(model).blocks, selection.heads, selection.neurons, strict=True):
            gone = [head for head in range(4) if head not in heads]
            block.attention_output.weight.unflatten(1, (4, -1))[:, gone] = 0
            block.ffn_out.weight[:, [n for n in range(64) if n not in neurons]] = 0


@pytest.mark.parametrize("neurons", [NEURONS, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("family", FAMILIES)
def test_removal_computes_what_masking_computes_and_reloads(family, neurons, tmp_path):
    model, masked = tiny(family), tiny(family)
    chosen = selection(model, neurons)
    silence(masked, chosen)
    remove(model, chosen)
    with torch.no_grad():
        logits = model(**batch()).logits
        torch.testing.assert_close(logits, masked(**batch()).logits, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(logits, tiny(family)(**batch()).logits, atol=1e-3)
        model.save_pretrained(tmp_path)
        again = load_pruned(tmp_path).eval()
        assert type(again) is type(model)
        torch.testing.assert_close(again(**batch()).logits, logits, rtol=1e-6, atol=1e-6)
        assert pruned_shape(again.config) == pruned_shape(model.config)
        even = neurons is NEURONS or family == "albert"
        assert plain_releases(model.config) == ((4,) if even and family in PRUNABLE else ())
        if RELEASE in plain_releases(model.config):
            assert reloads_plainly(model.config)
            plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
            torch.testing.assert_close(plain(**batch()).logits, logits, rtol=1e-6, atol=1e-6)
        else:
            assert not reloads_plainly(model.config)
            with pytest.raises(RuntimeError, match=r"size mismatch|ignore_mismatched_sizes"):
                AutoModelForSequenceClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_releases_reload_even_neurons(family, tmp_path):
    model = tiny(family)
    blocks = len(Encoder(model).blocks)
    remove(model, Selection([range(4)] * blocks, NEURONS[:blocks]))
    assert plain_releases(model.config) == (4, 5)
    model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(plain(**batch()).logits, model(**batch()).logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_removal_twice_keeps_first_numbers(family):
    once, twice = tiny(family), tiny(family)
    blocks = len(Encoder(once).blocks)
    remove(once, Selection([[3]] * blocks, [range(64)] * blocks))
    remove(twice, Selection([[1, 3]] * blocks, [range(64)] * blocks))
    remove(twice, Selection([[1]] * blocks, [range(64)] * blocks))
    assert pruned_shape(once.config) == pruned_shape(twice.config)
    assert pruned_shape(once.config).heads == [[3]] * blocks
    assert getattr(once.config, "pruned_heads", {}) == getattr(twice.config, "pruned_heads", {})
    torch.testing.assert_close(once(**batch()).logits, twice(**batch()).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_cut_like_makes_room_for_the_pruned_weights(family):
    pruned, other = tiny(family), tiny(family, seed=5)
    remove(pruned, selection(pruned, UNEVEN))
    cut_like(other, pruned.config)
    other.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(other(**batch()).logits, pruned(**batch()).logits)


DEEP = [family for family in FAMILIES if family not in ("albert", "modernbert")]


@pytest.mark.parametrize("family", DEEP)
def test_layers_go_as_if_they_were_skipped(family, tmp_path):
    model, skipping = tiny(family), tiny(family)
    remove_layers(model, [0, 2])

    def skip(_module, args, output):
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    Encoder(skipping).layers[1].module.register_forward_hook(skip)
    with torch.no_grad():
        logits = model(**batch()).logits
        torch.testing.assert_close(logits, skipping(**batch()).logits)
        model.save_pretrained(tmp_path)
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(**batch()).logits, logits, rtol=1e-6, atol=1e-6)
    other = tiny(family, seed=5)
    cut_like(other, model.config)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(**batch()).logits, logits)


@pytest.mark.parametrize("family", ["albert", "modernbert"])
def test_layers_that_can_not_go_are_refused(family):
    with pytest.raises(ValueError, match=f"layer_sparsity.*'{family}'"):
        remove_layers(tiny(family), [0])


def test_heads_and_layers_both_gone(tmp_path):
    model = tiny()
    remove(model, selection(model, UNEVEN))
    remove_layers(model, [1, 2])
    assert pruned_shape(model.config).heads == HEADS[1:]
    assert pruned_shape(model.config).neurons == [48, 19]
    model.save_pretrained(tmp_path)
    again = load_pruned(tmp_path).eval()
    torch.testing.assert_close(again(**batch()).logits, model(**batch()).logits, rtol=1e-6, atol=1e-6)


def test_parameters_fall_as_computed():
    model = tiny()
    before = model.num_parameters()
    remove(model, Selection([[0, 1]] * 3, [range(32)] * 3))
    heads = 2 * (3 * (32 * 8 + 8) + 32 * 8)
    neurons = 32 * (32 + 1 + 32)
    assert before - model.num_parameters() == 3 * (heads + neurons)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_checkpoint_gets_smaller_by_what_went(family, tmp_path):
    model, sizes, counts = tiny(family), [], []
    for part in ("whole", "pruned"):
        model.save_pretrained(tmp_path / part)
        sizes.append((tmp_path / part / "model.safetensors").stat().st_size)
        counts.append(sum(tensor.numel() for tensor in model.state_dict().values()))
        if part == "whole":
            remove(model, selection(model, UNEVEN))
    saved = sizes[0] - sizes[1]
    assert saved == pytest.approx(4 * (counts[0] - counts[1]), abs=200)  # the header says shapes in digits
    assert saved > 0.1 * sizes[0]


@pytest.mark.parametrize("family", [family for family in PRUNABLE if family != "ernie"])  # which Optimum can not
def test_optimum_exports_what_plain_transformers_reloads(family, tmp_path, tokenizer):
    model = tiny(family)
    remove(model, selection(model, NEURONS))
    model.save_pretrained(tmp_path / "pruned")
    tokenizer.save_pretrained(tmp_path / "pruned")
    exported = ORTModelForSequenceClassification.from_pretrained(tmp_path / "pruned", export=True)
    inputs = batch() | {"token_type_ids": torch.zeros_like(batch()["input_ids"])}
    names = exported.input_names
    found = exported(**{name: inputs[name] for name in names}).logits
    with torch.no_grad():
        torch.testing.assert_close(found, model(**batch()).logits, rtol=1e-4, atol=1e-5)


def test_mixing_heads_are_refused():
    model = tiny("deberta", talking_head=True)
    with pytest.raises(ValueError, match="talking_head"):
        remove(model, selection(model, NEURONS))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_goes_on_after_removal(family):
    model = tiny(family)
    remove(model, selection(model, NEURONS))
    model.train()
    model(**batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
    for block in Encoder(model).blocks[:-1]:
        assert block.ffn_out.weight.grad.shape == block.ffn_out.weight.shape
        assert block.attention_output.weight.grad.abs().sum() > 0
