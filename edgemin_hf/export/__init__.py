"""ONNX graphs, the check that they compute what was trained, and folders that appear whole or not at all."""
