"""Token classification: sentences of every file kind, losses, predictions over windows, and a whole recipe."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value, load_from_disk
from datasets import Sequence as ListOf
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from transformers import AutoModel, AutoModelForTokenClassification, BertConfig, EvalPrediction, TrainingArguments

from edgemin_hf import DistillationTrainer, TaskDistillationConfig
from edgemin_hf.cli import main
from edgemin_hf.data.padding import PaddingCollator
from edgemin_hf.tasks import TextClassification, TokenClassification, task_of
from edgemin_hf.tasks.head import labelled
from tests.helpers.models import tiny
from tests.helpers.recipes import write_recipe
from tests.helpers.tasks import assert_every_stage_speaks_of, read_json, run_snippets

TAGS = {"O": 0, "B-sum": 1, "I-sum": 2, "B-thing": 3, "I-thing": 4}


def drawn(count, seed):
    """Sentences whose words tell their tags, but for one word in twenty."""
    generator, found = random.Random(seed), []
    for _ in range(count):
        words, tags = [], []
        for _ in range(generator.randint(3, 9)):
            chance = generator.random()
            if chance < 0.2:
                words += ["old", "cards"]
                tags += ["B-thing", "I-thing"]
            elif chance < 0.35:
                words.append("money")
                tags.append("B-sum")
            else:
                words.append(generator.choice(["where", "is", "my", "the", "to", "please", "now"]))
                tags.append("O" if generator.random() < 0.95 else "B-sum")
        found.append((words, tags))
    return found


def write(path, sentences):
    if path.suffix == ".jsonl":
        lines = [json.dumps({"tokens": words, "tags": tags}) for words, tags in sentences]
    else:
        lines = ["\n".join(map(" ".join, zip(words, tags, strict=True))) + "\n" for words, tags in sentences]
    path.write_text("\n".join(lines) + "\n")


def task_for(tmp_path, **settings):
    return TokenClassification(str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl"), **settings)


def rows_of(sentences, tokenizer, **settings):
    table = Dataset.from_dict({"tokens": [words for words, _ in sentences], "tags": [tags for _, tags in sentences]})
    task = TokenClassification("train.jsonl", "test.jsonl", **settings)
    return task, task.tokenized(table, tokenizer, TAGS)


# Files.


def test_lists_conll_files_and_spans_are_the_same_sentences(tmp_path):
    sentences = drawn(12, 0)
    write(tmp_path / "rows.jsonl", sentences)
    write(tmp_path / "rows.conll", sentences)
    lines = []
    for words, tags in sentences:
        text, spans = "", []
        for word, tag in zip(words, tags, strict=True):
            text += " " * bool(text)
            if tag[0] == "I":
                spans[-1]["end"] = len(text) + len(word)
            elif tag != "O":
                spans.append({"start": len(text), "end": len(text) + len(word), "label": tag[2:]})
            text += word
        lines.append(json.dumps({"text": text, "entities": spans}))
    (tmp_path / "spans.jsonl").write_text("\n".join(lines))
    task = task_for(tmp_path, spans_column="entities")
    expected = [[words for words, _ in sentences], [tags for _, tags in sentences]]
    for name in ("rows.jsonl", "rows.conll", "spans.jsonl"):
        task.check_rows(tmp_path / name)
        table = task.read(tmp_path / name)
        assert [table["tokens"][:], table["tags"][:]] == expected, name
    assert task.names_in(table) == list(TAGS)


def test_sentences_without_tags_come_from_words_texts_and_conll_files(tmp_path):
    words = ["the", "old", "cards", "are", "$", "5"]
    (tmp_path / "lines.txt").write_text("the old cards are $5\n\n")
    (tmp_path / "texts.csv").write_text("text,other\nthe old cards are $5,x\n   ,y\n")
    (tmp_path / "words.jsonl").write_text(json.dumps({"tokens": words}))
    write(tmp_path / "tagged.conll", [(words, ["O"] * 6)])
    for name in ("lines.txt", "texts.csv", "words.jsonl", "tagged.conll"):
        assert task_for(tmp_path, unlabelled_files=[name]).unlabelled_table(tmp_path)[:] == {"tokens": [words]}, name
    (tmp_path / "words.jsonl").write_text(json.dumps({"tokens": "the old cards"}))
    with pytest.raises(ValueError, match=r"'the old cards' in column 'tokens', row 1 of .*; allowed: a list of words"):
        task_for(tmp_path, unlabelled_files=["words.jsonl"]).unlabelled_table(tmp_path)


def test_class_labels_keep_their_names_and_their_order(tmp_path):
    names = ["B-thing", "I-thing", "O"]
    features = Features({"tokens": ListOf(Value("string")), "tags": ListOf(ClassLabel(names=names))})
    table = Dataset.from_dict({"tokens": [["old", "card", "is"]], "tags": [[0, 1, 2]]}, features)
    table.to_parquet(tmp_path / "rows.parquet")
    task = task_for(tmp_path)
    task.check_rows(tmp_path / "rows.parquet")
    found = task.read(tmp_path / "rows.parquet")
    assert task.names_in(found) == names
    assert task.encoded(found, {"O": 0, "B-thing": 1, "I-thing": 2}) == [[1, 2, 0]]


def test_tags_of_other_schemes_are_read_as_iob2(tmp_path):
    write(tmp_path / "rows.conll", [(["a", "b", "c"], ["I-X", "I-X", "B-X"])])
    assert task_for(tmp_path, scheme="iob1").read(tmp_path / "rows.conll")["tags"][0] == ["B-X", "I-X", "B-X"]
    loose = task_for(tmp_path)
    loose.check_rows(tmp_path / "rows.conll")
    assert loose.notes_on(loose.read(tmp_path / "rows.conll"))[0].startswith("1 I- tag(s) go on with an entity that")
    write(tmp_path / "rows.conll", [(["a", "b", "c"], ["S-X", "B-Y", "E-Y"])])
    assert task_for(tmp_path, scheme="iobes").read(tmp_path / "rows.conll")["tags"][0] == ["B-X", "B-Y", "I-Y"]


ROW = {"tokens": ["a", "b"], "tags": ["O", "B-X"]}
BAD_ROWS = {
    "no tag": ({"tags": ["O", "X"]}, r"tag 'X' in column 'tags', row 2 of .*; allowed with scheme iob2: O, B-TYPE"),
    "iobes": ({"tags": ["O", "S-X"]}, r"tag 'S-X' in column 'tags', row 2 of .*; allowed with scheme iob2"),
    "unequal": ({"tags": ["O"]}, r"row 2 of .*: 2 words and 1 tags; expected: one a word"),
    "no words": ({"tokens": [], "tags": []}, r"\[\] in column 'tokens', row 2 of .*; allowed: a list of words, one or"),
    "a number": ({"tags": [0, 1]}, r"0 in column 'tags', row 2 of .*; allowed: tags by name"),
    "a text": ({"tokens": "a b"}, r"'a b' in column 'tokens', row 2 of .*; allowed: a list of words"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_one_line(tmp_path, change, message):
    lines = [json.dumps(ROW), json.dumps({**ROW, **change})]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message) as raised:
        task_for(tmp_path).check_rows(tmp_path / "train.jsonl")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("settings", "message"), [
    ({"metric": "accuracy"}, "metric: accuracy"),
    ({"stride": 63}, "stride: 63; allowed: 0 to 62, below half of max_length"),
    ({"max_length": 7}, "max_length: 7; allowed: 8 or more"),
    ({"tags_column": "tokens"}, "tags_column: tokens, tokens as columns; expected: different ones"),
])  # fmt: skip
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenClassification("a", "b", **settings)


# Rows, losses, predictions.


def test_the_first_pieces_are_labelled_or_all(tokenizer):
    sentence = [(["old", "cards", "is"], ["B-thing", "I-thing", "O"]), (["cards"], ["B-sum"])]
    _, rows = rows_of(sentence, tokenizer)
    assert rows["labels"][:] == [[-100, 3, 4, -100, 0, -100], [-100, 1, -100, -100]]
    assert rows["counted"][:] == [[0, 1, 1, 0, 1, 0], [0, 1, 0, 0]]
    _, every = rows_of(sentence, tokenizer, label_all_tokens=True)
    assert every["labels"][:] == [[-100, 3, 4, 4, 0, -100], [-100, 1, 2, -100]]
    assert every["word_ids"][:] == rows["word_ids"][:]


@pytest.mark.parametrize("label_all_tokens", [False, True])
def test_windows_change_neither_what_is_learned_nor_what_is_read(tokenizer, label_all_tokens):
    sentences = [*drawn(20, 1), (["", "card"], ["O", "B-thing"])]
    settings = {"label_all_tokens": label_all_tokens}
    whole, whole_rows = rows_of(sentences, tokenizer, max_length=64, **settings)
    for size in ({"max_length": 8, "stride": 2}, {"max_length": 9, "stride": 0}):
        task, rows = rows_of(sentences, tokenizer, **size, **settings)
        assert len(rows) > len(whole_rows)
        assert task.references(rows) == whole.references(whole_rows) == [tags for _, tags in sentences]
        # A model that knows each token's tag by heart gives the truth back, whatever the order of the rows.
        order = np.random.default_rng(0).permutation(len(rows))
        mixed = rows.select(order)
        outputs = [np.eye(5, dtype=np.float32)[np.maximum(row["labels"], 0)] for row in mixed]
        expected = [["O", "B-thing"] if words[0] == "" else tags for words, tags in sentences]
        assert task.predictions(outputs, mixed) == expected
        if not label_all_tokens:  # each word once
            assert sum(map(sum, rows["counted"])) == sum(map(sum, whole_rows["counted"]))


def formula(logits, target, counted, temperature):
    """Reference in NumPy: a mean over a sentence's own tokens, then over sentences."""

    def probabilities(values):
        shifted = np.exp(values / temperature - (values / temperature).max())
        return shifted / shifted.sum()

    sentences = []
    for ours, theirs, own in zip(logits, target, counted, strict=True):
        found = []
        for one, other, counts in zip(ours, theirs, own, strict=True):
            if counts:
                p, q = probabilities(other), probabilities(one)
                found.append((p * np.log(p / q)).sum())
        sentences.append(np.mean(found) if found else 0)
    return np.mean(sentences)


