"""Inference: a trained network asked about the rows of a table."""
