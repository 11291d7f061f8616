"""A text classifier by ONNX Runtime alone: pip install numpy onnxruntime tokenizers.

python examples/plain_onnxruntime.py ARTEFACT "Where is my card?"
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def answers(artefact, texts, file="onnx/model_quantized.onnx", max_length=64):
    """Return each text's label and its probability, the texts one by one."""
    folder = Path(artefact)
    names = json.loads((folder / "config.json").read_text()).get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
    found = []
    for text in texts:
        read = tokenizer.encode(text)
        tensors = {"input_ids": read.ids, "attention_mask": read.attention_mask, "token_type_ids": read.type_ids}
        inputs = {node.name: np.array([tensors[node.name]], dtype=np.int64) for node in session.get_inputs()}
        logits = session.run(["logits"], inputs)[0][0]
        odds = np.exp(logits - logits.max())
        found.append({"label": names[str(odds.argmax())], "score": float(odds.max() / odds.sum())})
    return found


if __name__ == "__main__":
    print(answers(sys.argv[1], sys.argv[2:]))
