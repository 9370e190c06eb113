"""How foreign text reaches the judge: without thoughts, without secrets, cut alike, between marks.

The marks carry a number that is a keyed hash over all texts of the request. The key is random and lies
with the cache, where no candidate can read it, so nobody can write the number into an answer; and one
that stands in a text by chance is replaced. The same request gives the same number, hence a cache hit.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from rdagent_ft.values import canonical_json

MAX_TEXT_CHARS = 8_000
"""Equal for all texts of a request: about 2,000 tokens each."""
MASK = "[redacted]"
MIN_SECRET_CHARS = 8
"""Shorter values of the environment are words like `true`, which answers may contain."""
MARK_KEY_BYTES = 32
_OPEN, _CLOSE = "<think>", "</think>"
_log = logging.getLogger(__name__)


def visible_text(answer: str) -> str:
    """Return an answer without its `<think>` parts, stripped.

    A part that never closes hides everything after it; a close without an open (templates open it in
    the prompt) hides everything before it.
    """
    kept: list[str] = []
    start = 0
    while start <= len(answer):
        opened = answer.find(_OPEN, start)
        end = opened if opened >= 0 else len(answer)
        closed_before = answer.rfind(_CLOSE, start, end)
        if closed_before >= 0:
            kept, start = [], closed_before + len(_CLOSE)
        kept.append(answer[start:end])
        closed = answer.find(_CLOSE, opened) if opened >= 0 else -1
        if closed < 0:
            break
        start = closed + len(_CLOSE)
    return "".join(kept).strip()


def shown_text(text: str, hidden: Iterable[str] = ()) -> str:
    """Return `text` as it may be sent: secrets masked, what no JSON can carry replaced, cut in the middle."""
    for secret in sorted(set(hidden), key=len, reverse=True):
        if len(secret) >= MIN_SECRET_CHARS:
            text = text.replace(secret, MASK)
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
    if len(text) <= MAX_TEXT_CHARS:
        return text
    head, tail = MAX_TEXT_CHARS * 2 // 3, MAX_TEXT_CHARS // 3
    return f"{text[:head]}\n[{len(text) - head - tail} characters left out]\n{text[-tail:]}"


def marked_texts(texts: Sequence[tuple[str, str]], mark_key: bytes) -> tuple[str, str]:
    """Return (number, all texts between marks). `texts` are (name, text), already made showable."""
    payload = canonical_json([list(pair) for pair in texts]).encode("utf-8", "surrogatepass")
    number = hmac.new(mark_key, payload, "sha256").hexdigest()[:16]
    while any(number in text for _, text in texts):
        number = hmac.new(mark_key, number.encode(), "sha256").hexdigest()[:16]
    blocks = [f"<<{name} {number}>>\n{text}\n<<end of {name} {number}>>" for name, text in texts]
    return number, "\n\n".join(blocks)


def read_mark_key(folder: Path | None) -> bytes:
    """Return the key of the marks in `folder`, made on first use (readable by the owner only).

    Without a folder, or where it cannot be kept, it is new: then earlier verdicts are not found again.
    """
    fresh = secrets.token_bytes(MARK_KEY_BYTES)
    if folder is None:
        return fresh
    path = folder / "marks.key"
    temporary = folder / f".marks.key.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size != MARK_KEY_BYTES:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(fresh)
            _place(temporary, path)
        key = path.read_bytes()
    except OSError as error:
        _log.warning("the judge's marks cannot be kept in %s (%s); a new key is used", folder, error.strerror)
        return fresh
    return key if len(key) == MARK_KEY_BYTES else fresh


def _place(temporary: Path, path: Path) -> None:
    """Move the key into place; of several processes that start together the first one wins."""
    try:
        if path.exists():  # of a wrong size: damaged
            temporary.replace(path)
        else:
            os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
