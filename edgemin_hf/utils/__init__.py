"""What every package may need: atomic files, settings and records as JSON, hardware, old import paths."""

from edgemin_hf.utils.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
