"""A sentence embedding as LangChain and LlamaIndex call one, without either: pip install edgemin-hf.

LangChain calls these four methods; where a vector store asks for its class, let this one be
`class EdgeEmbeddings(langchain_core.embeddings.Embeddings)`. For LlamaIndex subclass its `BaseEmbedding` and call the
first two in `_get_text_embedding` and `_get_query_embedding`.

python examples/embeddings_class.py ARTEFACT "Where is my card?"
"""

import asyncio
import sys

from edgemin_hf.runtime import load


class EdgeEmbeddings:
    """Vectors of length 1 as lists of floats; queries may have a prompt of their own."""

    def __init__(self, artefact, file=None, query_prompt=None):
        self.model, self.query_prompt = load(artefact, file), query_prompt

    def embed_documents(self, texts):
        """Return the vectors of texts."""
        return self.model.encode(list(texts), normalize_embeddings=True).tolist() if texts else []

    def embed_query(self, text):
        """Return the vector of a query."""
        return self.model.encode(text, prompt_name=self.query_prompt, normalize_embeddings=True).tolist()

    async def aembed_documents(self, texts):
        """Return the vectors of texts, and let others work meanwhile."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text):
        """Return the vector of a query, and let others work meanwhile."""
        return await asyncio.to_thread(self.embed_query, text)


def answers(artefact, texts, file=None):
    """Return the vectors of texts."""
    return EdgeEmbeddings(artefact, file).embed_documents(texts)


if __name__ == "__main__":
    print(answers(sys.argv[1], sys.argv[2:]))
