import copy
import gc
import weakref

import numpy as np
import pytest
import torch

from edgemin_hf import PruningConfig
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.pruned_shape import pruned_shape
from edgemin_hf.modeling.surgery import Selection, remove, remove_layers
from edgemin_hf.pruning.depth import losses_without, remove_least_layers
from edgemin_hf.pruning.one_shot import prune_layers, prune_units, select_by_saliency
from edgemin_hf.pruning.saliency import Saliency, fisher_saliency, random_saliency, taylor_saliency, weight_saliency
from edgemin_hf.pruning.selection import Parameters, rearranged, select
from edgemin_hf.pruning.tuning import tune_masks
from tests.helpers.models import FAMILIES, batch, tiny

LABELS = torch.tensor([0, 2, 1])


def loss_of(model):
    return lambda inputs: torch.nn.functional.cross_entropy(model(**inputs).logits, LABELS)


def silence(model, selection):
    with torch.no_grad():
        for block, heads, neurons in zip(Encoder(model).blocks, selection.heads, selection.neurons, strict=True):
            block.attention_output.weight.unflatten(1, (4, -1))[:, [h for h in range(4) if h not in heads]] = 0
            block.ffn_out.weight[:, [n for n in range(64) if n not in neurons]] = 0


def gradients_by_hand(model, layer):
    """The gradients of explicit masks of one layer's units, an example at a time."""
    block, rows = Encoder(model).layers[layer], []
    for inputs in (batch(), batch(seed=1)):
        for example in range(3):
            masks = torch.ones(4, requires_grad=True), torch.ones(64, requires_grad=True)
            hooks = [
                module.register_forward_pre_hook(lambda _, args, m=m, n=n: (args[0] * m.repeat_interleave(n),))
                for module, m, n in ((block.attention_output, masks[0], 8), (block.ffn_out, masks[1], 1))
            ]
            one = {name: value[example : example + 1] for name, value in inputs.items()}
            torch.nn.functional.cross_entropy(model(**one).logits, LABELS[example : example + 1]).backward()
            rows.append((masks[0].grad, masks[1].grad))
            for hook in hooks:
                hook.remove()
    return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])


