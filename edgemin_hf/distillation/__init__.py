"""Distillation methods, one file each: the configuration and its objective side by side."""

from edgemin_hf.utils.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
