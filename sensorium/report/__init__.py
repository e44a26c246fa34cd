"""The report of a run: one HTML file that opens from disk. ``types`` says what it is made from, ``write`` writes it.

It knows no network: everything shown is handed in.
"""
