"""ONNX graphs, the check that they compute what was trained, and folders that appear complete or not at all."""