def test_losses_are_the_formulas_and_padding_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    logits, target = (2 * torch.randn(3, 6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    counted = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    labels = torch.randint(5, (3, 6), generator=generator).masked_fill(~counted, -100)
    soft = TokenClassification.soft_loss(logits, target, 2.0, counted).item()
    assert soft == pytest.approx(4 * formula(logits.numpy(), target.numpy(), counted.numpy(), 2.0), rel=1e-10)
    moved = TokenClassification.divergence(logits, target, counted).item()
    assert moved == pytest.approx(formula(logits.numpy(), target.numpy(), counted.numpy(), 1.0), rel=1e-10)
    assert TokenClassification.divergence(logits, logits, counted) == 0
    values = -logits.log_softmax(-1).numpy()
    of_rows = [np.mean([values[r, p, labels[r, p]] for p in range(6) if counted[r, p]]) for r in range(2)]
    assert TokenClassification.hard_loss(logits, labels).item() == pytest.approx(sum(of_rows) / 3, rel=1e-10)
    wide, far = (torch.cat([side, torch.full((3, 4, 5), 9.0)], 1) for side in (logits, target))
    more = torch.cat([counted, torch.zeros(3, 4).bool()], 1)
    assert TokenClassification.soft_loss(wide, far, 2.0, more).item() == pytest.approx(soft, rel=1e-12)
    tokens = TokenClassification.hard_loss(logits[counted], labels[counted])
    assert tokens.item() == pytest.approx(torch.nn.functional.cross_entropy(logits[counted], labels[counted]).item())
    assert labelled(labels).tolist() == [True, True, False]
    assert torch.autograd.gradcheck(
        lambda x: TokenClassification.soft_loss(x, target, 2.0, counted), logits.requires_grad_()
    )


def test_the_metric_in_training_cuts_off_what_a_trainer_pads(tokenizer):
    task, rows = rows_of(drawn(15, 2), tokenizer, max_length=9, stride=2)
    generator = np.random.default_rng(0)
    outputs = [generator.normal(size=(len(row["input_ids"]), 5)).astype(np.float32) for row in rows]
    padded = np.full((len(rows), 12, 5), -100, dtype=np.float32)
    for row, output in zip(padded, outputs, strict=True):
        row[: len(output)] = output
    found = task.compute_metrics(EvalPrediction(padded, None), rows)["seqeval"]
    predictions, references = task.predictions(outputs, rows), task.references(rows)
    assert found == pytest.approx(f1_score(references, predictions, mode="strict", scheme=IOB2))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("size", [2, 5])
def test_a_trainer_gives_each_tokens_outputs_whatever_the_batches(tmp_path, tokenizer, side, size):
    """RoBERTa numbers its positions by the tokens that are no padding."""
    _, rows = rows_of(drawn(7, 3), tokenizer, max_length=9, stride=2)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = side
    model = tiny("roberta", head=AutoModelForTokenClassification, id2label=dict(enumerate(TAGS)), label2id=TAGS)
    args = TrainingArguments(str(tmp_path), per_device_eval_batch_size=size, report_to=[], use_cpu=True)
    trainer = DistillationTrainer(
        model, None, args, distillation_config=TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0),
        train_dataset=rows, eval_dataset=rows, processing_class=tokenizer, data_collator=PaddingCollator(tokenizer),
    )  # fmt: skip
    found = trainer.predict(rows)
    losses = []
    for row, output in zip(rows, found.predictions, strict=True):
        with torch.no_grad():
            alone = model(torch.tensor([row["input_ids"]])).logits
        np.testing.assert_allclose(output[: len(row["input_ids"])], alone[0], atol=1e-5)
        losses.append(TokenClassification.hard_loss(alone, torch.tensor([row["labels"]])).item())
    assert found.metrics["test_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_models_class_tells_its_task():
    model = tiny(head=AutoModelForTokenClassification)
    assert task_of(model) is TokenClassification
    assert task_of(tiny()) is TextClassification
    assert task_of(BertConfig(architectures=["BertForTokenClassification"], num_labels=5)) is TokenClassification


def test_models_whose_labels_are_no_tags_are_refused(tmp_path):
    table = Dataset.from_dict({"tokens": [["a"]], "tags": [["B-sum"]]})
    task = task_for(tmp_path)
    with pytest.raises(ValueError, match=r"tag 'LABEL_0'; allowed with scheme iob2: .*, of the model"):
        task.check_labels(table, BertConfig(num_labels=3))
    known = {"id2label": {0: "O", 1: "B-x"}, "label2id": {"O": 0, "B-x": 1}}
    with pytest.raises(ValueError, match=r"label 'B-sum', which the model does not know"):
        task.check_labels(table, BertConfig(**known))


# A whole recipe.

STAGES = [
    {"stage": "finetune", "max_steps": 100, "learning_rate": 1e-3},
    {"stage": "distill", "relation_heads": 8, "max_steps": 2},
    {"stage": "distill_on_task", "method": "tinybert", "attention_weight": 0, "max_steps": 2},
    {
        "stage": "task_distill",
        "max_steps": 20,
        "learning_rate": 1e-3,
        "also": [{"method": "minilmv2", "relation_heads": 8}],
    },
    {"stage": "prune", "head_sparsity": 0.5, "ffn_sparsity": 0.5, "schedule": "cubic", "rounds": 2, "max_steps": 8},
    {"stage": "prune_vocabulary"},
    {"stage": "quantize", "max_steps": 4, "reconstruction": {"steps": 2, "modules": 1}},
    {"stage": "export", "fidelity_texts": 16},
    {"stage": "evaluate"},
    {"stage": "benchmark", "sentences": 8, "rounds": 1},
    {"stage": "rivals", "sentences": 4, "rounds": 1},
    {"stage": "report"},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("tokens")
    tiny(head=AutoModel).save_pretrained(root / "teacher")
    tokenizer.save_pretrained(root / "teacher")
    for name, count, seed in (("train", 120, 0), ("validation", 30, 10), ("test", 40, 20)):
        write(root / f"{name}.jsonl", drawn(count, seed))
    write(root / "test.conll", drawn(40, 20))
    (root / "raw.txt").write_text("\n\n".join(" ".join(words) for words, _ in drawn(200, 30)))
    return root


def recipe_of(root, run, stages=STAGES, **changes):
    def change(recipe):
        files = {"train_file": "train.jsonl", "validation_file": "validation.jsonl", "test_file": "test.conll"}
        recipe["task"] = {"type": "token_classification", "max_length": 12, "stride": 3, **files, **changes}
        recipe["raw_text"] = {"files": ["raw.txt"], "max_length": 24, "validation_blocks": 4}
        recipe["output_dir"], recipe["stages"] = str(root / run), copy.deepcopy(stages)
        recipe["stages"][-1] |= {"repo_id": str(root / run / "artefact")} if stages[-1]["stage"] == "report" else {}

    return write_recipe(root, change, f"{run}.yaml")


@pytest.fixture(scope="module")
def run(root):
    assert main(["run", str(recipe_of(root, "run"))]) == 0
    return root / "run"


@pytest.mark.long
def test_every_stage_speaks_of_the_metric(run):
    assert_every_stage_speaks_of("seqeval", run, 40, learns="finetune")
    assert "Each word gets one of the tags" in (run / "artefact/README.md").read_text()
    assert "with its head fitted" in read_json(run / "stages/finetune.json")["notes"][0]


@pytest.mark.long
def test_what_is_measured_are_the_predictions(run, root):
    lines = [json.loads(line) for line in (run / "evaluate/predictions.jsonl").read_text().splitlines()]
    truth = [tags for _, tags in drawn(40, 20)]
    results = read_json(run / "evaluate/results.json")
    assert set(results) == set(lines[0])
    for name, found in results.items():
        said = [line[name] for line in lines]
        assert found["value"] == pytest.approx(f1_score(truth, said, mode="strict", scheme=IOB2)), name
        assert found["value"] > 0.7, name
        assert 0 < found["ci95"][0] < found["ci95"][1] <= 1


@pytest.mark.long
def test_the_teachers_outputs_lie_in_one_flat_file(run):
    flat = np.load(run / "cache/token_logits.npy", mmap_mode="r")
    words = sum(len(words) for words, _ in [*drawn(120, 0), *drawn(30, 10)])
    assert (flat.shape, flat.dtype) == ((words, 5), np.float16)


@pytest.mark.long
def test_the_cards_snippets_run_as_they_stand(run, monkeypatch):
    card = (run / "artefact/README.md").read_text()
    assert 'aggregation_strategy="simple"' in card
    answers = run_snippets(card, monkeypatch)
    assert len(answers) >= 2
    assert "ORTModelForTokenClassification" in card


@pytest.mark.long
def test_rivals_are_those_that_tag_words(run):
    found = read_json(run / "rivals/rivals.json")
    names = [row["name"].partition(",")[0] for row in found["rows"]]
    assert {"this student", "frozen encoder", "fine-tuned teacher", "student's shape"} <= set(names)
    for name in ("bag_of_words", "static_embeddings"):
        assert f"{name} for token_classification; allowed: for tasks on whole texts" in found["left_out"]
    results = read_json(run / "evaluate/results.json")
    assert found["rows"][0]["value"] == results["student_onnxruntime_int8"]["value"]
    assert all(row["ahead"]["ci95"][0] <= row["ahead"]["value"] for row in found["rows"][1:])


@pytest.mark.long
def test_sensitivity_is_measured_on_the_runs_own_sentences(run, root):
    measure = ["--measure", "pruning", "quantization", "--sparsities", "0.5"]
    assert main(["sensitivity", str(run / "task_distill"), "--output", str(root / "costs"), *measure]) == 0
    found = read_json(root / "costs/sensitivity.json")
    assert (found["base"]["metric"], found["base"]["n"]) == ("seqeval", 30)
    assert found["base"]["value"] == pytest.approx(read_json(run / "stages/task_distill.json")["after"], abs=1e-6)
    assert found["quantization"][0]["loss"] > 0
    assert all(np.isfinite(row["value"]) for row in found["measurements"])


@pytest.mark.long
def test_inputs_that_were_run_are_kept(run):
    inputs = load_from_disk(str(run / "evaluate/inputs/student"))
    assert set(inputs.column_names) == {"input_ids", "token_type_ids", "attention_mask"}


def test_a_killed_distillation_goes_on_with_the_same_outputs_to_the_same_weights(root, monkeypatch, capsys):
    """It finds the teacher's outputs in their file, with the bits that were learned before."""
    stages = [
        {"stage": "finetune", "max_steps": 8, "learning_rate": 1e-3},
        {"stage": "task_distill", "max_steps": 6, "save_steps": 2, "hard_weight": 0.0, "soft_weight": 1.0},
    ]
    (root / "more.txt").write_text("\n".join(" ".join(words) for words, _ in drawn(50, 40)))
    more = {"unlabelled_files": ["more.txt"]}
    assert main(["run", str(recipe_of(root, "complete", stages, **more))]) == 0
    path, step = str(recipe_of(root, "killed", stages, **more)), DistillationTrainer.training_step
    seen = []

    def killed(trainer, *arguments, **named):
        seen.append(trainer.state.global_step)
        if len(seen) == 8 + 4:
            raise KeyboardInterrupt
        return step(trainer, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(DistillationTrainer, "training_step", killed)
        assert main(["run", path]) == 130
    stamp = (root / "killed/cache/token_logits.npy").stat().st_mtime_ns
    assert main(["run", path]) == 0
    assert "stage task_distill: resumed at step" in capsys.readouterr().out
    assert (root / "killed/cache/token_logits.npy").stat().st_mtime_ns == stamp
    for file in ("cache/token_logits.npy", "task_distill/model.safetensors"):
        assert (root / "killed" / file).read_bytes() == (root / "complete" / file).read_bytes(), file
    told = sum(len(words) for words, _ in [*drawn(120, 0), *drawn(30, 10), *drawn(50, 40)])
    assert np.load(root / "complete/cache/token_logits.npy", mmap_mode="r").shape == (told, 5)


def test_the_plan_tells_what_there_is_to_know(root, capsys):
    short = [STAGES[0], STAGES[3]]
    assert main(["run", str(recipe_of(root, "plan", short)), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "5 labels, by number: 0 = O, 1 = B-sum, 2 = I-sum, 3 = B-thing, 4 = I-thing" in told
    assert "the teacher's outputs for each token: up to about 0.0 MB in" in told


@pytest.mark.parametrize(("setting", "message"), [
    ("task.train_file=test.conll", "test_file: test.conll, whose texts are those of train_file; expected: other rows"),
    ("student.head=mean", "student.head: mean for token_classification, which reads every token; allowed: auto"),
    ("task.tags_column=ner", "task.train_file: column 'ner' of"),
    ("teacher.model=others", "which has no token-classification head; allowed without the stage finetune"),
])  # fmt: skip
def test_what_can_not_be_is_one_line_before_weights_load(root, tokenizer, capsys, setting, message):
    if not (root / "others").exists():
        tiny(num_labels=5).save_pretrained(root / "others")
        tokenizer.save_pretrained(root / "others")
    stages = [STAGES[3]] if "others" in setting else [STAGES[0]]
    path = recipe_of(root, f"bad{len(message)}", stages)
    assert main(["run", str(path), "--dry-run", "--set", setting]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(("stage", "message"), [
    ({"stage": "augment"}, "augment.stage: augment for token_classification; allowed: for tasks on whole texts"),
    ({"stage": "task_distill", "max_steps": 2, "also": [{"method": "mlkd_task"}]}, "token_classification"),
])  # fmt: skip
def test_stages_that_make_no_sense_say_so(root, capsys, stage, message):
    stages = [STAGES[0], stage]
    assert main(["run", str(recipe_of(root, f"senseless-{stage['stage']}", stages)), "--dry-run"]) == 2
    assert message in capsys.readouterr().err
