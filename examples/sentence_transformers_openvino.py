"""A sentence embedding by sentence-transformers on OpenVINO: pip install "sentence-transformers[openvino]".

python examples/sentence_transformers_openvino.py ARTEFACT "Where is my card?"
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import openvino
from sentence_transformers import SentenceTransformer


def answers(artefact, texts, file="onnx/model_quantized.onnx"):
    """Return the vectors of texts, float32 (texts, width), by the graph as OpenVINO keeps it: no ONNX is read there."""
    with TemporaryDirectory() as above:
        folder = Path(above, "artefact")
        shutil.copytree(artefact, folder, ignore=shutil.ignore_patterns("onnx", "*.safetensors"))
        graph = openvino.convert_model(Path(artefact, file))
        openvino.save_model(graph, folder / "openvino/openvino_model.xml", compress_to_fp16=False)
        exact = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}  # to compute what was tested
        model = SentenceTransformer(str(folder), backend="openvino", model_kwargs=exact, device="cpu")
        return model.encode(texts)


if __name__ == "__main__":
    print(answers(sys.argv[1], sys.argv[2:]))
