import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    DebertaV2Config,
    set_seed,
)

from edgemin_hf import create_student, student_from_checkpoint
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.families import first_position, shape_of
from edgemin_hf.modeling.initialization import INITIALIZATIONS, _residual_change
from edgemin_hf.modeling.student_config import student_config
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.modeling.tokenizers import longest_text
from tests.helpers.models import FAMILIES, PRUNABLE, VOCABULARY, batch, tiny

CARRIED = [name for name in INITIALIZATIONS if name != "random"]


@pytest.mark.parametrize("initialization", CARRIED)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_all_layers_is_the_teacher(family, initialization):
    teacher = tiny(family)
    student = create_student(teacher, initialization=initialization).eval()
    assert type(student) is type(teacher)
    torch.testing.assert_close(student(**batch()).logits, teacher(**batch()).logits)
    assert not set(map(id, student.parameters())) & set(map(id, teacher.parameters()))


@pytest.mark.parametrize(("depth", "layers", "expected"), [(2, None, [0, 2]), (1, None, [2]), (2, [2, 3], [1, 2])])
def test_layers_are_copied_from_those_named_or_evenly_spaced(depth, layers, expected):
    teacher = tiny()
    student = create_student(teacher, depth, layers=layers)
    for ours, theirs in enumerate(expected):
        wanted = Encoder(teacher).layers[theirs].module.state_dict()
        for name, value in Encoder(student).layers[ours].module.state_dict().items():
            torch.testing.assert_close(value, wanted[name])
    torch.testing.assert_close(student.classifier.weight, teacher.classifier.weight)


def test_depth_width_heads_and_ffn_are_free():
    student = create_student(tiny(), 2, hidden_size=24, num_attention_heads=3, intermediate_size=40)
    assert shape_of(student.config) == (2, 24, 3, 40)
    assert student.training
    assert student(**batch()).logits.shape == (3, 3)
    assert shape_of(create_student(tiny(), hidden_size=16).config) == (3, 16, 4, 32)


def test_copies_take_equal_shapes_and_no_layers_of_another_head_split():
    teacher = tiny()
    student = create_student(teacher, num_attention_heads=2, initialization="copy")
    ours, theirs = (Encoder(model).layers[0].q.weight for model in (student, teacher))
    assert not torch.equal(ours, theirs)
    torch.testing.assert_close(
        student.bert.embeddings.word_embeddings.weight, teacher.bert.embeddings.word_embeddings.weight
    )


def test_random_takes_nothing():
    teacher = tiny()
    weights = teacher.state_dict()
    student = create_student(teacher, initialization="random")
    assert student.config.vocab_size == teacher.config.vocab_size
    same = [name for name, weight in student.state_dict().items() if torch.equal(weight, weights[name])]
    assert all("LayerNorm.weight" in name for name in same)  # ones in both


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(16, 2, 40), (16, 4, 64), (32, 2, 32), (24, 1, 20)])
def test_every_family_takes_every_width(family, initialization, shape):
    student = create_student(tiny(family), 2, *shape, initialization=initialization).eval()
    assert shape_of(student.config) == (2, *shape)
    assert student(**batch()).logits.isfinite().all()


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_a_seed_gives_one_student(initialization):
    teacher = tiny()
    students = []
    for seed in (0, 0, 1):
        set_seed(seed)
        students.append(create_student(teacher, 2, 16, 2, 32, initialization=initialization).bert.state_dict())
    query = "encoder.layer.0.attention.self.query.weight"
    assert all(torch.equal(weight, students[1][name]) for name, weight in students[0].items())
    assert torch.equal(students[0][query], students[2][query]) == (initialization in ("slice", "svd"))


