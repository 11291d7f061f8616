"""A sentence embedding by sentence-transformers on ONNX Runtime: pip install "sentence-transformers[onnx]".

python examples/sentence_transformers_onnx.py ARTEFACT "Where is my card?"
"""

import sys

from sentence_transformers import SentenceTransformer


def answers(artefact, texts, file="onnx/model_quantized.onnx"):
    """Return the vectors of texts, float32 (texts, width)."""
    graph = {"file_name": file, "provider": "CPUExecutionProvider"}
    return SentenceTransformer(str(artefact), backend="onnx", model_kwargs=graph, device="cpu").encode(texts)


if __name__ == "__main__":
    print(answers(sys.argv[1], sys.argv[2:]))
