"""Measuring models where they run: accuracy, latency, size; and the report of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