def test_slices_are_the_teachers_own_weights():
    teacher = tiny()
    student = create_student(teacher, 2, 16, 2, 32, layers=[2, 3])
    ours, theirs = Encoder(student).layers, Encoder(teacher).layers
    words = teacher.bert.embeddings.word_embeddings.weight
    columns = student.bert.embeddings.word_embeddings.weight.T
    kept = [int((words == column[:, None]).all(0).nonzero()) for column in columns]
    assert len(set(kept)) == 16
    torch.testing.assert_close(student.bert.embeddings.LayerNorm.bias, teacher.bert.embeddings.LayerNorm.bias[kept])
    heads = [*range(8), *range(16, 24)]  # the first and the third of four heads of 8
    torch.testing.assert_close(ours[0].k.weight, theirs[1].k.weight[heads][:, kept])
    torch.testing.assert_close(ours[0].attention_output.weight, theirs[1].attention_output.weight[kept][:, heads])
    torch.testing.assert_close(ours[1].v.bias, theirs[2].v.bias[::2])  # in the last layer, spread over all heads
    torch.testing.assert_close(ours[0].ffn_in.weight, theirs[1].ffn_in.weight[::2][:, kept])
    torch.testing.assert_close(ours[0].ffn_out.bias, theirs[1].ffn_out.bias[kept])


def test_wider_heads_join_the_teachers():
    teacher = tiny()
    student = create_student(teacher, num_attention_heads=2)
    ours, theirs = (Encoder(model).layers[0].q.weight.unflatten(0, (-1, 16)) for model in (student, teacher))
    for head in range(2):
        rows = {tuple(row.tolist()) for row in ours[head]}
        assert rows == {tuple(row.tolist()) for row in theirs[head]}  # two heads of 8 in one of 16


def test_rotary_pairs_stay_pairs_in_wider_heads():
    teacher = tiny("modernbert")
    student = create_student(teacher, num_attention_heads=2)
    rows = Encoder(teacher).layers[0].q.weight[:32].tolist()
    found = [rows.index(row) for row in Encoder(student).layers[0].q.weight[:32].tolist()]
    assert sorted(found) == list(range(32))
    for start in (0, 16):  # of a head of 16, which pairs 0 and 8; the teacher's, of 8, pair 0 and 4
        assert all(found[i + 8] == found[i] + 4 for i in range(start, start + 8))


def test_rows_beside_the_projections_follow_the_heads():
    teacher = tiny("deberta-v2", share_att_key=False)
    student = create_student(teacher, hidden_size=24, num_attention_heads=3)
    ours, theirs = (Encoder(model).layers[0].module.attention.self for model in (student, teacher))
    assert ours.pos_key_proj.weight.shape == (24, 24)
    for name in ("key_proj", "pos_key_proj", "pos_query_proj"):
        torch.testing.assert_close(getattr(ours, name).bias, getattr(theirs, name).bias[:24])  # three heads of four


def narrow(teacher, basis):
    """Keep a teacher's residual stream in the span of a basis (width, rank), and its second and fourth heads silent.

    Odd neurons are silent too.
    """
    encoder, width = Encoder(teacher), teacher.config.hidden_size
    span = basis @ basis.T
    with torch.no_grad():
        for module in teacher.modules():
            if isinstance(module, nn.Embedding) and module.embedding_dim == width:
                module.weight.copy_(module.weight @ span)
            elif (
                "Norm" in type(module).__name__
                and getattr(module, "bias", None) is not None
                and len(module.bias) == width
            ):
                module.bias.copy_(module.bias @ span)
        writers = [getattr(encoder.base, "embeddings_project", None)]
        for layer in encoder.layers:
            layer.attention_output.weight.unflatten(1, (4, 8))[:, 1::2] = 0
            layer.ffn_out.weight[:, 1::2] = 0
            writers += [layer.attention_output, layer.ffn_out]
        for linear in filter(None, writers):
            linear.weight.copy_(span @ linear.weight)
            if linear.bias is not None:
                linear.bias.copy_(linear.bias @ span)


