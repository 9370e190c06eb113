"""Takes keys out of texts that come from outside: server messages, library errors, URLs.

Every error text of the `llm` folder passes through `redact`. It cannot know a secret that has no
usual form and was not given to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MASK = "[redacted]"
MIN_SECRET_CHARS = 4
"""Shorter values would blank out ordinary words."""

_SECRET_NAME = re.compile(r"(_API_KEY|_TOKEN|_SECRET|_PASSWORD)$")
_PATTERNS = (
    re.compile(r"(?<=://)[^/@\s]+(?=@)"),  # user:password in a URL
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"\bsk-[A-Za-z0-9_*\-]{6,}"),
    re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every given secret, and whatever looks like a key, replaced by a mask."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= MIN_SECRET_CHARS:
            text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(MASK, text)
    return text


def secrets_of_environment(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of variables that are named like a key, token, secret or password."""
    return tuple(value for name, value in environ.items() if value and _SECRET_NAME.search(name.upper()))
