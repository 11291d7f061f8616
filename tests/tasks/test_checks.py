"""What tables must be to themselves and to each other: told or refused by `--dry-run`, before any weights."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from transformers import PreTrainedModel

from edgemin_hf.cli import main
from edgemin_hf.tasks import MultiLabel, Regression, Reranking, TextClassification
from tests.helpers.models import sentences, tiny, write_tsv
from tests.helpers.recipes import only, put, write_recipe


def rows(count, start=0, label=lambda number: number % 3):
    return [(f"text {number}", label(number)) for number in range(start, start + count)]


def write(path, rows, header="text,label"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "train.csv", rows(30))
    write(tmp_path / "test.csv", rows(9, 100))
    return tmp_path


def check(root, kind=TextClassification, **settings):
    return kind("train.csv", "test.csv", **settings).check(root)


def test_labels_and_their_order_are_told_and_nothing_else_of_plain_tables(root):
    write(root / "train.csv", rows(60, label=lambda number: number % 12))
    notes = check(root)
    assert notes == ["12 labels, by number: 0 = 0, 1 = 1, 2 = 2, 3 = 3, 4 = 4, 5 = 5, ..., 11 = 11"]


REFUSED = {
    "a label of the test table alone": ({"test.csv": [*rows(8, 100), ("news", 7)]}, "test_file: label_column: '7' in"),
    "a text that the test table lacks": (
        {"test.jsonl": '{"text": "a", "label": 0}\n{"text": null, "label": 1}\n'}, "test_file: None in column 'text'",
    ),
    "a column that the test table lacks": ({"test.csv": "sentence,label\na,0\nb,1\n"}, "test_file: column 'text' of"),
    "a label of the validation table alone": ({"validation.csv": [("a", 0), ("b", 9)]}, "validation_file: label"),
    "one class": ({"train.csv": rows(30, label=lambda _: "a")}, "label_column: 'a' in every row of train_file"),
    "one row": ({"train.csv": rows(1), "test.csv": rows(9, 100, lambda _: 0)}, "(label_column|train_file): "),
    "one row to test": ({"test.csv": rows(1, 100)}, r"test_file: 1 row\(s\); expected: 2 or more"),
    "texts as labels": ({"train.csv": [(label, text) for text, label in rows(30)]}, "label_column: 30 labels in 30"),
    "the training table": ({"test.csv": rows(30)}, "test_file: test.csv, whose texts are those of train_file"),
    "the training table, shuffled": ({"test.csv": rows(30)[::-1]}, "test_file: .*whose texts are those of train_file"),
    "the training table to choose by": ({"validation.csv": rows(30)}, "validation_file: .*those of train_file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_will_not_do_are_refused_at_the_start(case, root):
    files, message = REFUSED[case]
    for name, content in files.items():
        if isinstance(content, str):
            (root / name).write_text(content)
        else:
            write(root / name, content)
    test = "test.jsonl" if "test.jsonl" in files else "test.csv"
    validation = "validation.csv" if "validation.csv" in files else None
    with pytest.raises(ValueError, match=rf"^{message}") as error:
        TextClassification("train.csv", test, validation).check(root)
    assert len(str(error.value).splitlines()) == 1


def test_a_table_too_small_to_hold_rows_out(root):
    write(root / "train.csv", [("a", 0), ("b", 1)])
    write(root / "test.csv", [("c", 0), ("d", 1)])
    assert check(root)
    with pytest.raises(ValueError, match=r"train_file: 2 row\(s\), of which 2 are held out .*; expected: more"):
        check(root, validation_share=0.9)
    with pytest.raises(ValueError, match=r"train_file: 2 row.* 1 are held out"):
        check(root, Regression)  # no correlation of one row


@pytest.mark.parametrize("name", ["train", "test"])
def test_scores_that_are_all_the_same(root, name):
    write(root / f"{name}.csv", rows(30, 200, label=lambda _: 2.5))
    with pytest.raises(ValueError, match=rf"{name}_file: 2\.5 in column 'label', every row of .*; expected: scores"):
        check(root, Regression)


@pytest.mark.parametrize("score", ["1e300", "-1e39", "1_0", "1e400", "1,5", "nan"])
def test_scores_that_float32_cannot_hold_or_python_alone_reads(root, score):
    write(root / "train.csv", [*rows(29), ("one more", f'"{score}"')])
    with pytest.raises(ValueError, match=f"train_file: '{score}' in column 'label', row 30 of .*; allowed: a number"):
        check(root, Regression)


@pytest.mark.parametrize("kind", [Regression, MultiLabel, Reranking])
def test_what_a_table_must_be_all_files_of_it_must_be_together(root, kind):
    """A file with one score, or without a label, is none by itself where another of the same table has some."""
    settings = {"label_columns": ["label"]} if kind is MultiLabel else {}
    header, extra = "text,label", ""
    if kind is Reranking:
        settings, header, extra = {"text_column": "text", "text_pair_column": "pair"}, "text,pair,label", ",passage"
    for name, start, label in (("train-0", 0, 0), ("train-1", 20, 1), ("test", 50, 1), ("test-0", 60, 0)):
        lines = [f"text {number}{extra},{label}" for number in range(start, start + 10)]
        (root / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    tests = ["test.csv", "test-0.csv"]
    kind(["train-0.csv", "train-1.csv"], tests, **settings).check(root)
    (root / "train-1.csv").write_text((root / "train-0.csv").read_text().replace("text ", "another "))
    with pytest.raises(ValueError, match=r"^train_file: "):
        kind(["train-0.csv", "train-1.csv"], tests, **settings).check(root)


def test_a_row_that_will_not_do_is_told_with_its_own_file(root):
    write(root / "more.csv", [("a", 1), ("b", "x")])
    write(root / "train.csv", rows(30))
    with pytest.raises(ValueError, match=r"^train_file: 'x' in column 'label', row 2 of .*more.csv; allowed: a number"):
        Regression(["train.csv", "more.csv"], "test.csv").check(root)


def test_rows_that_stand_in_two_tables_are_counted(root):
    write(root / "validation.csv", rows(4, 28))
    write(root / "test.csv", [*rows(2, 28), *rows(3, 31), *rows(5, 100)])
    notes = TextClassification("train.csv", "test.csv", "validation.csv").check(root)
    assert "validation_file: 2 of 4 rows have the text of a row of train_file" in notes
    assert "test_file: 2 of 10 rows have the text of a row of train_file" in notes
    assert "test_file: 3 of 10 rows have the text of a row of validation_file" in notes
    write(root / "train.csv", [*rows(30), *rows(3)])
    assert "train_file: 3 of 33 rows repeat another's text, and may be held out beside it" in check(root)


def test_what_looks_like_a_slip_is_told(root):
    labels = ["card", "Card", " card", "transfer"]
    write(root / "train.csv", [*rows(40, label=lambda number: labels[number % 4]), ("  ", "card")], "text;label")
    (root / "train.csv").write_text((root / "train.csv").read_text().replace(",", ";"))
    write(root / "test.csv", rows(9, 100, lambda _: "card"))
    notes = check(root)
    for note in (
        "train_file: its columns are taken to be separated by semicolons",
        "train_file: 1 row(s) without text in column 'text', the first is row 41",
        "train_file: white space around 10 label(s) left out",
        "labels that look alike: 'Card', 'card'",
        "3 labels, by number: 0 = Card, 1 = card, 2 = transfer",
    ):
        assert note in notes, notes


def test_texts_and_labels_are_different_columns():
    for columns in ({"text_column": "label"}, {"text_pair_column": "text"}):
        with pytest.raises(ValueError, match=r"label_column: label, texts in .*; expected: different columns"):
            TextClassification("train.csv", "test.csv", **columns)


def test_label_columns_of_the_test_table_are_read_to_the_end(root):
    write(root / "train.csv", [(text, label % 2, 1 - label % 2) for text, label in rows(30)], "text,x,y")
    write(root / "test.csv", [("a", 0, 1), ("b", 1, 2)], "text,x,y")
    with pytest.raises(ValueError, match=r"test_file: '2' in column 'y', row 2 of .*; allowed: 0, 1"):
        check(root, MultiLabel, label_columns=["x", "y"])


# The command.


@pytest.fixture
def no_weights(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)


def unnamed_teacher(place, labels):
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}
    tiny(**names).save_pretrained(place / "plain")
    for file in (place / "teacher").iterdir():
        if not (place / "plain" / file.name).exists():
            (place / "plain" / file.name).symlink_to(file)


def numbered(count, seed):
    return [(text, int(label == "transfer")) for text, label in sentences(count, seed)]


def plain_recipe(place, suffix="tsv"):
    def change(recipe):
        only("task_distill")(recipe)
        put("teacher.model", "plain", "task.train_file", f"a.{suffix}", "task.test_file", f"b.{suffix}")(recipe)

    return str(write_recipe(place, change))


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_a_teacher_without_names_for_its_labels_knows_them_by_number(place, capsys, no_weights, suffix):
    unnamed_teacher(place, ["LABEL_0", "LABEL_1"])
    for name, seed in (("a", 0), ("b", 1)):
        if suffix == "tsv":
            write_tsv(place / f"{name}.tsv", [(text, str(label)) for text, label in numbered(40, seed)])
        else:
            texts, labels = zip(*numbered(40, seed), strict=True)
            features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
            table = Dataset.from_dict({"text": list(texts), "label": list(labels)}, features)
            table.to_parquet(place / f"{name}.parquet")
    assert main(["run", plain_recipe(place, suffix=suffix), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "2 labels, by number: 0 = LABEL_0, 1 = LABEL_1" in out
    names = ("0", "1") if suffix == "tsv" else ("no", "yes")
    assert f"by the teacher's names: {names[0]} is LABEL_0, {names[1]} is LABEL_1" in out


def test_a_teacher_of_other_names_is_refused(place, capsys, no_weights):
    unnamed_teacher(place, ["bad", "good"])
    for name, seed in (("a", 0), ("b", 1)):
        write_tsv(place / f"{name}.tsv", [(text, str(label)) for text, label in numbered(40, seed)])
    assert main(["run", plain_recipe(place), "--dry-run"]) == 2
    assert "task: label '0', which the model does not know; allowed: bad, good" in capsys.readouterr().err


def test_a_label_that_only_the_teacher_and_the_test_table_have(place, capsys, no_weights):
    unnamed_teacher(place, ["a", "b", "c"])
    write_tsv(place / "a.tsv", [(text, "ab"[label]) for text, label in numbered(40, 0)])
    write_tsv(place / "b.tsv", [(text, "bc"[label]) for text, label in numbered(40, 1)])
    assert main(["run", plain_recipe(place), "--dry-run"]) == 0
    assert "3 labels, by number: 0 = a, 1 = b, 2 = c" in capsys.readouterr().out


def test_the_plan_tells_what_is_known_of_the_data(place, capsys, no_weights):
    assert main(["run", str(write_recipe(place)), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 labels, by number: 0 = card_problem, 1 = transfer" in lines
    assert lines[-1].startswith("About ")


def test_the_test_table_is_read_before_any_weights(place, capsys, no_weights):
    write_tsv(place / "odd.tsv", [*sentences(40, seed=1), ("my card", "news")])
    assert main(["run", str(write_recipe(place, put("task.test_file", "odd.tsv")))]) == 2
    error = capsys.readouterr().err
    assert "task.test_file: label_column: 'news' in the data; allowed: card_problem, transfer" in error
    assert len(error.splitlines()) == 1


def test_numbers_give_the_teacher_its_classes_in_their_order(place):
    """Whoever takes argmax gets the class of that number."""
    from edgemin_hf.recipe import Context, load_recipe

    write(place / "a.csv", rows(60, label=lambda number: number % 12))
    write(place / "b.csv", rows(24, 100, lambda number: number % 12))
    recipe, settings = load_recipe(write_recipe(place, put("task.train_file", "a.csv", "task.test_file", "b.csv")))
    context = Context(recipe, settings, place, place / "run")
    assert context.label_ids == {str(number): number for number in range(12)}
    assert context.labels["id2label"] == {number: str(number) for number in range(12)}


def test_classes_that_do_not_occur_are_no_labels(root):
    names = [f"class {number}" for number in range(151)]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    task = TextClassification("train.csv", "test.csv")
    drawn = Dataset.from_dict({"text": ["a"] * 200, "label": [number % 50 for number in range(200)]}, features)
    task.check_training(drawn)  # 151 classes in 200 rows
    alike = Dataset.from_dict({"text": ["a"] * 20, "label": [7] * 20}, features)
    with pytest.raises(ValueError, match=r"^label_column: 'class 7' in every row of train_file; expected: two"):
        task.check_training(alike)
    split = TextClassification(dataset="me/data", test_split="test")
    with pytest.raises(ValueError, match=r"in every row of train_split; expected: two"):
        split.check_training(alike)


def test_a_pattern_of_training_files_has_no_test_file(root):
    (root / "data").mkdir()
    for number, name in enumerate(("a", "b", "test")):
        write(root / f"data/{name}.csv", rows(12, 100 * number))
    with pytest.raises(ValueError, match=r"^test_file: .*test.csv, which is among the files of train_file; expected"):
        TextClassification("data/*.csv", "data/test.csv").check(root)
    with pytest.raises(ValueError, match=r"^further_tests.more: .*b.csv, which is among the files of train_file"):
        TextClassification("data/[ab].csv", "test.csv", further_tests={"more": "data/b.csv"}).check(root)
    TextClassification("data/[ab].csv", "data/test.csv").check(root)
