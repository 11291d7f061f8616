"""The template of the model card, as package data."""
