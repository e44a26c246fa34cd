"""From any source to batches: tables, what their columns are, splits, and what could not be read.

    table.py       rows of any source, streamed as Arrow      schema.py     which modality each column is
    sources/       one family of sources a file               split.py      which rows are for training
    media.py       bytes of a file, and what it is            quarantine.py cells that can't be read
    hashes.py      content hashes of cells and rows           profile.py    what a column looks like

Import from these files; nothing is loaded here.
"""
