"""Nearest words by word vectors, such as GloVe's (Pennington et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Published files begin with the most frequent words; what comes later is rare, misspelt or no word at all.
_WORDS = 100_000
_CHUNK = 256


def nearest_words(file: Path, words: Iterable[str], count: int) -> dict[str, list[str]]:
    """Find the words whose vectors have the largest cosine with those of given words.

    Args:
        file: UTF-8 text, a word and its numbers in each line, separated by spaces; a first line of two numbers, how
            many words and how wide, may stand before them. The first 100,000 words are read.
        words: The words to look up: as they are, else in lower case.
        count: How many words to find for each.

    Returns:
        For each word that has a vector, the nearest other words, nearest first; fewer where the file has fewer.

    Raises:
        ValueError: If there is no such file, or one of its lines does not hold a word and its numbers.
    """
    rows, vectors = _read(file)
    vocabulary = list(rows)
    asked = {word: rows.get(word, rows.get(word.lower())) for word in words}
    found = {word: row for word, row in asked.items() if row is not None}
    count = min(count, len(vocabulary) - 1)
    nearest: dict[str, list[str]] = {}
    for start in range(0, len(found), _CHUNK):
        part = list(found)[start : start + _CHUNK]
        own = [found[word] for word in part]
        distance = -(vectors[own] @ vectors.T)
        distance[np.arange(len(own)), own] = np.inf
        best = np.argpartition(distance, count, axis=1)[:, :count]
        best = np.take_along_axis(best, np.argsort(np.take_along_axis(distance, best, axis=1), axis=1), axis=1)
        nearest.update({word: [vocabulary[row] for row in line] for word, line in zip(part, best, strict=True)})
    return nearest


def _read(file: Path) -> tuple[dict[str, int], NDArray[np.float32]]:
    """Return the row of each word, and the vectors, (words, width) float32, each of length one."""
    if not file.is_file():
        raise ValueError(f"vectors: {file}, which is no file; allowed: a text file of word vectors")
    vectors: dict[str, NDArray[np.float32]] = {}
    width = 0
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            word, *values = line.rstrip().split(" ")
            if number == 1 and len(values) == 1:
                continue
            width = width or len(values)
            try:
                # A few words of published files have spaces in them: the numbers are the last fields.
                vector = np.array(values[-width:], dtype=np.float32)
            except ValueError:
                vector = np.empty(0, np.float32)
            if not width or len(vector) != width:
                raise ValueError(f"vectors: line {number} of {file}; allowed: a word and {width or 'its'} numbers")
            if len(values) == width:
                vectors.setdefault(word, vector)
            if len(vectors) == _WORDS:
                break
    if not vectors:
        raise ValueError(f"vectors: {file}, which holds none; allowed: a text file of word vectors")
    matrix = np.stack(list(vectors.values()))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True).clip(min=1e-12)
    return {word: row for row, word in enumerate(vectors)}, matrix
