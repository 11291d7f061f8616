"""The lazy ways to the same answers, made and measured beside a student: what it must beat to be worth its training."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
