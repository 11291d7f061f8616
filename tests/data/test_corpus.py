import json
import os
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import (
    BertTokenizerFast,
    CanineTokenizer,
    DebertaTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    default_data_collator,
)

from edgemin_hf.data import corpus
from edgemin_hf.data.corpus import TokenBlocks, token_stream
from edgemin_hf.data.raw_text import TextFiles
from tests.helpers.hub_server import HubServer, Repo
from tests.helpers.models import VOCABULARY

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["where is my card\nplease", "the money is lost", "now", "", "send my new card to the old bank:  late " * 9]
DOCUMENTS += [f"money {'to ' * number}card" for number in range(30)]
LONG = "where is my new card, please:  now " * 1200
"""A document of three pieces, which have 16,384 characters at most."""
ENDINGS = (".txt", ".txt.zst", ".jsonl", ".jsonl.zst", ".json", ".parquet")


@pytest.fixture
def bert(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(VOCABULARY))
    return BertTokenizerFast(str(vocabulary))


def byte_level(tmp_path, tokenizer_class, specials):
    """A byte-level BPE tokenizer of RoBERTa's kind, trained on a few words."""
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(DOCUMENTS, vocab_size=320, special_tokens=specials, show_progress=False)
    trainer.save_model(str(tmp_path))
    return tokenizer_class(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))


@pytest.fixture
def roberta(tmp_path):
    return byte_level(tmp_path, RobertaTokenizerFast, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])


def write(path, documents):
    """Write documents in the format that the name says."""
    if ".txt" in path.name:
        data = "\n\n".join(documents).encode()
    elif path.suffix == ".parquet":
        parquet.write_table(pa.table({"id": range(len(documents)), "text": documents}), path)
        return path
    else:
        data = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(documents)).encode()
    with pa.output_stream(path, compression="zstd" if path.suffix == ".zst" else None) as stream:
        stream.write(data)
    return path


def packed(tokenizer, documents, max_length):
    """Blocks as the definition says, all in memory."""
    stream = []
    for document in documents:
        ids = tokenizer(document, add_special_tokens=False)["input_ids"]
        stream += [tokenizer.sep_token_id] * bool(stream and ids) + ids
    inner = max_length - 2
    starts = range(0, len(stream) - inner + 1, inner)
    first, last = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    return [[*first, *stream[start : start + inner], *last] for start in starts]


def blocks(source, tokenizer, max_length, cache):
    dataset = TokenBlocks(token_stream(source, tokenizer, cache), tokenizer, max_length)
    return [dataset[index]["input_ids"].tolist() for index in range(len(dataset))]


class Watched(TextFiles):
    """Files that count the pieces that are read of them, and break off where they are told to."""

    def __init__(self, paths, fail_at=None, delay=0.0):
        super().__init__(paths)
        self.texts, self.fail_at, self.delay = [], fail_at, delay

    def pieces(self, state=None):
        for piece in super().pieces(state):
            if len(self.texts) == self.fail_at:
                raise KeyboardInterrupt
            time.sleep(self.delay)
            self.texts.append(piece.text)
            yield piece


@pytest.fixture
def every_piece_is_committed(monkeypatch):
    monkeypatch.setattr(corpus, "BATCH_CHARACTERS", 1)
    monkeypatch.setattr(corpus, "COMMIT_CHARACTERS", 1)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_blocks_of_the_definition(ending, tmp_path, bert):
    files = [write(tmp_path / f"{part}{ending}", DOCUMENTS[part::2]) for part in range(2)]
    source = TextFiles(files)
    source.check()
    expected = packed(bert, DOCUMENTS[0::2] + DOCUMENTS[1::2], 16)
    assert len(expected) > 20
    assert blocks(source, bert, 16, tmp_path / "cache") == expected
    assert list(source.pieces())[-1].position == source.total == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(
    ("tokenizer_class", "specials"),
    [
        (RobertaTokenizerFast, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
        (DebertaTokenizerFast, ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]),
    ],
)
def test_byte_level_tokenizers(tokenizer_class, specials, tmp_path):
    tokenizer = byte_level(tmp_path, tokenizer_class, specials)
    documents = [*DOCUMENTS, LONG, *DOCUMENTS]  # cuts in a document change no id
    source = TextFiles([write(tmp_path / "a.jsonl", documents)])
    assert len(list(source.pieces())) == len(documents) + 2
    assert blocks(source, tokenizer, 12, tmp_path / "cache") == packed(tokenizer, documents, 12)


