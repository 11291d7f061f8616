"""A text classifier by transformers' pipeline on OpenVINO: pip install "optimum-intel[openvino]".

python examples/openvino_pipeline.py ARTEFACT "Where is my card?"
"""

import sys

from optimum.intel import OVModelForSequenceClassification
from transformers import AutoTokenizer, pipeline


def answers(artefact, texts, file="onnx/model_quantized.onnx", max_length=64):
    """Return each text's label and its probability."""
    folder, name = file.split("/")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}  # to compute what was tested
    model = OVModelForSequenceClassification.from_pretrained(
        artefact, subfolder=folder, file_name=name, from_onnx=True, ov_config=settings
    )
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(artefact))
    return classify(texts, truncation=True, max_length=max_length)


if __name__ == "__main__":
    print(answers(sys.argv[1], sys.argv[2:]))
