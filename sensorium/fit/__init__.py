"""Fit: from a table to a trained model in a run folder."""