def test_a_vocabulary_beyond_16_bits_and_a_tokenizer_without_methods_of_its_own(tmp_path):
    words = {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2} | {f"w{number}": number for number in range(3, 66_000)}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, sep_token="[SEP]", cls_token="[CLS]")
    source = TextFiles([write(tmp_path / "a.txt", ["w3 w65999 w4", "w65536"])])
    stream = token_stream(source, tokenizer, tmp_path / "cache")
    assert np.fromfile(stream, np.uint32).tolist() == [3, 65999, 4, 1, 65536]
    assert blocks(source, tokenizer, 5, tmp_path / "cache") == [[0, 3, 65999, 4, 1]]


def test_another_length_or_another_setting_of_padding_does_not_tokenise_again(tmp_path, bert):
    stream = token_stream(TextFiles([write(tmp_path / "a.txt", DOCUMENTS)]), bert, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [stream.name]
    source = Watched([tmp_path / "a.txt"])
    bert.backend_tokenizer.enable_padding(length=128)
    bert.backend_tokenizer.enable_truncation(8)
    assert blocks(source, bert, 16, tmp_path / "cache") == packed(bert, DOCUMENTS, 16)
    assert blocks(source, bert, 30, tmp_path / "cache") == packed(bert, DOCUMENTS, 30)
    moved = Watched([(tmp_path / "a.txt").rename(tmp_path / "b.txt")])
    assert token_stream(moved, bert, tmp_path / "cache") == stream
    assert not source.texts + moved.texts


def test_other_text_or_another_tokenizer_has_a_stream_of_its_own(tmp_path, bert, roberta):
    sources = [TextFiles([write(tmp_path / f"{name}.txt", [name])]) for name in ("card", "money")]
    sources.append(TextFiles([*sources[0].paths, *sources[1].paths]))
    sources.append(TextFiles([*sources[1].paths, *sources[0].paths]))
    streams = {token_stream(source, tokenizer, tmp_path / "c") for source in sources for tokenizer in (bert, roberta)}
    assert len(streams) == 8


@pytest.mark.parametrize("ending", [".txt.zst", ".jsonl", ".parquet"])
@pytest.mark.parametrize("fail_at", [0, 1, 4, 30])  # 4: in the middle of a document
@pytest.mark.usefixtures("every_piece_is_committed")
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(fail_at, ending, tmp_path, bert):
    parts = [*DOCUMENTS[:2], LONG, *DOCUMENTS[4::2]], DOCUMENTS[1::2]
    paths = [write(tmp_path / f"{part}{ending}", documents) for part, documents in enumerate(parts)]
    whole = token_stream(TextFiles(paths), bert, tmp_path / "whole").read_bytes()
    source = Watched(paths, fail_at)
    with pytest.raises(KeyboardInterrupt):
        token_stream(source, bert, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.uint16"))
    for partial in (tmp_path / "cache").glob("*.partial"):
        with partial.open("ab") as file:
            file.write(b"written, but not committed")
    source.fail_at = None
    stream = token_stream(source, bert, tmp_path / "cache")
    assert stream.read_bytes() == whole
    assert source.texts == [piece.text for piece in TextFiles(paths).pieces()]
    assert list((tmp_path / "cache").iterdir()) == [stream]


@pytest.mark.usefixtures("every_piece_is_committed")
def test_ids_that_were_lost_are_made_anew(tmp_path, bert):
    source = Watched([write(tmp_path / "a.txt", DOCUMENTS)], fail_at=20)
    with pytest.raises(KeyboardInterrupt):
        token_stream(source, bert, tmp_path / "cache")
    (partial,) = (tmp_path / "cache").glob("*.partial")
    os.truncate(partial, partial.stat().st_size - 4)
    source.fail_at = None
    assert blocks(source, bert, 16, tmp_path / "cache") == packed(bert, DOCUMENTS, 16)


def test_of_two_writers_one_writes(tmp_path, bert, monkeypatch):
    source = Watched([write(tmp_path / "a.txt", DOCUMENTS)], delay=0.01)
    all_here, fingerprint, streams = threading.Barrier(4), source.fingerprint, []

    def fingerprint_together():
        all_here.wait(10)
        return fingerprint()

    monkeypatch.setattr(source, "fingerprint", fingerprint_together)
    threads = [
        threading.Thread(target=lambda: streams.append(token_stream(source, bert, tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(streams) == 4
    assert len(set(streams)) == 1
    assert source.texts == [piece.text for piece in TextFiles(source.paths).pieces()]


def test_a_document_longer_than_a_piece_is_one_document_in_every_format(tmp_path):
    long = "\n".join(["card money " * number for number in range(1, 80)] + ["x" * 40_000 + " card"])
    found = [
        [piece[:2] for piece in TextFiles([write(tmp_path / f"a{ending}", [long, "now"])]).pieces()]
        for ending in ENDINGS
    ]
    assert all(pieces == found[0] for pieces in found)
    assert all(len(text) <= 2**14 for text, _ in found[0])
    assert "".join(text for text, _ in found[0]) == long + "now"
    assert [ends for _, ends in found[0]].count(True) == 2


def test_what_is_no_text_leaves_no_trace(tmp_path, bert):
    documents = ["", "card", " \t ", "", "money \ud83d", "\n", ""]
    source = TextFiles([write(tmp_path / "a.jsonl", documents)])
    ids = np.fromfile(token_stream(source, bert, tmp_path / "cache"), np.uint16)
    assert bert.convert_ids_to_tokens(ids) == ["card", "[SEP]", "money", "[UNK]"]
    text = tmp_path / "a.txt"
    text.write_bytes(b"\r\n \n\ncard\r\n\t\r\n\n\nmoney?\n\n")
    ids = np.fromfile(token_stream(TextFiles([text]), bert, tmp_path / "cache"), np.uint16)
    assert bert.convert_ids_to_tokens(ids) == ["card", "[SEP]", "money", "[UNK]"]


BROKEN = {
    "none.txt": (None, "none.txt, which is no file; allowed"),
    "a.csv": (b"text\ncard\n", "a.csv; allowed: a file that ends with .txt, .txt.zst, .jsonl"),
    "empty.txt": (b" \n\n", "empty.txt, which is empty; allowed: a file with text"),
    "empty.jsonl": (b"", "empty.jsonl, which is empty; allowed"),
    "latin.txt": ("Žluť".encode("latin2"), "latin.txt, which can't be read ('utf-8' codec"),
    "no.txt.zst": (b"card", "no.txt.zst, which can't be read ("),
    "array.json": (b'[{"text": "card"}]', "line 1 of .*array.json, which is no object; allowed"),
    "pretty.json": (b'[\n{"text": "card"}]', "line 1 of .*pretty.json, which is no JSON ("),
    "key.jsonl": (b'{"a": 1, "b": 2}\n', "column 'text' of line 1 of .*key.jsonl; allowed: a, b"),
    "null.jsonl": (b'\n{"text": null}\n', "None in column 'text', line 2 of .*null.jsonl; allowed: text"),
    "number.jsonl": (b'{"text": 1}\n', "1 in column 'text', line 1 of .*number.jsonl; allowed: text"),
    "no.parquet": (b"card", "no.parquet, which can't be read ("),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_one_line_before_any_work(name, tmp_path):
    content, message = BROKEN[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        TextFiles([tmp_path / name]).check()
    assert "\n" not in str(caught.value)
    assert "; allowed: " in str(caught.value)


def test_a_column_that_parquet_lacks(tmp_path):
    file = write(tmp_path / "a.parquet", DOCUMENTS)
    with pytest.raises(ValueError, match=r"column 'body' of .*a.parquet; allowed: id, text"):
        TextFiles([file], "body").check()
    with pytest.raises(ValueError, match=r"0 in column 'id', row 1 of .*a.parquet; allowed: text"):
        TextFiles([file], "id").check()


def test_what_breaks_later_is_told_and_nothing_is_published(tmp_path, bert):
    file = write(tmp_path / "a.txt.zst", [np.random.default_rng(number).bytes(2**14).hex() for number in range(30)])
    file.write_bytes(file.read_bytes()[:-10])
    TextFiles([file]).check()
    with pytest.raises(ValueError, match=r"a.txt.zst, which can't be read \(Truncated compressed stream\)"):
        token_stream(TextFiles([file]), bert, tmp_path / "cache")
    lines = write(tmp_path / "b.jsonl", DOCUMENTS)
    lines.write_text(lines.read_text() + '{"text": "card')
    with pytest.raises(ValueError, match=rf"line {len(DOCUMENTS) + 1} of .*b.jsonl, which is no JSON"):
        token_stream(TextFiles([lines]), bert, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.uint16"))


def test_tokenizers_that_cannot_serve(tmp_path, bert):
    source = TextFiles([write(tmp_path / "a.txt", DOCUMENTS)])
    with pytest.raises(ValueError, match=r"tokenizer: CanineTokenizer.* allowed: a fast one"):
        token_stream(source, CanineTokenizer(), tmp_path / "cache")
    bert.sep_token = None
    with pytest.raises(ValueError, match=rf"tokenizer: {type(bert).__name__}.* allowed: .* with a separator token"):
        token_stream(source, bert, tmp_path / "cache")


@pytest.fixture
def dataset(tmp_path, bert):
    source = TextFiles([write(tmp_path / "a.txt", DOCUMENTS)])
    return TokenBlocks(token_stream(source, bert, tmp_path / "cache"), bert, 16)


def test_blocks_that_cannot_be(dataset, tmp_path, bert):
    (stream,) = (tmp_path / "cache").iterdir()
    ids = stream.stat().st_size // 2
    with pytest.raises(ValueError, match="max_length: 2; allowed: 3 or more"):
        TokenBlocks(stream, bert, 2)
    with pytest.raises(ValueError, match=rf"{ids} tokens of raw text; allowed: {ids + 1} or more"):
        TokenBlocks(stream, bert, ids + 3)
    assert len(TokenBlocks(stream, bert, ids + 2)) == 1
    for count in (0, len(dataset)):
        with pytest.raises(ValueError, match=rf"validation_blocks: {count}; allowed: 1 to {len(dataset) - 1} of"):
            dataset.split(count)


def test_the_last_blocks_are_held_out(dataset):
    train, validation = dataset.split(5)
    everything = [row["input_ids"].tolist() for row in dataset]
    assert [row["input_ids"].tolist() for row in train] == everything[:-5]
    assert [row["input_ids"].tolist() for row in validation] == everything[-5:]
    assert (len(train), len(validation)) == (len(dataset) - 5, 5)
    with pytest.raises(IndexError):
        train[len(train)]


def test_workers_read_the_file_themselves(dataset):
    everything = torch.tensor(np.array([row["input_ids"] for row in dataset]))
    assert len(pickle.dumps(dataset)) < 2000  # without the stream, which was opened above
    loader = DataLoader(dataset, 4, num_workers=1, collate_fn=default_data_collator)
    batches = list(loader)
    assert torch.equal(torch.cat([batch["input_ids"] for batch in batches]), everything)
    assert all(batch["attention_mask"].all() for batch in batches)
    assert {name: tensor.dtype for name, tensor in batches[0].items()} == dict.fromkeys(
        dataset.column_names, torch.int64
    )


@pytest.mark.parametrize("ending", [".txt", ".jsonl.zst"])
def test_memory_does_not_grow_with_the_text(ending, tmp_path, bert, monkeypatch):
    monkeypatch.setattr(corpus, "BATCH_CHARACTERS", 2**14)
    peaks = []
    for copies in (1, 8):
        # In .txt a single document without an end of line: the worst case.
        documents = ["card money " * 4000 * copies] if ending == ".txt" else ["card money " * 100] * 40 * copies
        source = TextFiles([write(tmp_path / f"{copies}{ending}", documents)])
        tracemalloc.start()
        token_stream(source, bert, tmp_path / "cache")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 2**16, peaks


def test_parquet_is_streamed_whatever_its_row_groups(tmp_path):
    texts = [np.random.default_rng(number).bytes(2**11).hex() for number in range(4000)]  # 16 MB in one row group
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": texts}), file, use_dictionary=False)
    assert parquet.ParquetFile(file).num_row_groups == 1
    before, characters, most = pa.total_allocated_bytes(), 0, 0
    for piece in TextFiles([file]).pieces():
        characters += len(piece.text)
        most = max(most, pa.total_allocated_bytes() - before)
    assert characters == 4000 * 2**12
    assert 0 < most < 6 * 2**20


HUB = """
import json, sys
from pathlib import Path
from transformers import BertTokenizerFast
from edgemin_hf.data import corpus
from edgemin_hf.data.raw_text import HubText
corpus.BATCH_CHARACTERS = corpus.COMMIT_CHARACTERS = 1
class Killed(HubText):
    texts = []
    def pieces(self, state=None):
        for piece in super().pieces(state):
            if len(self.texts) == 17:
                self.texts.append("killed")
                raise KeyboardInterrupt
            self.texts.append(piece.text)
            yield piece
tokenizer, cache = BertTokenizerFast(sys.argv[1]), Path(sys.argv[2])
HubText("org/text").check()
source = Killed("org/text")
try:
    corpus.token_stream(source, tokenizer, cache)
except KeyboardInterrupt:
    pass
stream = corpus.token_stream(source, tokenizer, cache)
errors = []
for wrong in (dict(config="x"), dict(split="x"), dict(revision="x"), dict(text_column="x"), dict(dataset="org/none")):
    try:
        HubText(**{"dataset": "org/text", **wrong}).check()
    except ValueError as error:
        errors.append(str(error))
pinned = HubText("org/text", revision=source.commit).fingerprint() == source.fingerprint()
print(json.dumps({"stream": str(stream), "texts": source.texts, "errors": errors, "pinned": pinned}))
"""


@pytest.mark.long
def test_a_dataset_on_the_hub_is_streamed(tmp_path, bert):
    documents, files = [*DOCUMENTS[:15], LONG, *DOCUMENTS[15:]], {}
    for part in range(3):
        file = write(tmp_path / f"train-{part}.parquet", documents[part * 12 : part * 12 + 12])
        files[file.name] = file.read_bytes()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with HubServer("token") as hub:
        hub.repos["org/text"] = Repo(files=files)
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*", "PYTHONPATH": ROOT}
        process = subprocess.run(
            [sys.executable, "-c", HUB, tmp_path / "vocab.txt", tmp_path / "cache"],
            env={**inherited, **settings},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    stream, texts = Path(found["stream"]), found["texts"]
    local = TextFiles([write(tmp_path / "a.jsonl", documents)])
    assert stream.read_bytes() == token_stream(local, bert, tmp_path / "cache").read_bytes()
    assert texts.pop(17) == "killed"
    assert "".join(texts) == "".join(documents)
    assert texts[15] + texts[16] != LONG
    assert found["pinned"]
    for error, part in zip(
        found["errors"], ("'x' not found", "split: x", "x", "'x' of row 1", "org/none"), strict=True
    ):
        assert part in error
        assert "; allowed: " in error
        assert "\n" not in error
