import itertools

import numpy as np
import onnx
import pytest
import torch

import edgemin_hf.training.pruning
from edgemin_hf import PruningConfig, TaskDistillationConfig, create_student
from edgemin_hf.benchmark import layer_latency
from edgemin_hf.benchmark.layer_latency import LatencyTable, measure_latency_table
from edgemin_hf.export.onnx_graph import write_graph
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.pruned_shape import pruned_shape
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.pruning.saliency import random_saliency
from edgemin_hf.pruning.selection import select
from tests.helpers.models import tiny
from tests.helpers.training import assert_same, dataset, make, weights

BY_HEADS = [(1, 4.0), (2, 5.0), (3, 5.5), (4, 7.0)]
BY_NEURONS = [(32, 3.0), (64, 3.5), (128, 5.0), (256, 7.0)]


def table(by_heads=BY_HEADS, by_neurons=BY_NEURONS, calls=(1, 1, 1)):
    rows = (torch.tensor(rows, dtype=torch.float64) for rows in (by_heads, by_neurons))
    return LatencyTable(*rows, torch.tensor(calls))


def predicted(costs, shape):
    return costs.fixed + sum(
        costs.heads(layer, heads) + costs.neurons(layer, neurons) for layer, (heads, neurons) in enumerate(shape)
    )


def shape_of(selection):
    return [(len(heads), len(neurons)) for heads, neurons in zip(selection.heads, selection.neurons, strict=True)]


@pytest.mark.parametrize("calls", [(1, 1, 1), (3,), (2, 1)])
def test_what_was_measured_is_predicted(calls):
    costs = table(calls=calls)
    for heads, ms in BY_HEADS:
        assert predicted(costs, [(heads, 256)] * len(calls)) == pytest.approx(ms, abs=1e-12)
    for neurons, ms in BY_NEURONS:
        assert predicted(costs, [(4, neurons)] * len(calls)) == pytest.approx(ms, abs=1e-12)


def test_between_measured_counts_it_is_linear_and_over_layers_it_adds_up():
    costs = table()
    assert predicted(costs, [(4, 96)] * 3) == pytest.approx(3.5 + (5 - 3.5) / 2, abs=1e-12)
    mixed = predicted(costs, [(1, 256), (4, 64), (3, 160)])
    # By hand: of 7 ms the first layer saves a third of 7 - 4, the next of 7 - 3.5, the last of 7 - 5.5 and 7 - 5.5.
    assert mixed == pytest.approx(7 - 3 / 3 - 3.5 / 3 - 1.5 / 3 - 1.5 / 3, abs=1e-12)
    assert costs.fixed == pytest.approx(4 + 3 - 7, abs=1e-12)


def test_more_never_costs_less_even_where_it_was_measured_so():
    costs = table([(1, 4.0), (2, 6.0), (3, 5.0), (4, 5.9)], [(32, 3.0), (64, 5.0), (128, 4.0), (256, 7.0)])
    for cost, counts in ((costs.heads, range(1, 5)), (costs.neurons, range(32, 257))):
        values = [cost(1, count) for count in counts]
        assert values[0] == 0
        assert all(after >= before for before, after in itertools.pairwise(values))
    assert costs.heads(0, 4) == pytest.approx((6 - 4) / 3)
    assert predicted(costs, [(4, 256)] * 3) == pytest.approx(7)


def test_shared_layers_count_each_time_they_run():
    costs, single = table(calls=(3, 1)), table(calls=(1, 1, 1, 1))
    assert costs.heads(0, 3) == pytest.approx(3 * costs.heads(1, 3))
    assert costs.heads(0, 3) == pytest.approx(3 * single.heads(0, 3))
    assert predicted(costs, [(2, 64), (3, 96)]) == pytest.approx(predicted(single, [(2, 64)] * 3 + [(3, 96)]))


