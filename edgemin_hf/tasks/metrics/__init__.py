"""What tasks are measured by: modules of `evaluate` that ship, one a file, and what any module is worth."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
