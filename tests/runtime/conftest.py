from dataclasses import replace
from functools import cache

import pytest
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification

from edgemin_hf import export_onnx
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.tasks import (
    MultiLabel,
    QuestionAnswering,
    Regression,
    Reranking,
    TextClassification,
    TokenClassification,
)
from tests.helpers.models import tiny
from tests.modeling.test_embedder import embedder

TEXTS = ["where is my card", "please send the money to my new old card now", "late", "the lost card is late, send it"]
TAGS = {"O": 0, "B-sum": 1, "I-sum": 2, "B-thing": 3, "I-thing": 4}
ANSWERS = {"head": AutoModelForQuestionAnswering, "id2label": {0: "start", 1: "end"}}
MODELS = {
    "text_classification": lambda: tiny(seed=8, id2label={0: "lost", 1: "found", 2: "neither"}),
    "pairs": lambda: tiny(id2label={0: "no", 1: "yes"}),
    "multi_label": lambda: tiny(problem_type="multi_label_classification"),
    "regression": lambda: tiny(id2label={0: "score"}, problem_type="regression"),
    "reranking": lambda: tiny(seed=4, id2label={0: "label"}, problem_type="regression"),
    "token_classification": lambda: tiny(
        head=AutoModelForTokenClassification, label2id=TAGS, id2label={number: tag for tag, number in TAGS.items()}
    ),
    "question_answering": lambda: tiny(**ANSWERS),
    "sentence_embedding": embedder,
}
FILES = ("train.tsv", "test.tsv")
TASKS = {
    "text_classification": TextClassification(*FILES, max_length=24),
    "pairs": TextClassification(*FILES, text_pair_column="reply", max_length=40),
    "multi_label": MultiLabel(*FILES, threshold=0.7, max_length=40),
    "regression": Regression(*FILES, max_length=40),
    "reranking": Reranking(*FILES, max_length=40),
    "token_classification": TokenClassification(*FILES, max_length=24),
    "question_answering": QuestionAnswering(*FILES, max_length=48, stride=8),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory, tokenizer):
    """A tiny model of a task, and the folder of its artefact; each is exported once."""
    above = tmp_path_factory.mktemp("runtime")

    @cache
    def exported(name):
        model, folder = MODELS[name](), above / name
        export_onnx(model, tokenizer, folder, texts=TEXTS, max_length=40)
        if name in TASKS:
            replace(read_manifest(folder), task=TASKS[name].type, reading=TASKS[name].reading).write(folder)
        return model, folder

    return exported
