"""Text as token ids: tables, documents, blocks of tokens, masks and more words."""
