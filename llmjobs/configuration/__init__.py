"""Tiers, providers, models and clients from a TOML file: read, compared with the database, brought about.

`tables.py` says what a file may hold and how a value is judged; `reading.py` makes entries of a file's text, or finds
all that is wrong with it, without a database; `changing.py` compares them with what there is, and changes that.
Invariant: a file is brought about whole or not at all, and a second time it changes nothing.
"""
