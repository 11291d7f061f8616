"""Distillation methods, one file each: the configuration and its objective side by side."""
