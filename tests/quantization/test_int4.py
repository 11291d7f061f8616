"""INT4: the grid of ONNX Runtime's operators, modules that train on it, and graphs that compute what was trained."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.export.fidelity import FidelityError, check_fidelity
from edgemin_hf.export.graph import bytes_by_component, count_parameters, optimized_graph, quantized_nodes, size_bytes
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.quantization.int4 import FakeInt4Linear, fake_quantize_groups, group_integers
from edgemin_hf.quantization.integer import integer_copy, quantized_weights
from edgemin_hf.quantization.native import (
    FakeQuantEmbedding,
    FakeQuantLinear,
    calibrate,
    plain_state_dict,
    prepare_qat,
)
from edgemin_hf.quantization.packed import PackedEmbedding, PackedLinear, pack, unpack
from tests.helpers.models import batch, sentences, tiny
from tests.helpers.optimum import ORTConfig, ORTModelForSequenceClassification

TEXTS = [text for text, _ in sentences(24, seed=7)]
INT4 = {"weights": "int4", "embeddings": "int4"}


def numpy_grid(weight, group_size):
    """The grid by its definition, group by group, in float64."""
    grid = np.zeros(weight.shape)
    for row, values in enumerate(weight.astype(np.float64)):
        for start in range(0, len(values), group_size):
            group = values[start : start + group_size]
            scale = group[np.abs(group).argmax()] / -8
            if scale != 0:
                grid[row, start : start + group_size] = np.clip(np.round(group / scale), -8, 7) * scale
    return grid


def trained(family="bert", tokenizer=None, **settings):
    """A pruned model, as quantisation-aware training leaves it: widths that no group divides are among its own."""
    model = tiny(family)
    blocks = len(Encoder(model).blocks)
    remove(model, Selection([[0, 1], [3], [1, 2, 3]][:blocks], [range(width) for width in (24, 64, 40)[:blocks]]))
    prepare_qat(model, QuantizationConfig(**{**INT4, **settings}))
    batches = [batch()]
    if tokenizer is not None:
        batches.append(dict(tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)))
    calibrate(model, batches, lambda inputs: model(**inputs))
    return model.eval()


def packed_tables(graph):
    """Tables whose bytes are halved after they were read, rather than unpacked when the graph is loaded."""
    return sum(node.op_type == "BitShift" for node in onnx.load(graph).graph.node)


def kinds(model):
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    tables = [module for module in model.modules() if isinstance(module, FakeQuantEmbedding)]
    return len(linears), len(tables)


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("width", [24, 32, 40, 96, 200])
def test_the_grid_is_that_of_numpy(width, group_size):
    torch.manual_seed(0)
    weight = torch.randn(7, width)
    weight[3] = 0
    weight[4, 0] = weight[4].abs().max() + 1
    weight[4, 1] = -weight[4, 0]  # as far out on the side that has a step less
    found = fake_quantize_groups(weight, group_size)
    expected = numpy_grid(weight.numpy(), group_size)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    steps = group_integers(weight, group_size)[1].abs().repeat_interleave(group_size, 1).squeeze(-1)[:, :width]
    rest = (found - weight).abs() / steps
    assert rest[[0, 1, 2, 5, 6]].max() < 1 + 1e-6
    assert rest[4, 1] == pytest.approx(1), "clipped by a step, not more"
    assert torch.equal(found[4, 0], weight[4, 0]), "the largest value is exact"


@pytest.mark.parametrize("width", [24, 96])
def test_quantising_twice_changes_nothing(width):
    torch.manual_seed(1)
    once = fake_quantize_groups(torch.randn(50, width), 32)
    assert torch.equal(fake_quantize_groups(once, 32), once)
    assert len(once[0, :24].unique()) <= 16


def test_rounding_is_better_than_with_a_scale_that_leaves_an_integer_unused():
    torch.manual_seed(2)
    weight = torch.randn(200, 32)
    scale = weight.abs().amax(-1, keepdim=True) / 7
    symmetric = torch.round(weight / scale) * scale
    error, other = (((grid - weight) ** 2).mean() for grid in (fake_quantize_groups(weight, 32), symmetric))
    assert error < 0.85 * other


def test_gradients_pass_straight_through():
    torch.manual_seed(0)
    layer = FakeInt4Linear(nn.Linear(40, 3), 32)
    x = torch.randn(5, 40, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(3, 40))
    grid = torch.from_numpy(numpy_grid(layer.weight.detach().numpy(), 32)).float()
    torch.testing.assert_close(x.grad, grid.sum(0).expand(5, 40), atol=1e-6, rtol=1e-5)
    table = FakeQuantEmbedding(nn.Embedding(10, 24, padding_idx=0), 32)
    table(torch.tensor([3, 0])).sum().backward()
    assert table.weight.grad[3].eq(1).all()
    assert table.weight.grad[0].eq(0).all(), "padding is not trained"


def test_integers_share_bytes_the_first_below():
    integers = torch.tensor([[-8.0, 7.0, 0.0, -1.0]])
    assert pack(integers).tolist() == [[0xF0, 0x78]]
    assert torch.equal(unpack(pack(integers)), integers)


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("width", [24, 32, 40, 96])
def test_packed_forms_hold_what_was_trained(width, group_size):
    torch.manual_seed(0)
    linear = FakeInt4Linear(nn.Linear(width, 5), group_size)
    packed, x = PackedLinear(linear), torch.randn(2, 3, width)
    assert packed.weight.shape == (5, -(-width // group_size), group_size // 2)
    torch.testing.assert_close(packed(x), linear(x), atol=1e-5, rtol=1e-5)
    table = FakeQuantEmbedding(nn.Embedding(9, width), group_size)
    ids = torch.tensor([[3, 0], [8, 3]])
    assert torch.equal(PackedEmbedding(table, group_size)(ids), table(ids))


@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert"])
def test_parameters_stay_and_the_state_loads_back_into_the_plain_model(family):
    model = tiny(family)
    ids = {id(parameter) for parameter in model.parameters()}
    prepare_qat(model, QuantizationConfig(**INT4))
    assert ids == {id(parameter) for parameter in model.parameters()}
    assert quantized_weights(model) == "int4"
    assert kinds(model)[0] == sum(isinstance(module, FakeInt4Linear) for module in model.modules())
    again = tiny(family, seed=9)
    again.load_state_dict(plain_state_dict(model))
    torch.testing.assert_close(again(**batch()).logits, tiny(family)(**batch()).logits)
    difference = (model(**batch()).logits - again(**batch()).logits).abs().mean() / again(**batch()).logits.std()
    assert 1e-3 < difference < 1


def test_what_was_prepared_otherwise_is_prepared_anew():
    model = trained()
    prepare_qat(model, QuantizationConfig("int8", "int8"))
    assert quantized_weights(model) == "int8"
    assert all(module.group_size is None for module in model.modules() if isinstance(module, FakeQuantEmbedding))
    prepare_qat(model, QuantizationConfig("int4", "int4", group_size=64))
    assert {module.group_size for module in model.modules() if hasattr(module, "group_size")} == {64}
    assert quantized_weights(tiny()) is None


def test_a_table_that_can_not_be_packed_is_named():
    model = tiny()
    model.bert.embeddings.word_embeddings = nn.Embedding(70, 33)
    with pytest.raises(ValueError, match="embeddings: int4 for word_embeddings, 33 wide"):
        prepare_qat(model, QuantizationConfig(**INT4))


@pytest.mark.parametrize("wrong", [{"group_size": 48}, {"group_size": 16}, {"weights": "int5"}, {"embeddings": "int2"}])
def test_impossible_settings_are_named(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"^{name}: {value}; allowed: (32, 64, 128|int8, int4)"):
        QuantizationConfig(**wrong)


def test_fixed_scales_of_int8_rows_clip_and_pass_gradients_inside():
    torch.manual_seed(0)
    layer = FakeQuantLinear(nn.Linear(16, 4), momentum=0.1).eval()
    layer.widen_range(torch.tensor([0.0, 1.0]))  # a grid that holds 0 and 1
    scale = layer.weight.detach().abs().amax(1, keepdim=True) / 254  # half the range: the largest values are clipped
    layer.weight_scale = scale
    weight = layer.weight.detach().numpy().astype(np.float64)
    grid = np.clip(np.round(weight / scale.numpy()), -128, 127) * scale.numpy()
    ones = torch.eye(16)
    found = (layer(ones) - layer.bias).T.detach().numpy()
    np.testing.assert_allclose(found, grid, atol=1e-6)
    layer(ones).sum().backward()
    inside = (weight >= -128 * scale.numpy()) & (weight <= 127 * scale.numpy())
    assert 0 < inside.sum() < inside.size
    assert np.array_equal(layer.weight.grad.numpy() != 0, inside)
    again = FakeQuantLinear(nn.Linear(16, 4), momentum=0.1).eval()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(ones), layer(ones))
    assert "weight_scale" not in plain_state_dict(nn.ModuleDict({"layer": layer}))


def test_fixed_scales_are_exported_and_pruned_with_their_rows(tokenizer, tmp_path):
    model = tiny()
    prepare_qat(model, QuantizationConfig())
    for module in model.modules():
        if isinstance(module, FakeQuantLinear):
            module.weight_scale = module.weight.detach().abs().amax(1, keepdim=True) / 200
    remove(model, Selection([[0, 2]] * 3, [range(40)] * 3))
    first = Encoder(model).blocks[0].ffn_in
    assert first.weight_scale.shape == (40, 1)
    calibrate(model, [dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))], lambda inputs: model(**inputs))
    made = export_onnx(model.eval(), tokenizer, tmp_path / "out", texts=TEXTS)
    assert made.int8.error <= made.int8.limit
    stored = {name: value for name, value in integer_copy(model).named_buffers() if name.endswith("weight_scale")}
    torch.testing.assert_close(stored["bert.encoder.layer.0.intermediate.dense.weight_scale"], first.weight_scale[:, 0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer):
    model = trained(tokenizer=tokenizer)
    return model, export_onnx(model, tokenizer, tmp_path_factory.mktemp("int4") / "out", texts=TEXTS)


def test_the_graph_computes_what_was_trained_at_any_batch_and_length(exported, tokenizer):
    model, made = exported
    assert made.int8 is None
    assert made.int4.error <= made.int4.limit
    assert sorted(file.name for file in (made.folder / "onnx").iterdir()) == ["model.onnx", "model_q4.onnx"]
    session = onnxruntime.InferenceSession(made.folder / "onnx/model_q4.onnx")
    names = [node.name for node in session.get_inputs()]
    for texts, length in ((TEXTS[:1], 12), (TEXTS[:5], 40)):
        inputs = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        found = session.run(None, {name: inputs[name].numpy() for name in names})[0]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_it_loads_with_optimum(exported, tokenizer):
    model, made = exported
    graph = ORTModelForSequenceClassification.from_pretrained(made.folder, subfolder="onnx", file_name="model_q4.onnx")
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(graph(**inputs).logits, model(**inputs).logits, rtol=1e-3, atol=1e-3)
    config = ORTConfig.from_pretrained(made.folder)
    assert config.quantization is None, "Optimum has no words for weights of 4 bits alone"
    assert config.opset == onnx.load(made.folder / "onnx/model_q4.onnx").opset_import[0].version


def test_every_layer_is_a_quantised_node_that_computes_in_float(exported, tmp_path):
    model, made = exported
    linears, tables = kinds(model)
    assert (linears, tables) == (3 * 6 + 2, 2)
    path = made.folder / "onnx/model_q4.onnx"
    optimized = optimized_graph(path, tmp_path / "optimized.onnx")
    for graph in (path, optimized):
        assert quantized_nodes(graph) == {"MatMulNBits": linears}
        assert packed_tables(graph) == tables
        levels = Counter(
            attribute.i
            for node in onnx.load(graph).graph.node
            for attribute in node.attribute
            if attribute.name == "accuracy_level"
        )
        assert levels == {1: linears}, "level 4 would round the inputs"


def test_numbers_that_share_a_byte_are_counted(exported):
    model, made = exported
    fp32, int4 = (made.folder / "onnx" / name for name in ("model.onnx", "model_q4.onnx"))
    assert count_parameters(int4) == count_parameters(fp32)
    stored = 0
    for module in model.modules():
        if isinstance(module, FakeInt4Linear):
            groups = -(-module.in_features // 32)
            stored += module.out_features * groups * (16 + 4) + 4 * module.out_features
        elif isinstance(module, nn.Embedding):
            packed = module.embedding_dim // 2 + 4 * -(-module.embedding_dim // 32)
            stored += module.num_embeddings * (packed if hasattr(module, "group_size") else 4 * module.embedding_dim)
        elif isinstance(module, nn.LayerNorm):
            stored += 8 * len(module.weight)
    held = {tensor.name: len(tensor.raw_data) for tensor in onnx.load(int4).graph.initializer}
    # What the exporter stores once, such as LayerNorms of ones, counts once.
    equal = Counter((tuple(p.shape), p.detach().numpy().tobytes()) for p in model.parameters() if p.ndim == 1)
    assert sum(held.values()) == pytest.approx(
        stored - sum(4 * shape[0] * (count - 1) for (shape, _), count in equal.items()), abs=200
    )
    sizes = bytes_by_component(int4)
    assert sum(sizes.values()) == size_bytes(int4) == int4.stat().st_size
    words = model.bert.embeddings.word_embeddings.num_embeddings * (16 + 4)
    assert words < sizes["word embeddings"] < words + 250, "scales of groups go with their weights"


@pytest.mark.parametrize("family", ["roberta", "distilbert", "mpnet", "modernbert"])
def test_families_export(family, tmp_path, tokenizer):
    model = trained(family, tokenizer)
    made = export_onnx(model, tokenizer, tmp_path / "out", texts=TEXTS)
    assert made.int4.error <= made.int4.limit
    linears, tables = kinds(model)
    graph = tmp_path / "out/onnx/model_q4.onnx"
    for path in (graph, optimized_graph(graph, tmp_path / "optimized.onnx")):
        assert quantized_nodes(path) == {"MatMulNBits": linears}
        assert packed_tables(path) == tables


@pytest.mark.long
@pytest.mark.parametrize(("group_size", "embeddings"), [(64, "int8"), (128, "fp32")])
def test_larger_groups_and_other_embeddings_export(group_size, embeddings, tmp_path, tokenizer):
    model = trained(tokenizer=tokenizer, group_size=group_size, embeddings=embeddings)
    made = export_onnx(model, tokenizer, tmp_path / "out", texts=TEXTS)
    assert made.int4.error <= made.int4.limit
    assert quantized_nodes(tmp_path / "out/onnx/model_q4.onnx") == {"MatMulNBits": 20}


def test_int4_tables_beside_int8_layers(tmp_path, tokenizer):
    model = trained(tokenizer=tokenizer, weights="int8")
    made = export_onnx(model, tokenizer, tmp_path / "out", texts=TEXTS)
    assert made.int4 is None
    assert made.int8.error <= made.int8.limit
    graph = tmp_path / "out/onnx/model_quantized.onnx"
    assert packed_tables(graph) == 2
    assert count_parameters(graph) == count_parameters(tmp_path / "out/onnx/model.onnx")
    nodes = quantized_nodes(optimized_graph(graph, tmp_path / "optimized.onnx"))
    assert packed_tables(tmp_path / "optimized.onnx") == 2
    assert sum(nodes.values()) == 20


@pytest.mark.parametrize("name", ["encoder.layer.1.intermediate.dense.weight_scale", "word_embeddings.weight_scale"])
def test_a_wrong_scale_fails_the_check(exported, tokenizer, tmp_path, name):
    model, made = exported
    graph = onnx.load(made.folder / "onnx/model_q4.onnx")
    (stored,) = (tensor for tensor in graph.graph.initializer if tensor.name.endswith(name))
    wrong = onnx.numpy_helper.to_array(stored) * np.float32(1.05)
    stored.CopyFrom(onnx.numpy_helper.from_array(wrong, stored.name))
    onnx.save(graph, tmp_path / "wrong.onnx")
    with pytest.raises(FidelityError, match=r"wrong\.onnx differs from the PyTorch model"):
        check_fidelity(model, tmp_path / "wrong.onnx", tokenizer, TEXTS)
