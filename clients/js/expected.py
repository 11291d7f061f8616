"""What Python says of texts, for the clients in JavaScript to compare with: a folder of cases, each an artefact.

The given artefact is asked about rows of a table. Of every other task there is a tiny model with random weights, so
that entities, answers, vectors, scores and masked words are compared too.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForMaskedLM, BertTokenizerFast

from edgemin_hf import export_onnx
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.runtime import load
from edgemin_hf.runtime.artefact import read_artefact
from edgemin_hf.runtime.commands import answers, read_texts
from edgemin_hf.runtime.graph import Graph
from edgemin_hf.runtime.reader import Reader
from edgemin_hf.tasks import MaskedLM
from tests.helpers.models import VOCABULARY, tiny
from tests.runtime.conftest import MODELS, TASKS

SENTENCES = [
    "where is my new card",
    "Send the MONEY to my old card, now: it's late!",
    "the lost card is late, send it. please (now) send my money",
    "café 北京 card",
]
MASKED = ["where is my [MASK] card", "[MASK] the money, [MASK]!"]
PAIRS = [(first, second) for first in SENTENCES[:3] for second in SENTENCES[1:]]


def main() -> None:
    """Write `cases.json` into a folder, with the artefacts of the tiny models beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artefact", type=Path)
    parser.add_argument("--texts", type=Path, required=True, help="a table with the task's column")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    (column,) = load(options.artefact).artefact.reading.columns
    texts = list(read_texts(str(options.texts), [column]))
    texts = texts[:: max(1, len(texts) // 200)][:200]
    graphs = [graph.file for graph in read_artefact(options.artefact).graphs if graph.shape is None]
    cases = [_case(options.artefact, [[text] for text in texts], graph) for graph in graphs]
    (options.output / "vocab.txt").write_text("\n".join(VOCABULARY))
    tokenizer = BertTokenizerFast(str(options.output / "vocab.txt"), model_max_length=64)
    for name, model in {**MODELS, "masked_lm": lambda: tiny(head=AutoModelForMaskedLM)}.items():
        folder = options.output / name
        export_onnx(model(), tokenizer, folder, texts=SENTENCES, max_length=40)
        if name in TASKS:
            replace(read_manifest(folder), task=TASKS[name].type, reading=TASKS[name].reading).write(folder)
        manifest = json.loads((folder / "edgemin.json").read_text())
        pairs = len(manifest.get("reading", {}).get("columns", ())) == 2 or name == "question_answering"
        cases.append(_case(folder, [list(pair) for pair in PAIRS] if pairs else [[text] for text in SENTENCES]))
    (options.output / "cases.json").write_text(json.dumps(cases))


def _case(folder: Path, inputs: list[list[str]], file: str = "onnx/model.onnx") -> dict[str, Any]:
    task = read_manifest(folder).task
    told: dict[str, Any] = {"folder": str(folder.absolute()), "file": file, "task": task, "inputs": inputs}
    if task == MaskedLM.type:
        return told | {"inputs": [[text] for text in MASKED], "answers": _words(folder)}
    model = load(folder, file)
    texts: list[Any] = [tuple(texts) if len(texts) > 1 else texts[0] for texts in inputs]
    told["answers"] = list(answers(model, texts))
    if "predict" in model.methods:
        read = model.reader.read_all(texts)
        told["logits"] = [np.asarray(model.output(row)).round(5).tolist() for row in read]
        told["ids"] = [row.ids for row in read]
    return told


def _words(folder: Path) -> list[list[str]]:
    """Return the likeliest token at each masked place of each text: the runtime runs no such model."""
    artefact = read_artefact(folder)
    reader, graph = Reader(folder / "tokenizer.json", artefact.max_length), Graph(folder / artefact.graph().file)
    mask = reader.tokenizer.token_to_id("[MASK]")
    found = []
    for text in MASKED:
        encoding = reader.read(text)
        likely = graph.run(graph.feed(reader.arrays(encoding)))[0].argmax(axis=-1)
        found.append([reader.tokenizer.id_to_token(int(likely[n])) for n, id in enumerate(encoding.ids) if id == mask])
    return found


if __name__ == "__main__":
    main()
