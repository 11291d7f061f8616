"""Vectors of texts, with the names that sentence-transformers has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.runtime.model import Model, listed_texts
from edgemin_hf.runtime.vectors import as_bits, as_int8

Precision = Literal["float32", "int8", "bits"]


class Embedder(Model):
    """A model that gives a text a vector.

    Example:
        >>> from edgemin_hf.runtime import Embedder
        >>> Embedder.methods
        ('encode',)
    """

    methods: ClassVar = ("encode",)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        normalize_embeddings: bool = False,
        precision: Precision = "float32",
    ) -> NDArray[Any]:
        """Return the vectors of texts.

        Args:
            texts: A text, or many.
            prompt_name: The prompt that stands before each text; None takes the model's default, if it has one.
            truncate_dim: How many of their first dimensions vectors keep; None keeps all.
            normalize_embeddings: Whether what is left gets length 1.
            precision: float32; int8, each vector by its largest value; or bits, the signs, eight in a byte
                (`edgemin_hf.runtime.vectors`).

        Returns:
            (width,) of one, else (texts, width), C-contiguous: float32 or int8; of bits uint8, an eighth as wide.

        Raises:
            ValueError: If an argument is not allowed, or a text is none.
        """
        rows, one = listed_texts(texts)
        prompt = self._prompt(prompt_name)
        if precision not in get_args(Precision):
            raise ValueError(f"precision: {precision}; allowed: {', '.join(get_args(Precision))}")
        width = self._width
        if truncate_dim is not None and not 1 <= truncate_dim <= width:
            raise ValueError(f"truncate_dim: {truncate_dim}; allowed: 1 to {width}")
        given = [prompt + text for text in rows]

        def made(vectors: NDArray[np.float32]) -> NDArray[Any]:
            vectors = np.ascontiguousarray(vectors[:, :truncate_dim])
            if normalize_embeddings:
                lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
                vectors = vectors / np.where(lengths == 0, 1, lengths)
            if precision == "float32":
                return vectors
            return as_int8(vectors) if precision == "int8" else as_bits(vectors)

        return self._answered(given[0] if one else given, width, made)

    @property
    def _width(self) -> int:
        shape = next(node.shape for node in self.graph.session.get_outputs() if node.name == self.graph.outputs[0])
        return shape[-1] if isinstance(shape[-1], int) else int(self.artefact.config["hidden_size"])

    def _prompt(self, name: str | None) -> str:
        prompts = self.artefact.prompts
        if name is not None and (name not in prompts or not name):
            raise ValueError(f"prompt_name: {name}; allowed: {', '.join(filter(None, prompts)) or 'none'}")
        return prompts.get(name or "", "")
