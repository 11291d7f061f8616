"""Intel Neural Compressor as a guest."""
