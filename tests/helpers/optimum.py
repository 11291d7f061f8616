"""Optimum's classes, for tests of what it reads of ours; where it is not installed, using one skips the test."""

import pytest


class _NotInstalled:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self()

    def __call__(self, *args, **kwargs):
        pytest.skip("Optimum is not installed: its ONNX part ends with transformers 4.57")


try:
    from optimum.onnxruntime import (
        ORTConfig,
        ORTModelForFeatureExtraction,
        ORTModelForMaskedLM,
        ORTModelForQuestionAnswering,
        ORTModelForSequenceClassification,
    )
    from optimum.pipelines import pipeline
except ImportError:
    ORTConfig = ORTModelForQuestionAnswering = ORTModelForSequenceClassification = pipeline = _NotInstalled()
    ORTModelForFeatureExtraction = ORTModelForMaskedLM = _NotInstalled()

__all__ = [
    "ORTConfig",
    "ORTModelForFeatureExtraction",
    "ORTModelForMaskedLM",
    "ORTModelForQuestionAnswering",
    "ORTModelForSequenceClassification",
    "pipeline",
]
