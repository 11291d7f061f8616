"""What tasks are measured by: modules of `evaluate` that ship, one a file, and what any module is worth."""

from edgemin_hf.utils.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
