"""The one rule of when white space does not matter. Standard library only."""

from __future__ import annotations

import re

_SPACES = re.compile(r"\s+")


def collapse(text: str) -> str:
    """Return the text stripped, with every run of whitespace as one space."""
    return _SPACES.sub(" ", text.strip())
