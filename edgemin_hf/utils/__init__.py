"""What every package may need: atomic files, settings and records as JSON, hardware, old import paths."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
