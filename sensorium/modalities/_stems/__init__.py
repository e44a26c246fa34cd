"""Stems of the modalities, and their collation by pretrained encoders: what needs torch when it is imported."""
