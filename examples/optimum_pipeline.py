"""A text classifier by Optimum's pipeline on ONNX Runtime: pip install "optimum-onnx[onnxruntime]".

python examples/optimum_pipeline.py ARTEFACT "Where is my card?"
"""

import sys

from optimum.onnxruntime import ORTModelForSequenceClassification
from optimum.pipelines import pipeline
from transformers import AutoTokenizer


def answers(artefact, texts, file="onnx/model_quantized.onnx", max_length=64):
    """Return each text's label and its probability."""
    folder, name = file.split("/")
    model = ORTModelForSequenceClassification.from_pretrained(artefact, subfolder=folder, file_name=name)
    tokenizer = AutoTokenizer.from_pretrained(artefact)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, accelerator="ort")
    return classify(texts, truncation=True, max_length=max_length)


if __name__ == "__main__":
    print(answers(sys.argv[1], sys.argv[2:]))
