"""Searching the rows of a table by what is in them: an index in a folder, conditions on plain cells, and the nearest vectors exactly."""
