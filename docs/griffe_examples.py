"""Docstrings as the site's parser knows them: what stands under `Example:` is code, as under `Examples:`."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Give sections of examples the name that is code to the parser of Google's style."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename them in a docstring."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
