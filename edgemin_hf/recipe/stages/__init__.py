"""The stages of a recipe, one file each."""

from edgemin_hf.utils.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
