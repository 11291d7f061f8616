"""Sentence encoders: what sentence-transformers computes, in one model, and folders that it reads."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig

from edgemin_hf import create_student, load_pruned
from edgemin_hf.modeling import AutoModelForSentenceEmbedding
from edgemin_hf.modeling.auto_class import configured_for, new_model
from edgemin_hf.modeling.embedder import POOLINGS, SentenceHead
from edgemin_hf.modeling.embedder_files import prompts_of, read_sentence_head, write_sentence_folder
from tests.helpers.models import FAMILIES, batch, tiny

TEXTS = ["where is my card", "please send the money to my new old card now", "late"]
HEADS = [
    SentenceHead("mean"),
    SentenceHead("cls", normalized=False),
    SentenceHead("max"),
    SentenceHead("mean", 8, "tanh"),
    SentenceHead("cls", 48, "identity", normalized=False),
]


def embedder(family="bert", head=HEADS[0], **changes):
    return tiny(family, head=Embedders, sentence_embedding=head._asdict(), **changes)


class Embedders:
    """Makes random models, as `AutoModel...` classes of `transformers` do."""

    @staticmethod
    def from_config(config):
        return new_model(AutoModelForSentenceEmbedding, config)


def save(model, folder, tokenizer=None):
    model.save_pretrained(folder)
    write_sentence_folder(model, folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def vectors(model, tokenizer, texts=TEXTS):
    inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    return model.eval()(**inputs).sentence_embedding


def made_by_sentence_transformers(folder, tokenizer, head):
    """A teacher that sentence-transformers itself wrote."""
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    tiny(head=AutoModel).save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    parts = [modules.Transformer(str(folder / "plain")), modules.Pooling(32, head.pooling)]
    if head.dense:
        function = torch.nn.Tanh() if head.activation == "tanh" else torch.nn.Identity()
        parts.append(modules.Dense(32, head.dense, activation_function=function))
    parts += [modules.Normalize()] * head.normalized
    theirs = library.SentenceTransformer(modules=parts, device="cpu")
    theirs.save(str(folder / "teacher"))
    return theirs


@pytest.mark.parametrize("head", HEADS)
def test_the_vectors_are_those_of_sentence_transformers(head, tmp_path, tokenizer):
    theirs = made_by_sentence_transformers(tmp_path, tokenizer, head)
    assert read_sentence_head(str(tmp_path / "teacher")) == head
    model = load_pruned(tmp_path / "teacher", AutoModelForSentenceEmbedding)
    expected = torch.tensor(theirs.encode(TEXTS))
    torch.testing.assert_close(vectors(model, tokenizer), expected, rtol=1e-4, atol=1e-5)
    assert configured_for(model.config, AutoModelForSentenceEmbedding)


@pytest.mark.parametrize("head", HEADS)
def test_sentence_transformers_reads_the_folder_that_is_written(head, tmp_path, tokenizer):
    library = pytest.importorskip("sentence_transformers")
    model = embedder(head=head)
    folder = save(model, tmp_path / "student", tokenizer)
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    torch.testing.assert_close(torch.tensor(theirs.encode(TEXTS)), vectors(model, tokenizer), rtol=1e-4, atol=1e-5)
    assert read_sentence_head(str(folder)) == head
    again = load_pruned(folder, AutoModelForSentenceEmbedding)
    assert torch.equal(vectors(again, tokenizer), vectors(model, tokenizer))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@torch.no_grad()
def test_padding_and_the_other_texts_change_nothing(pooling):
    model, inputs = embedder(head=SentenceHead(pooling)), batch()
    plain = model(**inputs).sentence_embedding
    torch.testing.assert_close(model(**batch(pad_to=14)).sentence_embedding, plain, rtol=1e-4, atol=1e-6)
    alone = model(**{name: value[1:2, :4] for name, value in inputs.items()}).sentence_embedding
    torch.testing.assert_close(alone, plain[1:2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_may_stand_on_either_side(pooling):
    hidden, mask = torch.randn(2, 4, 3), torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    for values, side in ((hidden, mask), (hidden.roll(1, 1), mask.roll(1, 1))):
        found = POOLINGS[pooling](values, side)
        for row, real in enumerate(side.bool()):
            own = values[row][real]
            expected = {"mean": own.mean(0), "cls": values[row][real.int().argmax()], "max": own.max(0).values}
            torch.testing.assert_close(found[row], expected[pooling])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_makes_one(family, tmp_path):
    model = embedder(family)
    inputs = batch()
    with torch.no_grad():
        found = model(**inputs)
    assert found.sentence_embedding.shape == (3, 32)
    torch.testing.assert_close(found.sentence_embedding.norm(dim=1), torch.ones(3))
    folder = save(model, tmp_path / family)
    again = load_pruned(folder, AutoModelForSentenceEmbedding)
    with torch.no_grad():
        assert torch.equal(again(**inputs).sentence_embedding, found.sentence_embedding)


def test_a_narrower_student_gives_vectors_of_the_teachers_width_or_of_its_own():
    teacher = embedder()
    wide = create_student(teacher, 2, hidden_size=16, num_attention_heads=2)
    assert SentenceHead.of(wide.config).dense == 32
    assert wide.projection.weight.shape == (32, 16)
    own = create_student(teacher, 2, hidden_size=16, num_attention_heads=2, embedding_width=16)
    assert SentenceHead.of(own.config).dense is None
    assert not hasattr(own, "projection")
    copied = create_student(teacher, 2)
    assert SentenceHead.of(copied.config) == SentenceHead()
    other = create_student(teacher, 2, model_type="distilbert")
    assert SentenceHead.of(other.config) == SentenceHead()


def test_a_teachers_dense_layer_is_the_students_where_widths_agree():
    teacher = embedder(head=SentenceHead("mean", 8, "tanh"))
    student = create_student(teacher, 2)
    assert torch.equal(student.projection.weight, teacher.projection.weight)
    assert SentenceHead.of(student.config) == SentenceHead("mean", 8, "tanh")
    assert SentenceHead.of(create_student(teacher, 2, embedding_width=32).config).dense == 32


def test_prompts_and_the_longest_text_are_kept(tmp_path, tokenizer):
    folder = save(embedder(), tmp_path / "teacher", tokenizer)
    told = {"prompts": {"query": "where ", "document": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(told))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7, "do_lower_case": False}))
    config = json.loads((folder / "config.json").read_text())
    del config["sentence_embedding"]  # as a teacher of somebody else's
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    teacher = load_pruned(folder, AutoModelForSentenceEmbedding)
    assert prompts_of(teacher.config) == {"query": "where ", "": "where "}
    student = create_student(teacher, 1)
    made = save(student, tmp_path / "student", tokenizer)
    for name in ("config_sentence_transformers.json", "sentence_bert_config.json"):
        assert json.loads((made / name).read_text()) == json.loads((folder / name).read_text())


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        (["Transformer", "Pooling", "LayerNorm"], {}, "of the modules Transformer, Pooling, LayerNorm; allowed: "),
        (["Transformer", "Normalize", "Pooling"], {}, "of the modules Transformer, Normalize, Pooling; allowed: "),
        (["Transformer", "Pooling"], {"pooling_mode": "lasttoken"}, "whose pooling is lasttoken; allowed: mean, cls"),
        (["Transformer", "Pooling"], {"pooling_mode": ["mean", "max"]}, "whose pooling is mean+max; allowed: mean"),
        (["Transformer", "Pooling"], {"include_prompt": False}, "mean without the prompt's tokens; allowed: mean"),
        (["custom_st.Transformer", "Pooling"], {}, "of the modules custom_st.Transformer, Pooling; allowed: "),
        (["Transformer", "Pooling", "Dense"], {}, "with out_features None in 2/config.json; allowed: a number"),
    ],
)
def test_modules_that_no_model_is_made_of_are_named(modules, pooling, message, tmp_path):
    types = [f"sentence_transformers.models.{kind}" if kind.isalpha() else kind for kind in modules]
    listed = [{"idx": i, "name": str(i), "path": f"{i}", "type": kind} for i, kind in enumerate(types)]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    for index in range(len(modules)):
        (tmp_path / f"{index}").mkdir()
        (tmp_path / f"{index}" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ValueError, match=message.replace("+", r"\+")) as error:
        read_sentence_head(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", [{"type": "sentence_transformers.models.Pooling"}, {"path": ""}, "Pooling"])
def test_modules_that_lack_a_type_or_a_path_are_named(module, tmp_path):
    (tmp_path / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(ValueError, match=r"of the modules .*; allowed: Transformer, Pooling, then Dense or Normalize"):
        read_sentence_head(str(tmp_path))


def test_a_dense_layer_of_another_shape_is_left_where_the_head_was_decided(tmp_path):
    folder = save(embedder(head=SentenceHead("mean", 8)), tmp_path / "published")
    weights = load_file(
        folder / "model.safetensors"
    )  # as in others' folders, it stands in the file of its module alone
    kept = {name: value for name, value in weights.items() if not name.startswith("projection")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    wanted = SentenceHead("mean", 24)._asdict()
    model = load_pruned(folder, AutoModelForSentenceEmbedding, ignore_mismatched_sizes=True, sentence_embedding=wanted)
    assert model.projection.weight.shape == (24, 32)
    again = load_pruned(folder, AutoModelForSentenceEmbedding)
    assert torch.equal(again.projection.weight, weights["projection.weight"])


def test_a_head_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"pooling of its configuration: sum; allowed: mean, cls, max"):
        SentenceHead.of(BertConfig(sentence_embedding={"pooling": "sum"}))
    with pytest.raises(ValueError, match="allowed: pooling, dense, activation, normalized"):
        SentenceHead.of(BertConfig(sentence_embedding={"pool": "mean"}))
