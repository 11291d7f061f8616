"""Searches that a stage may begin with."""
