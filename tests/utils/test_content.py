import hashlib

from edgemin_hf.data import TextFiles
from edgemin_hf.utils.content import sha256_of


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    read = []
    own = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(file.name) or own(file, name))
    path = tmp_path / "text.txt"
    path.write_text("my card")
    for _ in range(3):
        assert sha256_of(path) == hashlib.sha256(b"my card").hexdigest()
        assert TextFiles([path]).fingerprint()[1][1] == sha256_of(path)
    assert len(read) == 1
    path.write_text("your card")
    assert sha256_of(path) == hashlib.sha256(b"your card").hexdigest()
