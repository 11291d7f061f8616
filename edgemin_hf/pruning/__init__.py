"""Structured pruning: whole attention heads and feed-forward neurons, physically removed."""
