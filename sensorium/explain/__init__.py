"""Explanation: which columns and which parts of a cell an answer depends on."""
