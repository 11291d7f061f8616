"""Sentence embedding: losses by hand, tables of texts and pairs, bad input, and a whole recipe."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.numpy import load_file, save_file
from scipy.stats import spearmanr
from transformers import AutoModel, BertConfig

from edgemin_hf import TaskDistillationConfig, create_student, load_pruned
from edgemin_hf.cli import main
from edgemin_hf.data import sources
from edgemin_hf.distillation.principal import principal_directions
from edgemin_hf.modeling import AutoModelForSentenceEmbedding
from edgemin_hf.modeling.embedder import SentenceHead
from edgemin_hf.modeling.embedder_files import prompts_of, set_default_prompt, write_sentence_folder
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.recipe.plan import make_plan
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks import SentenceEmbedding, task_of
from edgemin_hf.tasks.run_rows import write_rows
from tests.helpers.models import sentences, tiny
from tests.helpers.tasks import run_snippets, write_pairs
from tests.modeling.test_embedder import embedder, save


def random(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_formula(student, teacher):
    """One text at a time."""
    total = 0.0
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        total += 1 - s @ t / np.linalg.norm(s) / np.linalg.norm(t) + ((s - t) ** 2).sum() / (t**2).sum()
    return total / len(student)


def task(**settings):
    return SentenceEmbedding("texts.txt", "test.tsv", "validation.tsv", **settings)


def test_the_loss_equals_the_formula():
    student, teacher = random(0, 5, 8), random(1, 5, 8)
    loss = SentenceEmbedding.soft_loss(student, teacher, 2.0)
    assert loss.item() == pytest.approx(by_formula(student, teacher), rel=1e-12)
    assert abs(SentenceEmbedding.soft_loss(teacher, teacher, 1.0).item()) < 1e-14
    order = torch.tensor([3, 1, 4, 0, 2])
    assert SentenceEmbedding.soft_loss(student[order], teacher[order], 1.0).item() == pytest.approx(loss.item())
    unit = [torch.nn.functional.normalize(side, dim=1) for side in (student, teacher)]
    distance = 1 - (unit[0] * unit[1]).sum(1).mean()
    assert SentenceEmbedding.soft_loss(*unit, 1.0).item() == pytest.approx(3 * distance.item())
    assert torch.autograd.gradcheck(lambda s: SentenceEmbedding.soft_loss(s, teacher, 1.0), (student.requires_grad_(),))
    assert SentenceEmbedding.soft_loss(student.detach(), torch.zeros_like(teacher), 1.0).isfinite()
    assert SentenceEmbedding.divergence(student, student).item() == 0


def test_the_losses_of_prefixes_are_added():
    teacher = embedder()
    student = create_student(teacher, 1, hidden_size=16, num_attention_heads=2, embedding_width="hidden_size")
    task(dimensions=[4, 8]).configure(student.config)
    assert task_of(student) is SentenceEmbedding
    objective = TaskDistillationConfig().objective(Encoder(student), None)
    ours, theirs = random(0, 5, 16).float(), random(1, 5, 16).float()
    inputs = {"teacher_logits": theirs, "labels": torch.full((5,), float("nan"))}
    found = objective(Recording(logits=ours), Recording(), inputs)
    expected = sum(SentenceEmbedding.soft_loss(ours[:, :width], theirs[:, :width], 1.0) for width in (16, 8, 4))
    torch.testing.assert_close(found["soft_labels"], 0.5 * expected)
    assert found["hard_labels"].item() == 0


def test_which_space_a_student_learns():
    config = BertConfig(hidden_size=32, sentence_embedding=SentenceHead()._asdict())
    auto = task()
    assert not auto.is_principal(config, 32)
    assert auto.is_principal(config, 16)
    assert task(dimensions=[8]).is_principal(config, 32)
    assert not task(space="teacher", dimensions=[8]).is_principal(config, 16)
    assert task(space="principal").is_principal(config, 32)
    assert (auto.embedding_width, task(space="teacher").embedding_width) == ("hidden_size", None)


def test_a_prompt_becomes_the_students_default():
    config = BertConfig()
    set_default_prompt(config, "")
    assert prompts_of(config) == {}
    set_default_prompt(config, "query: ")
    assert prompts_of(config) == {"default": "query: ", "": "query: "}
    named = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None}
    config = BertConfig(edgemin_sentence_modules={"config_sentence_transformers.json": named})
    set_default_prompt(config, "passage: ")
    assert prompts_of(config) == {"query": "query: ", "passage": "passage: ", "": "passage: "}
    with pytest.raises(ValueError, match="prompt: ''; expected: 'passage: ', which the teacher puts"):
        task().check_teacher(None, config)
    task(prompt="passage: ").check_teacher(None, config)


def test_a_students_texts_are_cut_as_the_task_says(tmp_path):
    theirs = {"max_seq_length": 256, "do_lower_case": True}
    model = embedder(edgemin_sentence_modules={"sentence_bert_config.json": theirs})
    task(max_length=24).configure(model.config)
    file = save(model, tmp_path / "student") / "sentence_bert_config.json"
    assert json.loads(file.read_text()) == {"max_seq_length": 24, "do_lower_case": False}
    assert theirs["max_seq_length"] == 256


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "texts.txt").write_text("a card\nlost money\n\na card\n")
    write_pairs(tmp_path / "validation.tsv", 12, 10)
    write_pairs(tmp_path / "test.tsv", 12, 20)
    return tmp_path


def test_texts_and_pairs_become_rows(folder, tokenizer, monkeypatch):
    monkeypatch.setattr(sources, "CACHE", folder / "cache")
    train, validation = task().tables(folder, 0)
    assert train["sentence1"][:] == ["a card", "lost money"]
    rows = task(prompt="my ").tokenized(train, tokenizer, {})
    assert rows["input_ids"][:] == [tokenizer("my a card")["input_ids"], tokenizer("my lost money")["input_ids"]]
    assert np.isnan(rows["labels"][:]).all()
    pairs = task().tokenized(validation, tokenizer, {})
    assert len(pairs) == 2 * len(validation)
    assert pairs["input_ids"][3] == tokenizer(validation["sentence2"][1])["input_ids"]
    np.testing.assert_array_equal(task().references(pairs), [float(score) for score in validation["score"]])
    (folder / "book.txt").write_text("He came late. The\ncard is new. No.\n\nWhere is it now? He came late.")
    whole = SentenceEmbedding("book.txt", "test.tsv", "validation.tsv", split_sentences=True)
    assert whole.tables(folder, 0)[0]["sentence1"][:] == ["He came late.", "The card is new.", "Where is it now?"]
    several = SentenceEmbedding(["book.txt", "texts.txt"], "test.tsv", "validation.tsv", split_sentences=True)
    assert several.table(folder, "train")["sentence1"][:3] == ["He came late.", "The card is new.", "Where is it now?"]
    # Of a table of pairs both sides are learned; columns can be named.
    (folder / "more.jsonl").write_text('{"query": "where", "answer": "late"}\n')
    both = SentenceEmbedding("validation.tsv", "test.tsv", "validation.tsv").tables(folder, 0)[0]
    assert len(both) == len({*validation["sentence1"], *validation["sentence2"]})
    named = SentenceEmbedding("more.jsonl", "test.tsv", "validation.tsv", train_columns=["query", "answer"])
    assert named.tables(folder, 0)[0]["sentence1"][:] == ["where", "late"]


def test_texts_that_are_cut_are_counted_behind_their_prompt(folder, tokenizer):
    length = len(tokenizer("lost money")["input_ids"])
    assert task(max_length=length).cut_rows(task().table(folder, "train"), tokenizer) == 0
    prompted = task(max_length=length, prompt="my ")
    assert prompted.cut_rows(task().table(folder, "train"), tokenizer) == 2
    pairs = Dataset.from_dict({"sentence1": ["lost money"], "sentence2": ["my lost money"]})
    assert task(max_length=length).cut_rows(pairs, tokenizer) == 1


def test_the_order_of_rows_changes_no_answer(folder, tokenizer):
    rows = task().tokenized(task().tables(folder, 0)[1], tokenizer, {})
    vectors = random(0, len(rows), 6).numpy()
    found = task().predictions(vectors, rows)
    by_hand = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(task().predictions(list(vectors[order]), rows.select(order)), found)
    np.testing.assert_array_equal(task().references(rows.select(order)), task().references(rows))
    assert task().value(task().references(rows), found) == pytest.approx(spearmanr(task().references(rows), found)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "own"}, "space: own; allowed: auto, teacher, principal"),
        ({"dimensions": [8, 8]}, r"dimensions: \[8, 8\]; allowed: different numbers from 1 on"),
        ({"metric": "accuracy"}, "metric: accuracy, which is of labels or label sets; allowed: pearsonr, spearmanr"),
        ({"text_pair_column": "sentence1"}, "text_column, text_pair_column, label_column: sentence1, sentence1, score"),
        ({"corpus_file": "corpus.jsonl"}, "corpus_file: corpus.jsonl, queries_file: None, qrels_file: None; allowed"),
        ({"qrels_file": "qrels.tsv"}, "qrels_file: qrels.tsv; allowed: corpus_file with queries_file"),
        ({"retrieval_k": 0}, "retrieval_k: 0; allowed: 1 or more"),
        ({"max_length": 2}, "max_length: 2; allowed: 3 or more"),
    ],
)
def test_settings_that_are_not_possible_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        task(**settings)


def test_pairs_must_be_there_to_choose_by():
    with pytest.raises(ValueError, match="validation_file: None; expected: a table of pairs with scores"):
        SentenceEmbedding("texts.txt", "test.tsv")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("texts.txt", "\n \n", "train_file: .*texts.txt, which is empty"),
        (
            "validation.tsv",
            "sentence1\tsentence2\ta\nb\tc\t1\n",
            "validation_file: column 'score' of .*; allowed: sentence1",
        ),
        (
            "validation.tsv",
            "sentence1\tsentence2\tscore\na\tb\thigh\n",
            "validation_file: 'high' in column 'score', row 1",
        ),
        ("test.tsv", "sentence1\tsentence2\tscore\na\tb\t1\nb\tc\t1\n", r"test_file: 2 row\(s\) of one score in"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', "corpus_file: _id 'a' in row 2"),
        (
            "qrels.tsv",
            "query-id\tcorpus-id\tscore\nq\tz\t1\n",
            "qrels_file: corpus-id 'z' in row 1 of .* of corpus_file",
        ),
    ],
)
def test_files_that_will_not_do_are_named(file, content, message, folder):
    (folder / "corpus.jsonl").write_text('{"_id": "d", "title": "A", "text": "card"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "where"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    files = {"corpus_file": "corpus.jsonl", "queries_file": "queries.jsonl", "qrels_file": "qrels.tsv"}
    assert "corpus_file: 1 texts, for 1 queries" in task(**files).check(folder)
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        task(**files).check(folder)
    assert "\n" not in str(error.value)


def write_recipe(root, tokenizer, change=lambda recipe: None):
    """A short recipe of all main stages, its teacher a folder of sentence-transformers, and its data."""
    teacher = embedder()
    del teacher.config.sentence_embedding  # which somebody else's has not
    teacher.base_model.save_pretrained(root / "teacher")
    tokenizer.save_pretrained(root / "teacher")
    teacher.config.sentence_embedding = SentenceHead()._asdict()
    write_sentence_folder(teacher, root / "teacher")
    (root / "texts.txt").write_text("\n".join(text for text, _ in sentences(160)))
    (root / "more.txt").write_text("\n".join(text for text, _ in sentences(40, seed=3)))
    write_pairs(root / "validation.tsv", 32, 10)
    write_pairs(root / "test.tsv", 40, 20)
    for name, count, seed in (("corpus", 30, 5), ("queries", 6, 7)):
        lines = [
            json.dumps({"_id": f"{name[0]}{i}", "text": text}) for i, (text, _) in enumerate(sentences(count, seed))
        ]
        (root / f"{name}.jsonl").write_text("\n".join(lines))
    (root / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\tc{i}\t1\n" for i in range(5)))
    files = {"train_file": "texts.txt", "validation_file": "validation.tsv", "test_file": "test.tsv"}
    files |= {"corpus_file": "corpus.jsonl", "queries_file": "queries.jsonl", "qrels_file": "qrels.tsv"}
    recipe = {
        "name": "vectors",
        "output_dir": str(root / "run"),
        "teacher": {"model": "teacher"},
        "task": {"type": "sentence_embedding", "max_length": 24, "dimensions": [16, 8], **files},
        "raw_text": {"files": ["validation.tsv"], "text_column": "sentence1", "max_length": 24, "pack": False},
        "student": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 64},
        "threads": 1,
        "stages": [
            {"stage": "distill", "relation_heads": 8, "max_steps": 4},
            {"stage": "task_distill", "max_steps": 30, "learning_rate": 3e-3, "also": [{"method": "similarities"}]},
            {"stage": "prune", "head_sparsity": 0.5, "ffn_sparsity": 0.5, "max_steps": 4},
            {"stage": "prune_vocabulary"},
            {"stage": "quantize", "max_steps": 4, "hard_weight": 0.0},
            {"stage": "export", "fidelity_texts": 16},
            {"stage": "evaluate"},
            {"stage": "benchmark", "sentences": 8, "rounds": 2},
            {"stage": "report", "repo_id": str(root / "run/artefact")},
        ],
    }
    recipe["task"]["unlabelled_files"] = ["more.txt"]
    change(recipe)
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return str(root / "recipe.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("vectors")
    assert main(["run", write_recipe(root, tokenizer)]) == 0
    return root / "run"


@pytest.mark.long
def test_every_stage_speaks_of_the_correlation(finished):
    records = {file.stem: json.loads(file.read_text()) for file in (finished / "stages").glob("*.json")}
    assert {records[name]["metric"] for name in ("task_distill", "prune", "quantize")} == {"spearmanr"}
    results = json.loads((finished / "evaluate/results.json").read_text())
    lines = [line.split("\t") for line in (finished.parent / "test.tsv").read_text().splitlines()[1:]]
    scores = [float(line[3]) for line in lines]
    for name, predictions in load_file(finished / "evaluate/predictions.safetensors").items():
        assert results[name]["value"] == pytest.approx(spearmanr(scores, predictions)[0], abs=1e-6)
        assert (results[name]["metric"], results[name]["n"]) == ("spearmanr", 40)
    found = {row["model"]: row for row in json.loads((finished / "evaluate/retrieval.json").read_text())}
    assert found["teacher_onnxruntime_fp32"]["recall"] == 1
    assert all(0 <= row["ndcg"] <= 1 for row in found.values())
    rows = json.loads((finished / "artefact/given_out.json").read_text())
    int8 = [row for row in rows if row["model"] == "student_onnxruntime_int8"]
    shapes = [(row["dimensions"], row["precision"], row["bytes"]) for row in int8]
    assert shapes == [
        (16, "float32", 64),
        (16, "int8", 16),
        (16, "bits", 2),
        (8, "float32", 32),
        (8, "int8", 8),
        (8, "bits", 1),
    ]
    assert int8[0]["value"] == pytest.approx(results["student_onnxruntime_int8"]["value"], abs=1e-6)


@pytest.mark.long
def test_the_student_learns_the_teachers_vectors_on_their_principal_directions(finished):
    vectors = torch.from_numpy(np.load(finished / "cache/vectors.npy")).double()
    learned = np.load(finished / "cache/principal.npy")
    texts = len({text for text, _ in sentences(160)}) + len({text for text, _ in sentences(40, seed=3)})
    assert learned.shape == (texts + 64, 16)
    expected = torch.nn.functional.normalize(vectors @ principal_directions(vectors[:texts], 16).double(), dim=1)
    np.testing.assert_allclose(learned, expected.numpy(), atol=1e-3)


@pytest.mark.long
def test_sentence_transformers_reads_the_artefact(finished):
    library = pytest.importorskip("sentence_transformers")
    artefact = finished / "artefact"
    model = load_pruned(artefact, AutoModelForSentenceEmbedding).eval()
    assert SentenceHead.of(model.config).dimensions == (16, 8)
    reader = library.SentenceTransformer(str(artefact), device="cpu")
    texts = ["where is my card", "send the money"]
    found = torch.tensor(reader.encode(texts))
    inputs = reader.tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).sentence_embedding, found, rtol=1e-4, atol=1e-5)
    assert reader.get_sentence_embedding_dimension() == 16
    assert reader.max_seq_length == 24


@pytest.mark.long
def test_the_card_tells_of_vectors_and_its_snippets_run(finished, monkeypatch):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("optimum.onnxruntime", reason="Optimum's ONNX part ends with transformers 4.57")
    card = (finished / "artefact/README.md").read_text()
    assert "library_name: sentence-transformers" in card
    assert "pipeline_tag: sentence-similarity" in card
    assert "| 8 | bits | 1 |" in card
    page = (finished / "artefact/report.html").read_text()
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page[page.index("Shorter and smaller vectors") :])
    table = card[card.index("| dimensions | precision | bytes |") :].splitlines()[2:8]
    assert cells[:24] == [cell.strip() for line in table for cell in line.strip("|").split("|")]
    assert "they are not in the space of its teacher's" in card
    assert "regression" not in card
    by_library, alone, *_ = run_snippets(card, monkeypatch)
    similarity = float(by_library.split()[1].strip("[],"))
    assert float(alone) == pytest.approx(similarity, abs=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["stages"].insert(0, {"stage": "finetune"}), "finetune.stage: finetune for sentence_embedding"),
        (lambda r: r["task"].update(dimensions=[17]), "task.dimensions: 17; allowed: 1 to 16, the vectors' width"),
        (lambda r: r["stages"][1].update(soft_weight=0.0, hard_weight=1.0, also=[]), "task_distill.soft_weight: 0"),
        (lambda r: r["teacher"].update(ensemble=["teacher"]), "teacher.ensemble: for sentence_embedding"),
        (lambda r: r["stages"].insert(-1, {"stage": "rivals"}), "rivals.stage: rivals for sentence_embedding"),
    ],
)
def test_what_makes_no_sense_is_one_line_before_weights_load(change, message, tmp_path, tokenizer, capsys):
    path = write_recipe(tmp_path, tokenizer, change)
    assert main(["run", path, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("method", ["minilmv2", "distilbert"])
def test_similarities_of_models_that_give_no_vectors_are_one_line(method, tmp_path, tokenizer, capsys):
    def change(recipe):
        stage = {"stage": "distill", "method": method, "max_steps": 2, "also": [{"method": "similarities"}]}
        recipe["stages"] = [stage | ({"relation_heads": 8} if method == "minilmv2" else {})]
        recipe["student"] = {"num_hidden_layers": 2}
        if method == "minilmv2":
            del recipe["task"]

    assert main(["run", write_recipe(tmp_path, tokenizer, change), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "distill.also: similarities of models without a task's head; allowed: beside a task" in error
    assert error.count("\n") == 1


def test_a_student_wider_than_the_teachers_vectors_is_told_of_their_space(tmp_path, tokenizer, capsys):
    def change(recipe):
        recipe["student"] = {"checkpoint": "published"}

    path = write_recipe(tmp_path, tokenizer, change)
    tiny(head=AutoModel, num_hidden_layers=2, hidden_size=64).save_pretrained(tmp_path / "published")
    tokenizer.save_pretrained(tmp_path / "published")
    assert main(["run", path, "--dry-run"]) == 2
    told = "auto for a student of width 64, more than the teacher's vectors have (32); allowed: teacher"
    assert f"task.space: {told}\n" in capsys.readouterr().err
    assert main(["run", path, "--dry-run", "--set", "task.space=teacher"]) == 0


def test_a_recipe_of_texts_is_checked(tmp_path, tokenizer, capsys):
    path = write_recipe(tmp_path, tokenizer, lambda recipe: recipe["task"].update(max_length=6))
    assert main(["run", path, "--dry-run"]) == 0
    assert "row(s) cut at 6 tokens" in capsys.readouterr().out


def test_the_prompts_pieces_are_counted_where_the_vocabulary_is_cut(tmp_path, tokenizer):
    def change(recipe):
        (tmp_path / "texts.txt").write_text("card\nmoney\n")
        recipe["task"] |= {"prompt": "where ", "unlabelled_files": []}
        recipe["stages"][3]["min_count"] = 2  # which no piece but the prompt's reaches

    assert main(["run", write_recipe(tmp_path, tokenizer, change), "--dry-run"]) == 0


def test_a_teacher_without_modules_is_named(tmp_path, tokenizer, capsys):
    path = write_recipe(tmp_path, tokenizer)
    (tmp_path / "teacher/modules.json").unlink()
    assert main(["run", path, "--dry-run"]) == 2
    assert "teacher.model: teacher, which has no sentence-embedding head" in capsys.readouterr().err


@pytest.mark.long
def test_a_student_in_the_teachers_space_ships_a_dense_layer(tmp_path, tokenizer):
    def change(recipe):
        recipe["task"] |= {"space": "teacher", "dimensions": []}
        kept = ("task_distill", "quantize", "export", "evaluate")
        recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] in kept]

    assert main(["run", write_recipe(tmp_path, tokenizer, change)]) == 0
    student = tmp_path / "run/export/student"
    assert (student / "2_Dense/model.safetensors").is_file()
    model = load_pruned(student, AutoModelForSentenceEmbedding)
    assert SentenceHead.of(model.config).dense == 32
    assert not (tmp_path / "run/cache/principal.npy").exists()


@pytest.mark.long
@pytest.mark.parametrize("space", ["auto", "teacher"])
def test_a_published_student_a_teachers_dense_layer_and_its_prompt(space, tmp_path, tokenizer):
    def change(recipe):
        recipe["student"] = {"checkpoint": "published"}
        recipe["task"] |= {"space": space, "dimensions": [], "prompt": "where "}
        kept = ("task_distill", "export", "evaluate")
        recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] in kept]

    path = write_recipe(tmp_path, tokenizer, change)
    shape = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    tiny(head=AutoModel, **shape).save_pretrained(tmp_path / "published")
    tokenizer.save_pretrained(tmp_path / "published")
    head = SentenceHead("mean", 24, "tanh")
    teacher = save(embedder(head=head), tmp_path / "teacher")
    config = json.loads((teacher / "config.json").read_text())
    del config["sentence_embedding"]
    (teacher / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    weights = load_file(teacher / "model.safetensors")  # the dense layer stands in the file of its module alone
    weights = {name: value for name, value in weights.items() if not name.startswith("projection")}
    save_file(weights, teacher / "model.safetensors", {"format": "pt"})
    told = {"prompts": {"query": "where "}, "default_prompt_name": "query"}
    (teacher / "config_sentence_transformers.json").write_text(json.dumps(told))
    assert main(["run", path]) == 0
    results = json.loads((tmp_path / "run/evaluate/results.json").read_text())
    same = [results[f"teacher_{runtime}_fp32"]["value"] for runtime in ("pytorch", "onnxruntime")]
    assert same[0] == pytest.approx(same[1], abs=1e-3)
    student = load_pruned(tmp_path / "run/export/student", AutoModelForSentenceEmbedding)
    assert SentenceHead.of(student.config) == SentenceHead("mean", {"auto": None, "teacher": 24}[space])._replace(
        activation={"auto": "identity", "teacher": "tanh"}[space]
    )
    assert prompts_of(student.config)[""] == "where "
    library = pytest.importorskip("sentence_transformers")
    reader = library.SentenceTransformer(str(tmp_path / "run/export/student"), device="cpu")
    assert reader.encode(["my card"]).shape == (1, {"auto": 16, "teacher": 24}[space])


def test_training_files_of_several_kinds_are_read_each_by_itself_and_no_text_twice(folder):
    (folder / "more-a.txt").write_text("a card\nnew\n")
    (folder / "more-b.tsv").write_text("text\nnew\nnewer\n")
    several = SentenceEmbedding(["texts.txt", "validation.tsv"], "test.tsv", "validation.tsv")
    several.unlabelled_files = ["more-*"]
    train = several.table(folder, "train")["sentence1"][:]
    assert train[:2] == ["a card", "lost money"]
    assert several.unlabelled_table(folder)["sentence1"][:] == ["new", "newer"]
    write_rows(several, folder, 0, folder / "run")
    first = (folder / "run/rows/task.json").read_text()
    (folder / "texts.txt").write_text("a card\nanother\n")
    write_rows(several, folder, 0, folder / "run")
    assert (folder / "run/rows/task.json").read_text() != first
    several.unlabelled_files = ["texts.txt"]
    with pytest.raises(ValueError, match=r"unlabelled_files: .*texts.txt, whose texts are all training texts; allowed"):
        several.check(folder)


def test_a_recipe_of_several_training_files_has_fingerprints(tmp_path, tokenizer):
    files = ["texts.txt", "validation.tsv"]
    path = write_recipe(tmp_path, tokenizer, lambda recipe: recipe["task"].update(train_file=files))
    recipe, _ = load_recipe(Path(path))
    before = [step.fingerprint for step in make_plan(recipe, tmp_path)]
    with (tmp_path / "texts.txt").open("a") as file:
        file.write("\none more")
    assert all(a != b.fingerprint for a, b in zip(before, make_plan(recipe, tmp_path), strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "further_tests.sick: .*sick.tsv"),
        ("sentence1\tsentence2\na\tb\n", "further_tests.sick: column 'score' of .*"),
    ],
)
def test_further_tests_are_checked(content, message, folder):
    if content is not None:
        (folder / "sick.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        task(further_tests={"sick": "sick.tsv"}).check(folder)


def test_pairs_that_stand_in_another_table_are_told(folder):
    (folder / "sick.tsv").write_text((folder / "test.tsv").read_text() + "new\tother\t1\t0\n")
    notes = task(further_tests={"sick": "sick.tsv"}).check(folder)
    assert "further_tests.sick: 12 of 13 rows have the text of a row of test_file" in notes
    (folder / "texts.txt").write_text("new\n")
    assert "further_tests.sick: 1 of 26 texts are training texts" in task(further_tests={"sick": "sick.tsv"}).check(
        folder
    )


def test_rows_without_scores_have_none(folder, tokenizer):
    table = Dataset.from_dict({"sentence1": ["a"]})
    assert task().tokenized(table, tokenizer, {}, with_labels=False).column_names == [
        "labels", "input_ids", "token_type_ids", "attention_mask",
    ]  # fmt: skip
