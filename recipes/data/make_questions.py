"""Write questions without answers for recipes/squad.yaml, which the teacher alone answers, into squad_small/more.jsonl.

Three kinds: sentences of a context in which a name, a number or a noun became "who or what", "how many" or "what"; the
same of the paragraphs of any text, .txt with blank lines between documents:

    python recipes/data/make_questions.py [TEXT]

and true questions beside another context of their article, which mostly lacks the answer.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "squad_small"
ENDS = re.compile(r"(?<=[.!?]) +(?=[A-Z\"'])")
ASKED = {
    "who or what": re.compile(r"(?<=[a-z,] )[A-Z][\w'-]+(?: (?:of |the )?[A-Z][\w'-]+)*"),
    "how many": re.compile(r"(?<= )\d(?:[\d,.]*\d)?(?= )"),
    "what": re.compile(r"(?<= )(?:the|an?) [a-z]+(?: [a-z]+)?(?=[ ,.])"),
}
OF_TEXT = 16_000
"""Questions of a text, at most."""


def question_of(context: str, rng: random.Random) -> str | None:
    """Return a question made of one sentence of a context, None where none will do."""
    sentences = [text for text in ENDS.split(context) if 6 <= len(text.split()) <= 40]
    for sentence in rng.sample(sentences, len(sentences)):
        spans = [(match, word) for word, spans in ASKED.items() for match in spans.finditer(sentence)]
        if spans:
            span, word = rng.choice(spans)
            left = sentence[: span.start()].split()[-rng.randint(3, 12) :]
            right = sentence[span.end() :].split()[: rng.randint(3, 12)]
            words = [word, *right, *left] if rng.random() < 0.5 else [*left, word, *right]
            text = " ".join(words).strip(" .,;:")
            return f"{text[0].upper()}{text[1:]}?"
    return None


def paragraphs(path: Path, rng: random.Random) -> list[str]:
    """Return stretches of 60 to 180 words of each document, in a random order."""
    found = []
    for document in path.read_text(encoding="utf-8").split("\n\n"):
        words, start = document.split(), 0
        while len(words) - start >= 60:
            count = rng.randint(60, 180)
            found.append(" ".join(words[start : start + count]))
            start += count
    rng.shuffle(found)
    return found


def rows(texts: list[Path], rng: random.Random) -> Iterator[dict[str, str]]:
    """Yield contexts with questions."""
    articles: dict[str, dict[str, list[str]]] = {}
    for file in sorted(FOLDER.glob("train_*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            articles.setdefault(row.get("title", row["context"]), {}).setdefault(row["context"], []).append(
                row["question"]
            )
    for contexts in articles.values():
        for context, questions in contexts.items():
            others = [other for other in contexts if other != context]
            yield from ({"context": rng.choice(others), "question": asked} for asked in questions if others)
    known = [context for contexts in articles.values() for context in contexts for _ in range(2)]
    of_text = [part for path in texts for part in paragraphs(path, rng)][:OF_TEXT]
    for context in known + of_text:
        question = question_of(context, rng)
        if question:
            yield {"context": context, "question": question}


def main() -> None:
    """Write the file, and say how many questions it holds."""
    found = list(rows([Path(argument) for argument in sys.argv[1:]], random.Random(0)))  # noqa: S311 - no secret
    (FOLDER / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    print(f"{len(found):,} questions in {FOLDER / 'more.jsonl'}")


if __name__ == "__main__":
    main()
