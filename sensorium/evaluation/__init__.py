"""Evaluation: every column predicted and searched on held-out rows, beside plain baselines."""
