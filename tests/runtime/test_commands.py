"""`edgemin predict` and `edgemin verify`, of every task and every kind of file."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgemin_hf import cli
from edgemin_hf.cli import main
from edgemin_hf.runtime import load
from edgemin_hf.runtime.commands import read_texts
from edgemin_hf.utils import extras
from tests.runtime.conftest import TEXTS


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_text_and_a_file_of_each_kind_give_the_same(made, tmp_path, capsys, monkeypatch):
    folder = made("text_classification")[1]
    runtime = load(folder)
    expected = [
        {"label": label, "score": pytest.approx(float(row.max()), abs=1e-5)}
        for label, row in zip(runtime.predict(TEXTS), runtime.predict_proba(TEXTS), strict=True)
    ]
    (tmp_path / "rows.txt").write_text("\n".join(TEXTS) + "\n")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"id": 1, "text": text}) for text in TEXTS))
    (tmp_path / "rows.csv").write_text("id,text\n" + "\n".join(f'1,"{text}"' for text in TEXTS))
    (tmp_path / "rows.tsv").write_text("words\tid\n" + "\n".join(f"{text}\t1" for text in TEXTS))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS)))
    for arguments in (
        [argument for text in TEXTS for argument in ("--text", text)],
        [str(tmp_path / "rows.txt")],
        [str(tmp_path / "rows.jsonl")],
        [str(tmp_path / "rows.csv")],
        [str(tmp_path / "rows.tsv"), "--columns", "words"],
        ["-"],
    ):
        assert main(["predict", str(folder), *arguments]) == 0
        assert lines(capsys) == expected


def test_a_byte_order_mark_is_no_part_of_a_text(made, tmp_path, capsys):
    folder = str(made("text_classification")[1])
    (tmp_path / "rows.txt").write_text("where\n", encoding="utf-8-sig")
    (tmp_path / "rows.jsonl").write_text('{"text": "where"}\n', encoding="utf-8-sig")
    assert list(read_texts(str(tmp_path / "rows.txt"), ["text"])) == ["where"]
    for arguments in (["--text", "where"], [str(tmp_path / "rows.txt")], [str(tmp_path / "rows.jsonl")]):
        assert main(["predict", folder, *arguments]) == 0
    one, *others = lines(capsys)
    assert others == [one, one]


def test_a_line_of_the_standard_input_is_answered_before_the_next_comes(made, capsys, monkeypatch):
    answered = []

    def typed():
        for text in TEXTS:
            yield text + "\n"
            answered.append(len(lines(capsys)))

    monkeypatch.setattr("sys.stdin", typed())
    assert main(["predict", str(made("text_classification")[1]), "-"]) == 0
    assert answered == [1, 1, 1, 1]


def test_a_reader_that_goes_ends_it_quietly(made, tmp_path):
    """As `| head` does."""
    rows = tmp_path / "rows.txt"
    rows.write_text("where is my card\n" * 3000)
    code = "import sys; from edgemin_hf.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "predict", str(made("text_classification")[1]), str(rows)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("pairs", ["a", "b"], ["a", "b", "c"]),
        ("token_classification", ["a"], ["a", "b"]),
        ("sentence_embedding", ["a"], ["a", "b"]),
        ("question_answering", ["a", "b"], ["a"]),
    ],
)
def test_an_artefact_that_names_no_columns_has_as_many_as_its_task(made, tmp_path, capsys, name, allowed, refused):
    folder = shutil.copytree(made(name)[1], tmp_path / "edge")
    manifest = json.loads((folder / "edgemin.json").read_text())
    (folder / "edgemin.json").write_text(json.dumps(manifest | {"reading": {}}))
    table = tmp_path / "rows.jsonl"
    table.write_text(json.dumps({"a": "where", "b": "my card", "c": "late"}))
    for columns, code in ((allowed, 0), (refused, 2)):
        assert main(["predict", str(folder), str(table), "--columns", *columns]) == code
    assert f"--columns {' '.join(refused)}; allowed: " in capsys.readouterr().err


def test_every_task_has_an_answer(made, tmp_path, capsys):
    asked = {
        "multi_label": TEXTS[0],
        "regression": TEXTS[0],
        "token_classification": TEXTS[0],
        "sentence_embedding": TEXTS[0],
        "pairs": f"{TEXTS[0]}\t{TEXTS[1]}",
        "question_answering": f"where is it\t{TEXTS[0]}",
    }
    keys = {"multi_label": {"labels", "scores"}, "regression": {"score"}, "token_classification": {"entities"}}
    asked["reranking"], keys["reranking"] = asked["pairs"], {"score"}
    keys |= {"sentence_embedding": {"vector"}, "pairs": {"label", "score"}}
    for name, text in asked.items():
        assert main(["predict", str(made(name)[1]), "--text", text]) == 0
        (answer,) = lines(capsys)
        assert set(answer) == keys.get(name, {"answer", "score", "start", "end"})
    table = tmp_path / "rows.jsonl"
    table.write_text(json.dumps({"text": TEXTS[0], "reply": TEXTS[1]}) + "\n")
    assert main(["predict", str(made("pairs")[1]), str(table)]) == 0
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("text_classification", [], "--text or FILE: neither or both; allowed: one of them"),
        ("text_classification", ["nowhere.txt"], "FILE: nowhere.txt, which is no file; allowed: .txt, .jsonl"),
        ("text_classification", ["rows.parquet"], "FILE: rows.parquet; allowed: .txt, .jsonl, .csv, .tsv, or -"),
        ("text_classification", ["rows.jsonl"], "row 1 of rows.jsonl: no text in column 'text'; its columns: words"),
        ("text_classification", ["broken.jsonl"], "line 1 of broken.jsonl: no JSON object; expected: one a line"),
        ("text_classification", ["rows.jsonl", "--columns", "a", "b"], "--columns a b; allowed: 1, as the task's text"),
        ("text_classification", ["--text", "a", "--graph", "x.onnx"], "file: x.onnx; allowed: onnx/model.onnx"),
        ("text_classification", ["latin.txt"], "line 2 of latin.txt, which is not UTF-8 (byte 0xe9); expected: UTF-8"),
        ("text_classification", ["latin.jsonl"], "line 1 of latin.jsonl, which is not UTF-8 (byte 0xe9)"),
        ("text_classification", ["-"], "standard input: 'utf-8' codec can't decode byte 0xe9"),
        (
            "text_classification",
            ["half.jsonl"],
            r"texts: '\ud83d' among them; expected: texts, or pairs of texts, without",
        ),
        (
            "question_answering",
            ["--text", "a\t\ud83d"],
            r"context: '\ud83d'; expected: a text, without lone surrogates",
        ),
        ("pairs", ["--text", "a"], "--text a: no tab; expected: text and reply with a tab between"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(made, tmp_path, monkeypatch, capsys, name, arguments, told):
    folder = made(name)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.parquet").touch()
    (tmp_path / "broken.jsonl").write_text("[1]\n")
    (tmp_path / "rows.jsonl").write_text('{"words": "a"}\n')
    (tmp_path / "half.jsonl").write_text(r'{"text": "\ud83d"}')
    (tmp_path / "latin.txt").write_bytes(b"a\nb\xe9\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}\n')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xe9"), encoding="utf-8"))
    assert main(["predict", str(folder), *arguments]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "benchmark", "rivals", "sensitivity", "push"])
def test_what_needs_the_factory_says_what_to_install(command, monkeypatch, capsys):
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    more = {"sensitivity": ["--output", "x"], "push": ["me/x"]}
    assert main([command, "x", *more.get(command, [])]) == 2
    told = capsys.readouterr().err
    assert told == f"edgemin: edgemin {command} without torch; allowed: after pip install 'edgemin-hf[train]'\n"


def test_they_need_no_factory(made, monkeypatch, capsys):
    monkeypatch.setattr(cli, "check_factory", lambda what: pytest.fail(what))
    folder = str(made("text_classification")[1])
    assert main(["verify", folder]) == main(["predict", folder, "--text", "card"]) == 0