@pytest.mark.parametrize("initialization", ["slice", "svd"])
# ALBERT's only layer is the last, too.
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_a_stream_that_fits_is_kept_up_to_the_norms_gain(family, initialization):
    changes = {"embedding_size": 8} if family == "electra" else {}
    teacher = tiny(family, layer_norm_eps=1e-12, norm_eps=1e-12, **changes).double()
    generator = torch.Generator().manual_seed(0)
    axes = torch.zeros(32, 16, dtype=torch.double)
    axes[torch.randperm(32, generator=generator)[:16].sort().values, torch.arange(16)] = 1
    if initialization == "svd":
        axes = torch.eye(32, dtype=torch.double)
    raw = axes @ torch.randn(axes.shape[1], 15, generator=generator, dtype=torch.double)
    # Of mean 0, which LayerNorm would take away.
    support = axes.sum(1, keepdim=True)
    raw = raw - support * raw.sum(0) / support.sum()
    narrow(teacher, torch.linalg.qr(raw).Q)
    student = create_student(teacher, hidden_size=16, num_attention_heads=2, initialization=initialization).eval()
    with torch.no_grad():
        for parameter in student.base_model.parameters():
            if parameter.ndim == 1 and parameter.shape == (16,) and torch.allclose(parameter, torch.ones(16).double()):
                parameter.mul_(2**0.5)  # LayerNorm scales to the norm sqrt(width)
    ours, theirs = (
        model.base_model(**batch(lengths=(9, 9, 9)), output_hidden_states=True).hidden_states
        for model in (student, teacher)
    )
    # The last layer's heads are taken from all of the teacher's, where positions are not rotary.
    end = None if family == "modernbert" else -1
    for mine, yours in zip(ours[:end], theirs[:end], strict=True):
        torch.testing.assert_close(mine @ mine.mT, yours @ yours.mT, rtol=1e-4, atol=1e-4)
    if initialization == "slice":
        torch.testing.assert_close(ours[1], theirs[1][..., axes.sum(1) > 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("initialization", CARRIED)
@pytest.mark.parametrize("family", PRUNABLE)
def test_pruned_teachers(family, initialization):
    teacher = tiny(family)
    remove(teacher, Selection([[0, 2, 3], [1], [0, 1, 2, 3]], [range(40)] * 3))
    student = create_student(teacher, initialization=initialization).eval()
    assert not student.config.pruned_heads
    torch.testing.assert_close(student(**batch()).logits, teacher(**batch()).logits)
    added = Encoder(student).layers[1].v.weight[8:]
    assert added.any()  # what the teacher has lost is there, to be trained
    assert create_student(teacher, 2, 16, 2, initialization=initialization)(**batch()).logits.isfinite().all()


def test_fewer_layers_of_a_shared_one():
    teacher = tiny("albert")
    student = create_student(teacher, 1)
    ours, theirs = (Encoder(model).layers[0].module.state_dict() for model in (student, teacher))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


@pytest.mark.parametrize(("family", "other"), [("bert", "ernie"), ("roberta", "camembert"), ("xlm-roberta", "roberta")])
def test_families_of_one_layout_share_weights(family, other):
    teacher = tiny(family, hidden_act="gelu", layer_norm_eps=1e-12)
    student = create_student(teacher, model_type=other).eval()
    assert student.config.model_type == other
    student.config.layer_norm_eps = 1e-12
    torch.testing.assert_close(student(**batch()).logits, teacher(**batch()).logits, rtol=1e-3, atol=1e-3)


def test_a_teacher_in_half_precision_stays_as_it_was_and_its_student_is_float32():
    teacher = tiny().bfloat16().train()
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    student = create_student(teacher, 2, 16, 2, initialization="svd")
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    assert teacher.training
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())


def test_widths_that_a_configuration_says_twice():
    teacher = DebertaV2Config(hidden_size=32, num_attention_heads=4, intermediate_size=64, attention_head_size=8)
    student = student_config(teacher, 2, 16, 4)
    assert (student.pooler_hidden_size, student.attention_head_size) == (16, 4)
    same, apart = tiny("electra", embedding_size=32), tiny("electra")
    assert student_config(same.config, hidden_size=24).embedding_size == 24
    assert student_config(apart.config, hidden_size=24).embedding_size == 16


@pytest.mark.parametrize("family", FAMILIES)
def test_another_family_keeps_vocabulary_positions_and_labels(family):
    teacher = tiny("bert", id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    student = create_student(teacher, 2, model_type=family).eval()
    assert student.config.model_type == family
    assert shape_of(student.config) == (2, 32, 4, 64)
    assert student.config.id2label == {0: "a", 1: "b", 2: "c"}
    longest = batch((66, 60))
    assert student(**longest).logits.shape == (2, 3)


def test_a_headless_teacher_has_a_headless_student():
    teacher = BertModel(tiny().config)
    assert type(create_student(teacher, 1)) is BertModel


@pytest.mark.parametrize("head", ["cls", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_dropout_training_computes_what_evaluation_does(family, head):
    teacher = tiny(family)
    student = create_student(teacher, dropout=0.0, head=head)
    assert student.training
    with torch.no_grad():
        training, evaluation = student(**batch()).logits, student.eval()(**batch()).logits
        torch.testing.assert_close(training, evaluation)
        dropped = create_student(teacher, dropout=0.5, head=head)(**batch()).logits
    assert (dropped - evaluation).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_hidden_layers": 4}, "num_hidden_layers: 4; allowed: 1 to 3"),
        ({"hidden_size": 64}, "hidden_size: 64; allowed: 1 to 32"),
        ({"num_hidden_layers": -1}, "num_hidden_layers: -1"),
        ({"hidden_size": 30}, "num_attention_heads: 4; allowed: a divisor of hidden_size 30"),
        ({"num_hidden_layers": 2, "layers": [1]}, "layers"),
        ({"num_hidden_layers": 1, "layers": [4]}, "layers"),
        ({"model_type": "gpt2"}, "model_type: gpt2; allowed: bert"),
        ({"initialization": "pca"}, "initialization: pca; allowed: copy, slice, svd, random"),
        ({"embedding_size": 8}, "embedding_size: 8 for bert, whose tables .*; allowed: model_type electra or albert"),
        ({"embedding_size": 33, "model_type": "electra"}, "embedding_size: 33; allowed: 2 to 32, the teacher's"),
        ({"embedding_size": 1, "model_type": "albert"}, "embedding_size: 1; allowed: 2 to 32, the teacher's"),
        ({"max_position_embeddings": 67}, "max_position_embeddings: 67; allowed: 3 to 66, the teacher's"),
        (
            {"max_position_embeddings": 9, "model_type": "modernbert"},
            "max_position_embeddings: 9 for modernbert, which",
        ),
        ({"model_type": "modernbert", "hidden_size": 20}, "num_attention_heads: 4 of 5; allowed for modernbert"),
        ({"dropout": 1.0}, "dropout: 1; allowed: from 0 to below 1"),
    ],
)
def test_impossible_students(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_student(tiny(), **arguments)


def test_a_published_checkpoint_is_a_student(tmp_path, tokenizer):
    published = BertModel(tiny(num_hidden_layers=2, hidden_size=16).config)
    published.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    teacher = tiny("roberta", id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    student = student_from_checkpoint(teacher, tokenizer, tmp_path)
    assert type(student).__name__ == "BertForSequenceClassification"
    assert student.config.id2label == {0: "a", 1: "b", 2: "c"}
    weights = student.bert.encoder.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in published.encoder.state_dict().items())
    assert student.training


def test_a_checkpoint_of_another_vocabulary(tmp_path, tokenizer):
    tiny().save_pretrained(tmp_path)
    # As many tokens, with other numbers.
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY[:5], *VOCABULARY[:4:-1]]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint: .* vocabulary of 71 is not the teacher's"):
        student_from_checkpoint(tiny(), tokenizer, tmp_path)


def even_teacher(**changes):
    """A teacher whose embeddings differ in few directions, LayerNorm's mean aside: narrower tables can hold them."""
    teacher = tiny(**{"layer_norm_eps": 1e-12, **changes}).double()
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(32, 7, generator=generator, dtype=torch.double)
    span = torch.linalg.qr(basis - basis.mean(0)).Q
    with torch.no_grad():
        for _, _, table in Encoder(teacher).embeddings():
            table.weight.copy_(table.weight @ span @ span.T + 0.5)
        Encoder(teacher).base.embeddings.LayerNorm.weight.uniform_(0.5, 2, generator=generator)
        Encoder(teacher).base.embeddings.LayerNorm.bias.uniform_(-1, 1, generator=generator)
    return teacher


@torch.no_grad()
def test_narrow_tables_and_a_projection_are_the_teachers_where_they_can_be(tmp_path):
    teacher = even_teacher()
    student = create_student(teacher, model_type="electra", embedding_size=8).eval()
    assert student.electra.embeddings.word_embeddings.weight.shape == (71, 8)
    assert student.config.embedding_size == student.electra.embeddings_project.in_features == 8
    ours, theirs = (
        model.base_model(**batch(), output_hidden_states=True).hidden_states for model in (student, teacher)
    )
    for mine, yours in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, yours)
    student.float().save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**batch()).logits, student(**batch()).logits)


