"""Where data enters: resolve, read, canonicalise, split, audit. See `rows.py` for the row."""
