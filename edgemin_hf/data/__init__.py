"""Text as token ids: tables, documents, blocks of tokens, masks and more words."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
