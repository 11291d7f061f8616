"""A classifier of scikit-learn on the vectors of an artefact: pip install edgemin-hf scikit-learn.

python examples/scikit_learn.py ARTEFACT
"""

import sys

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from edgemin_hf.runtime import load

TEXTS = [
    "where is my card",
    "my card is lost",
    "the new card is late",
    "send the money",
    "money to send",
    "send it now",
]
LABELS = ["card", "card", "card", "transfer", "transfer", "transfer"]


def classifier(artefact, file=None):
    """Return an unfitted pipeline from texts to labels; pickled, it loads the artefact again from its folder."""
    return make_pipeline(FunctionTransformer(load(artefact, file).encode), LogisticRegression(C=10))


def answers(artefact, texts, file=None):
    """Return the vectors of texts as the pipeline's first step gives them, float32 (texts, width)."""
    return classifier(artefact, file)[0].transform(texts)


if __name__ == "__main__":
    print(classifier(sys.argv[1]).fit(TEXTS, LABELS).predict(["is my card lost", "please send money"]))
