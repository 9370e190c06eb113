"""What `--columns` means. Apart from `invocation.py`, so that the data verbs do not load the engine."""

from __future__ import annotations

from rdagent_ft.errors import UserError


def parse_columns(text: str | None) -> dict[str, str] | None:
    """Return canonical field -> column from `--columns`. Raises `UserError` for another form."""
    if text is None:
        return None
    pairs: dict[str, str] = {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        name, equals, column = part.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise UserError(
                f"--columns {text!r} is not field=column,…", hint="prompt=text,completion=category"
            )
        pairs[name.strip()] = column.strip()
    return pairs