@torch.no_grad()
@pytest.mark.parametrize("initialization", ["slice", "svd"])
def test_narrow_tables_before_a_narrower_stream(initialization):
    teacher = even_teacher()
    arguments = {"hidden_size": 16, "initialization": initialization, "model_type": "electra", "embedding_size": 8}
    student = create_student(teacher, 2, **arguments).eval()
    first = student.base_model(**batch(), output_hidden_states=True).hidden_states[0]
    change = _residual_change(teacher, 16, initialization)
    wide = teacher.base_model(**batch(), output_hidden_states=True).hidden_states[0]
    expected = wide[..., change] if change.ndim == 1 else wide @ change.T
    torch.testing.assert_close(first, expected)


@torch.no_grad()
def test_narrower_tables_of_a_teacher_that_has_two_factors():
    teacher = tiny("albert", layer_norm_eps=1e-12).double()
    embeddings = teacher.albert.embeddings
    generator = torch.Generator().manual_seed(0)
    span = torch.linalg.qr(torch.randn(16, 5, generator=generator, dtype=torch.double)).Q
    for _, _, table in Encoder(teacher).embeddings():
        table.weight.copy_(table.weight @ span @ span.T)
    embeddings.LayerNorm.weight.uniform_(0.5, 2, generator=generator)
    student = create_student(teacher, embedding_size=6).eval()
    assert student.config.embedding_size == 6
    torch.testing.assert_close(student(**batch()).logits, teacher(**batch()).logits)


