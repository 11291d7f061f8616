"""Write requests that want several things at once, made of CLINC150's, into the folder clinc150_mix beside this file.

Each joins up to three requests of one split of CLINC150 (Larson et al. 2019, CC BY 3.0) by "and" or a comma, as MixATIS
and MixSNIPS join theirs (Qin et al. 2020), and has the intents of all; requests that are out of scope are left out.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

HERE = Path(__file__).parent
ROWS = {"train": 12_000, "dev": 1_500, "test": 3_000}
COUNTS, SHARES = (1, 2, 3), (0.3, 0.5, 0.2)
JOINTS = (" and ", ", and then ", ", ")


def requests(split: str) -> list[tuple[str, str]]:
    """Return the requests of a split that are in scope, each with its intent."""
    with (HERE / "clinc150" / f"{split}.tsv").open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence"], row["label"]) for row in rows if row["label"] != "oos"]


def main() -> None:
    """Write the three files."""
    folder = HERE / "clinc150_mix"
    folder.mkdir(exist_ok=True)
    for split, count in ROWS.items():
        rng, known = random.Random(0), requests(split)  # noqa: S311 - no secret
        with (folder / f"{split}.jsonl").open("w") as file:
            for _ in range(count):
                parts = rng.sample(known, rng.choices(COUNTS, SHARES)[0])
                text = parts[0][0]
                for sentence, _ in parts[1:]:
                    text += rng.choice(JOINTS) + sentence
                labels = sorted({label for _, label in parts})
                file.write(json.dumps({"sentence": text, "labels": labels}) + "\n")


if __name__ == "__main__":
    main()
