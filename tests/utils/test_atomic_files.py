import pytest

from edgemin_hf.utils.atomic_files import atomic_folder, write_atomic


def test_an_atomic_folder_recovers_from_a_kill_between_its_renames(tmp_path):
    (tmp_path / ".a.old").mkdir()
    (tmp_path / ".a.old/precious").touch()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a"):
        raise RuntimeError
    assert (tmp_path / "a/precious").exists()


def test_an_atomic_folder_replaces_when_its_block_ends_well(tmp_path):
    with atomic_folder(tmp_path / "a" / "b") as folder:
        (folder / "old").touch()
    with atomic_folder(tmp_path / "a" / "b") as folder:
        (folder / "new").touch()
        assert (tmp_path / "a/b/old").exists()
    assert [file.name for file in (tmp_path / "a/b").iterdir()] == ["new"]
    write_atomic(tmp_path / "a/text", "ä")
    assert (tmp_path / "a/text").read_text(encoding="utf-8") == "ä"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b", "text"]
