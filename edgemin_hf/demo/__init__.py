"""A page in the browser that runs an artefact by transformers.js, served on this machine alone."""

from edgemin_hf.utils.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