@pytest.mark.parametrize("scope", ["layer", "model"])
@pytest.mark.parametrize("target", [0.001, 1.3, 4.5, 6.9, 7.0])
def test_a_budget_is_met_within_one_step(scope, target, caplog):
    model, costs = tiny(intermediate_size=256), table()
    config = PruningConfig(target_latency_ms=target, scope=scope)
    with caplog.at_level("INFO", "edgemin_hf"):
        shape = shape_of(select(model, random_saliency(model, 0), config, costs))
    step = max(
        max(costs.heads(0, count + 1) - costs.heads(0, count) for count in (1, 2, 3)),
        max(costs.neurons(0, count + 32) - costs.neurons(0, count) for count in range(32, 256, 32)),
    )
    layers = 3 if scope == "layer" else 1
    assert target - layers * step < predicted(costs, shape) <= target
    assert f"target_latency_ms: {predicted(costs, shape):.6g} predicted of 7, for a target of {target:g}" in caplog.text
    if target == 7:
        assert shape == [(4, 256)] * 3


def test_the_least_budget_is_allowed_and_a_smaller_one_names_it():
    model = tiny(intermediate_size=256)
    costs = table([(1, 5.0123456), (4, 7.0)], [(32, 3.1), (256, 7.0)])
    saliency = random_saliency(model, 0)
    with pytest.raises(ValueError, match=r"target_latency_ms: 1; allowed: 1\.113 or more"):
        select(model, saliency, PruningConfig(target_latency_ms=1.0), costs)
    for least in (1.113, costs.fixed):
        shape = shape_of(select(model, saliency, PruningConfig(target_latency_ms=least), costs))
        assert predicted(costs, shape) <= least
    assert shape == [(1, 32)] * 3


def sizes_in(graph, layer):
    """Width of the context and of the feed-forward neurons in a graph's matrices."""
    made = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        for name in node.input:
            if node.op_type == "MatMul" and name in made and f"layer.{layer}/" in node.name:
                found[node.name.partition(f"layer.{layer}/")[2]] = made[name]
    return found


@pytest.fixture
def passes(monkeypatch):
    """Run each graph once for its output's shape, and gives times that follow from the shape alone."""
    seen = []

    def fake(runners, inputs, rounds, progress):
        for shape, runner in runners.items():
            seen.append(runner.run(runner.prepare(inputs[shape][0])).shape)
        assert all(runner.graph.session.get_session_options().intra_op_num_threads == 1 for runner in runners.values())
        return {(heads, neurons): np.array([9.0, 1 + heads + neurons / 32, 0.0]) for heads, neurons in runners}

    monkeypatch.setattr(layer_latency, "measure_latency", fake)
    return seen


@pytest.mark.long
@pytest.mark.usefixtures("passes")
def test_measured_graphs_have_their_shape(monkeypatch):
    graphs = []

    def write_and_keep(model, path):
        write_graph(model, path)
        graphs.append(onnx.load(path).graph)

    monkeypatch.setattr(layer_latency, "write_graph", write_and_keep)
    measure_latency_table(tiny(vocab_size=5000, intermediate_size=128))
    shapes = [(1, 128), (2, 128), (3, 128), (4, 32), (4, 64), (4, 96), (4, 128)]
    for graph, (heads, neurons) in zip(graphs, shapes, strict=True):
        for layer in range(3):
            sizes = sizes_in(graph, layer)
            for part in ("query", "key", "value"):
                assert sizes[f"attention/self/{part}/MatMul"] == (32, 8 * heads)
            assert sizes["attention/output/dense/MatMul"] == (8 * heads, 32)
            assert sizes["intermediate/dense/MatMul"] == (32, neurons)
            assert sizes["output/dense/MatMul"] == (neurons, 32)
        words = [tensor for tensor in graph.initializer if "word_embeddings" in tensor.name]
        assert [tuple(tensor.dims) for tensor in words] == [(1024, 32)]


