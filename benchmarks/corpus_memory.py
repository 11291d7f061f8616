"""What tokenising raw text costs: peak memory and speed, for texts of different sizes.

    python benchmarks/corpus_memory.py [--text FILE] [--megabytes 100 400] [--tokenizer MODEL] [--output FILE]

A text of each size is made by repeating FILE, or the sentences of recipes/data, and tokenised in a process of its own.
"Before" is that process's peak (ru_maxrss) when the libraries and the tokenizer are loaded, "peak" the one after all
is written; it must not depend on the size. TOKENIZERS_PARALLELISM=false keeps the tokenizer to one thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "recipes" / "data"


def main() -> None:
    """Measure all sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="UTF-8, documents separated by blank lines")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--tokenizer", default="sentence-transformers/all-MiniLM-L6-v2", help="Hub id or folder")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'megabytes':>9}{'tokens (M)':>12}{'seconds':>9}{'MB/s':>7}{'before (MB)':>13}{'peak (MB)':>11}")
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder, "text.txt")
            size = repeat_text(options.text, text, megabytes * 10**6) / 1e6
            # A fresh process: ru_maxrss never falls, and would be handed on to a forked one.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                row = pool.submit(measure, text, options.tokenizer).result()
        row |= {"megabytes": size, "megabytes_per_second": size / row["seconds"]}
        rows.append(row)
        numbers = f"{size:>9.0f}{row['tokens'] / 1e6:>12.1f}{row['seconds']:>9.1f}{row['megabytes_per_second']:>7.2f}"
        print(f"{numbers}{row['before_mb']:>13.0f}{row['peak_mb']:>11.0f}", flush=True)
    if options.output:
        options.output.write_text(json.dumps({"tokenizer": options.tokenizer, "rows": rows}, indent=2) + "\n")


def repeat_text(source: Path | None, target: Path, size: int) -> int:
    """Write copies of a text, the last up to the document that reaches `size` bytes, and return how many it took."""
    copy = (source.read_bytes() if source is not None else "\n\n".join(recipe_sentences()).encode()) + b"\n\n"
    with target.open("wb") as file:
        while (left := size - file.tell()) > 0:
            file.write(copy[: copy.find(b"\n\n", min(left, len(copy) - 2)) + 2])
        return file.tell()


def recipe_sentences() -> list[str]:
    """Read the sentences of the recipes' data."""
    sentences = []
    for path in sorted(DATA.glob("*/train.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            sentences += [row["sentence"] for row in rows]
    return sentences


def measure(text: Path, model: str) -> dict[str, Any]:
    """Tokenise a file in this process; memory in units of 10^6 bytes."""
    import numpy as np
    from transformers import AutoTokenizer

    from edgemin_hf.data.corpus import token_stream
    from edgemin_hf.data.raw_text import TextFiles
    from edgemin_hf.hub.checkpoints import resolve_checkpoint

    tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint(model, weights=False).path)
    before, start = peak_mb(), time.perf_counter()
    stream = token_stream(TextFiles([text]), tokenizer, text.parent / "cache")
    seconds = time.perf_counter() - start
    tokens = stream.stat().st_size // np.dtype(stream.suffix[1:]).itemsize
    return {"tokens": tokens, "seconds": seconds, "before_mb": before, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Return the most memory that this process has held so far; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
