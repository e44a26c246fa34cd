"""Dialogue: conversations about rows, the questions they are trained on, and how good the answers are."""
