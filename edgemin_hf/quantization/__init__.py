"""Quantisation-aware training, and the integer model that it ends in."""
