from edgemin_hf.data import sources
from edgemin_hf.data.raw_text import TextFiles
from edgemin_hf.data.sentences import sentences_in, sentences_of

TEXT = 'He came late. "Where is\nmy card?" she asked. No.\n\nIt costs 3.5 pounds.'


def test_sentences_of_a_file_are_looked_for_once_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CACHE", tmp_path / "cache")
    read, pieces = [], TextFiles.pieces
    monkeypatch.setattr(TextFiles, "pieces", lambda files: read.append(files.paths[0].name) or pieces(files))
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text(TEXT)
    expected = ["He came late.", '"Where is my card?" she asked.', "It costs 3.5 pounds."]
    for name in ("a.txt", "a.txt", "b.txt"):
        assert list(sentences_in(tmp_path / name)) == expected
    assert read == ["a.txt"]
    (tmp_path / "a.txt").write_text(TEXT + "\n\nThe card is new.")
    assert list(sentences_in(tmp_path / "a.txt")) == [*expected, "The card is new."]
    assert read == ["a.txt", "a.txt"]


def test_files_longer_than_a_batch_are_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CACHE", tmp_path / "cache")
    monkeypatch.setattr("edgemin_hf.data.sentences._BATCH", 7)
    documents = [f"Card number {n} is lost. Where is card {n} now?" for n in range(30)]
    (tmp_path / "a.txt").write_text("\n\n".join(documents))
    assert list(sentences_in(tmp_path / "a.txt")) == [one for text in documents for one in sentences_of(text)]
