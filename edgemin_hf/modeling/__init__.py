"""Encoders of every family: one view of them, students, surgery and loading."""
