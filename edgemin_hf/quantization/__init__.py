"""Quantisation-aware training, and the integer model that it ends in."""

from edgemin_hf.utils.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
