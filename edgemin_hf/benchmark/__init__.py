"""Measuring models where they run: accuracy, latency, size; and the report of it."""