@torch.no_grad()
def test_what_is_frequent_is_held_best():
    teacher, counts = tiny(), torch.zeros(71, dtype=torch.long)
    counts[5:20] = 10
    ids = torch.arange(5, 20)[None]
    wanted = teacher.base_model(ids, output_hidden_states=True).hidden_states[0]

    def error(**arguments):
        student = create_student(teacher, model_type="electra", **arguments).eval()
        return (student.base_model(ids, output_hidden_states=True).hidden_states[0] - wanted).norm() / wanted.norm()

    even, known = error(embedding_size=12), error(embedding_size=12, token_counts=counts)
    assert known < 0.9 * even
    assert error(embedding_size=24, token_counts=counts) < known
    assert error(embedding_size=None) < 1e-5  # as wide as the layers: no projection, the teacher's own tables


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family not in ("deberta", "deberta-v2", "modernbert")]
)
def test_fewer_positions_are_the_first(family, tokenizer):
    teacher = tiny(family)
    first = first_position(teacher.config)
    student = create_student(teacher, max_position_embeddings=first + 9).eval()
    assert student.base_model.embeddings.position_embeddings.num_embeddings == first + 9
    torch.testing.assert_close(student(**batch()).logits, teacher(**batch()).logits)
    assert longest_text(tokenizer, student.config) == 9


def test_masked_lm_heads_of_narrower_tables():
    teacher = tiny("albert", head=AutoModelForMaskedLM)
    student = create_student(teacher, embedding_size=8)
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert student(**batch()).logits.isfinite().all()


def test_a_student_without_a_projection_has_tables_of_its_own():
    teacher = tiny("electra")  # tables of 16 for layers of 32
    student = create_student(teacher, model_type="bert").eval()
    layers = [Encoder(model).layers[1].module.state_dict() for model in (student, teacher)]
    assert all(torch.equal(weight, layers[1][name]) for name, weight in layers[0].items())
    assert student.bert.embeddings.LayerNorm.weight.eq(1).all()
    words, old = (model.get_input_embeddings().weight for model in (student, teacher))
    assert not (words[5:, :16] == old[5:]).any()