@pytest.mark.long
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "albert", "deberta", "modernbert"])
def test_every_kind_of_family_is_measured(family, passes):
    model = tiny(family, num_hidden_layers=2, max_position_embeddings=140)
    before = torch.random.get_rng_state()
    costs = measure_latency_table(model)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert passes == [(1, 128, 32)] * 5  # 1, 2, 3 and 4 heads, and all of them with half the neurons
    calls = [2] if family == "albert" else [1, 1]
    assert costs.state()["calls"].tolist() == calls
    assert predicted(costs, [(4, 64)] * len(calls)) == pytest.approx(1 + 4 + 2)
    assert predicted(costs, [(2, 64)] * len(calls)) == pytest.approx(1 + 2 + 2)
    assert predicted(costs, [(4, 32)] * len(calls)) == pytest.approx(1 + 4 + 1)


def test_groups_of_shared_layers_are_counted(passes):
    costs = measure_latency_table(tiny("albert", num_hidden_layers=3, num_hidden_groups=2))
    assert costs.state()["calls"].tolist() == [2, 1]
    assert set(passes) == {(1, 66, 32)}  # it has no more positions


def test_the_table_of_a_pruned_model_is_of_its_widths_before(passes):
    model = tiny(intermediate_size=128)
    remove(model, Selection([[0], [1, 2], [0, 1, 2, 3]], [range(32), range(96), range(64)]))
    state = measure_latency_table(model).state()
    assert state["by_heads"][:, 0].tolist() == [1, 2, 3, 4]
    assert state["by_neurons"][:, 0].tolist() == [32, 64, 96]
    chosen = select(
        model, random_saliency(model, 0), PruningConfig(target_latency_ms=6.0, scope="model"), LatencyTable(**state)
    )
    assert predicted(LatencyTable(**state), shape_of(chosen)) <= 6


def noisy_tables():
    """Each measurement gives another table, and so another choice."""
    yield table(calls=(1, 1))
    yield table([(1, 6.9), (4, 7.0)], calls=(1, 1))


@pytest.mark.long
@pytest.mark.parametrize("checkpoint", [3, 6])
def test_a_resumed_run_goes_on_with_its_table(tmp_path, tokenizer, monkeypatch, checkpoint):
    tables = noisy_tables()
    monkeypatch.setattr(edgemin_hf.training.pruning, "measure_latency_table", lambda model: next(tables))
    config = PruningConfig(target_latency_ms=2.5, schedule="cubic", scope="model", start=0.25, end=0.9, rounds=4)

    def trainer(folder):
        return make(
            folder, tokenizer, create_student(tiny(intermediate_size=256), 2), config=TaskDistillationConfig(),
            max_steps=8, save_strategy="steps", save_steps=3, pruning_config=config, data=dataset(),
        )  # fmt: skip

    whole, resumed = trainer(tmp_path / "whole"), trainer(tmp_path / "resumed")
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{checkpoint}"))
    assert pruned_shape(resumed.model.config) == pruned_shape(whole.model.config)
    assert_same(weights(resumed), weights(whole))
    assert next(tables) is not None  # measured once
    shape = [(block.num_heads, block.num_neurons) for block in Encoder(whole.model).blocks]
    assert predicted(table(calls=(1, 1)), shape) <= 2.5


def test_before_training_the_trainer_prunes_to_a_budget(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(edgemin_hf.training.pruning, "measure_latency_table", lambda model: table(calls=(1, 1)))
    model = create_student(tiny(intermediate_size=256), 2)
    config = PruningConfig(target_latency_ms=3.0, saliency_examples=8)
    trainer = make(tmp_path, tokenizer, model, config=TaskDistillationConfig(), pruning_config=config)
    trainer.prepare()
    shape = [(block.num_heads, block.num_neurons) for block in Encoder(trainer.model).blocks]
    assert 2 < predicted(table(calls=(1, 1)), shape) <= 3
