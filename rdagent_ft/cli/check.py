"""One result of `doctor`: a value that every family of checks returns."""

from __future__ import annotations

from typing import Literal

from rdagent_ft.values import Frozen


class Check(Frozen):
    """One result: what was found and, when it is not fine, what to do."""

    id: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str | None = None
