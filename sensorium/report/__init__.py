"""Run report: one HTML file that opens from disk. ``types`` defines its data, ``write`` writes it.

It knows no network: everything shown is handed in.
"""
