"""Structured pruning: whole attention heads and feed-forward neurons, physically removed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
