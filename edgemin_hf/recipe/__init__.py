"""A recipe: read, checked, planned and run."""
