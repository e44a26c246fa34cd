"""Data pipeline: tables from any source, their schema, splits and preparation, and a quarantine of unreadable cells.

    table.py       rows of any source, streamed as Arrow      schema.py     the modality of each column
    sources/       one family of sources a file               split.py      training, validation and test rows
    media.py       bytes of a file, and its media type            quarantine.py cells that can't be read
    hashes.py      content hashes of cells and rows           profile.py    a sample and counts of a column

Import from these files; nothing is loaded here.
"""