@pytest.mark.parametrize("family", ["bert", "deberta", "mpnet", "modernbert"])
def test_saliency_is_of_the_gradients_of_masks(family):
    model = tiny(family)
    heads, neurons = gradients_by_hand(model, 1)
    batches = [batch(), batch(seed=1)]
    taylor, fisher = (measure(model, batches, loss_of(model)) for measure in (taylor_saliency, fisher_saliency))
    torch.testing.assert_close(taylor.heads[1].float(), heads.abs().sum(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(taylor.neurons[1].float(), neurons.abs().sum(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fisher.heads[1].float(), heads.square().sum(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fisher.neurons[1].float(), neurons.square().sum(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fisher.gradients[1][1], neurons, rtol=1e-3, atol=1e-5)
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("measure", [taylor_saliency, fisher_saliency])
def test_no_graph_outlives_the_measurement(measure):
    model, seen = tiny(), []
    Encoder(model).layers[1].ffn_out.register_forward_pre_hook(lambda _, args: seen.append(weakref.ref(args[0])))
    measure(model, [batch(), batch(seed=1)], loss_of(model))
    gc.collect()
    assert len(seen) == 2
    assert all(reference() is None for reference in seen)


@pytest.mark.parametrize("measure", [taylor_saliency, weight_saliency, fisher_saliency])
def test_saliency_ignores_padding(measure):
    model = tiny()
    narrow = measure(model, [batch()], loss_of(model))
    wide = measure(model, [batch(pad_to=20)], loss_of(model))
    for ours, theirs in zip([*narrow.heads, *narrow.neurons], [*wide.heads, *wide.neurons], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_loss_that_reaches_no_layer_is_refused():
    model = tiny()
    with pytest.raises(ValueError, match="saliency: taylor, but the loss does not reach layer 1"):
        taylor_saliency(model, [batch()], lambda inputs: model.classifier.weight.sum())


@pytest.mark.parametrize("saliency", [taylor_saliency, weight_saliency, fisher_saliency])
def test_what_does_nothing_goes_first(saliency):
    model = tiny()
    silence(model, Selection([[1, 3]] * 3, [range(32, 64)] * 3))
    config = PruningConfig(head_sparsity=0.5, ffn_sparsity=0.5)
    chosen = select(model, saliency(model, [batch()], loss_of(model)), config)
    assert chosen.heads == [[1, 3]] * 3
    assert chosen.neurons == [list(range(32, 64))] * 3


def test_random_saliency_follows_its_seed():
    first, again, other = (random_saliency(tiny(), seed) for seed in (0, 0, 1))
    assert torch.equal(first.neurons[2], again.neurons[2])
    assert not torch.equal(first.neurons[2], other.neurons[2])


def test_counts():
    config = PruningConfig(head_sparsity=0.5, ffn_sparsity=0.667, layer_sparsity=0.5)
    assert (config.kept_heads(12), config.kept_neurons(1536), config.kept_layers(6)) == (6, 512, 3)
    assert (config.kept_heads(12, 0.5), config.kept_neurons(1536, 0.5)) == (9, 1024)
    assert PruningConfig().kept_neurons(100) == 100
    assert PruningConfig(head_sparsity=0.99, ffn_sparsity=0.99).kept_heads(12) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"head_sparsity": 1.0}, {"ffn_sparsity": -0.1}, {"layer_sparsity": 2}, {"saliency": "luck"},
        {"saliency_examples": 0}, {"schedule": "slow"}, {"scope": "all"}, {"rounds": 0}, {"start": 0.6},
        {"target_parameters": 0}, {"head_sparsity": 0.5, "target_parameters": 100},
        {"target_parameters": 5, "target_latency_ms": 1.0}, {"tune_masks": True, "schedule": "cubic"},
        {"saliency": "magnitude", "scope": "model"},
    ],
)  # fmt: skip
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PruningConfig(**wrong)


def test_progress_of_the_schedules():
    cubic = PruningConfig(schedule="cubic", start=0.2, end=0.6, rounds=4)
    shares = [cubic.progress(done) for done in (0, 0.2, 0.29, 0.3, 0.4, 0.5, 0.6, 1)]
    np.testing.assert_allclose(shares, [0, 0, 0, 1 - 0.75**3, 1 - 0.5**3, 1 - 0.25**3, 1, 1])
    even = PruningConfig(schedule="iterative", start=0.2, end=0.6, rounds=4)
    np.testing.assert_allclose([even.progress(done) for done in (0.3, 0.4, 0.5, 0.6)], [0.25, 0.5, 0.75, 1])
    assert PruningConfig().progress(0) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_as_they_fall(family):
    model = tiny(family)
    costs, blocks = Parameters(model), Encoder(model).blocks
    before = costs.fixed + sum(costs.heads(i, 4) + costs.neurons(i, 64) for i in range(len(blocks)))
    assert before == model.num_parameters()
    remove(model, Selection([[0, 2, 3]] * len(blocks), [range(40)] * len(blocks)))
    after = costs.fixed + sum(costs.heads(i, 3) + costs.neurons(i, 40) for i in range(len(blocks)))
    assert after == model.num_parameters()


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_a_budget_of_parameters_is_met_closely_by_what_is_cheapest(scope):
    model = tiny(intermediate_size=256)
    target = round(0.6 * model.num_parameters())
    config = PruningConfig(target_parameters=target, scope=scope)

    def select_units(batches):
        return select_by_saliency(model, config, batches, loss_of(model), Parameters(model))

    prune_units(model, config, lambda: [batch()], select_units, None)
    step = 3 * max(32 * (2 * 32 + 1), 4 * 32 * 8 + 3 * 8)
    assert target - step < model.num_parameters() <= target
    shape = pruned_shape(model.config)
    assert (len(set(shape.neurons)) == 1) == (scope == "layer")


def test_a_budget_prefers_to_remove_what_has_no_saliency():
    model = tiny(intermediate_size=256)
    saliency = random_saliency(model, 0)
    saliency.neurons[1][:] = 0
    config = PruningConfig(target_parameters=model.num_parameters() - 4 * 32 * 65, scope="model")
    chosen = select(model, saliency, config, Parameters(model))
    assert [len(neurons) for neurons in chosen.neurons] == [256, 128, 256]
    assert [len(heads) for heads in chosen.heads] == [4, 4, 4]


def test_a_budget_that_is_too_small_names_the_least():
    model = tiny()
    config = PruningConfig(target_parameters=10)
    with pytest.raises(ValueError, match=r"target_parameters: 10; allowed: \d+"):
        select(model, random_saliency(model, 0), config, Parameters(model))


def test_scope_model_removes_the_least_salient_anywhere():
    model = tiny()
    saliency = Saliency([torch.arange(4.0), 10 + torch.arange(4.0), 20 + torch.arange(4.0)], [torch.rand(64)] * 3)
    chosen = select(model, saliency, PruningConfig(head_sparsity=0.5, scope="model"))
    assert chosen.heads == [[3], [1, 2, 3], [0, 1, 2, 3]] or chosen.heads == [[3], [3], [0, 1, 2, 3]]
    assert sum(map(len, chosen.heads)) == 6


def test_rearrangement_never_hurts_and_finds_what_cancels():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(50, 12, generator=generator)
    gradients /= gradients.norm(dim=0)
    gradients[:, 3] *= 0.9
    gradients[:, 7] = -1.1 * gradients[:, 3] / 0.9  # the most salient of all, but beside 3 it costs nothing

    def cost(kept):
        gone = [unit for unit in range(12) if unit not in kept]
        return float(gradients[:, gone].double().sum(1).square().sum())

    kept = sorted(gradients.square().sum(0).topk(10).indices.tolist())
    better = rearranged(kept, gradients)
    assert len(better) == 10
    assert cost(better) < cost(kept)
    assert 7 in kept
    assert not {3, 7} & set(better)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "deberta-v2", "electra"])
def test_tuned_masks_are_the_least_squares_solution(family):
    torch.manual_seed(0)
    whole = tiny(family)
    model = copy.deepcopy(whole)
    chosen = Selection([[0, 1, 3]] * 3, [range(0, 64, 2)] * 3)
    remove(model, chosen)
    before = Encoder(copy.deepcopy(model)).blocks[0].attention_output.weight
    batches = [batch(lengths=(9, 30, 20, 25, 28), seed=seed) for seed in range(4)]

    def forward(model, inputs):
        return model(**inputs)

    tune_masks(model, whole, batches, forward)
    masks = (Encoder(model).blocks[0].attention_output.weight / before).unflatten(1, (3, 8)).mean((0, 2)).double()
    # The first layer's stream is the same in both models: an ordinary least-squares problem.
    rows, targets = [], []
    source = Encoder(whole).blocks[0].attention_output
    for inputs in batches:
        seen = []
        hook = source.register_forward_hook(lambda _, args, output, seen=seen: seen.extend([args[0], output]))
        whole(**inputs)
        hook.remove()
        real = inputs["attention_mask"].bool()
        context, output = seen[0][real].double(), seen[1][real].double()
        columns = source.weight.double().unflatten(1, (4, 8))
        parts = torch.einsum("tus,wus->twu", context.unflatten(1, (4, 8)), columns)[..., [0, 1, 3]]
        rows.append(parts.flatten(0, 1))
        targets.append((output - source.bias.double()).flatten())
    solution = torch.linalg.lstsq(torch.cat(rows), torch.cat(targets)[:, None]).solution.squeeze()
    torch.testing.assert_close(masks, solution, rtol=2e-2, atol=2e-2)


def test_tuning_leaves_an_unpruned_model_as_it_is():
    whole = tiny()
    model = copy.deepcopy(whole)
    tune_masks(model, whole, [batch(lengths=(9, 30, 20))], lambda model, inputs: model(**inputs))
    torch.testing.assert_close(model(**batch()).logits, whole(**batch()).logits, rtol=1e-4, atol=1e-4)


def test_layers_go_by_the_loss_without_them():
    model = tiny()
    expected = []
    for layer in range(3):
        smaller = copy.deepcopy(model)
        remove_layers(smaller, [other for other in range(3) if other != layer])
        with torch.no_grad():
            expected.append(float(loss_of(smaller)(batch())))
    losses = losses_without(model, [batch()], loss_of(model))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    kept = remove_least_layers(model, 2, [batch()], loss_of(model))
    assert kept == [layer for layer in range(3) if layer != int(np.argmin(expected))]
    assert model.config.num_hidden_layers == 2
    np.testing.assert_allclose(float(loss_of(model)(batch())), min(expected), rtol=1e-6)


def test_share_of_layers():
    model = tiny()
    prune_layers(model, PruningConfig(layer_sparsity=0.6), [batch()], loss_of(model))
    assert model.config.num_hidden_layers == 1
