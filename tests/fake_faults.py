"""What a fake endpoint may do instead of answering, and the request that it does it to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One completion request: its number from 1, its path, header names in lower case, its body."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Status:
    """An HTTP error with vLLM's error document."""

    code: int
    message: str = "the fake server was told to fail"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """Say nothing until the server is killed or closed."""


@dataclass(frozen=True)
class Slow:
    """Wait, then answer properly; tokens grow meanwhile when `generates`."""

    seconds: float
    generates: bool = False


@dataclass(frozen=True)
class Drip:
    """Send headers, then one blank every `interval_s` for ever."""

    interval_s: float = 0.05


@dataclass(frozen=True)
class Cut:
    """Promise a long body, send a piece of JSON, close properly."""


@dataclass(frozen=True)
class Reset:
    """Break the connection with a TCP reset."""


@dataclass(frozen=True)
class HalfJson:
    """200 with a body of the right length that is half a JSON document."""


@dataclass(frozen=True)
class NullContent:
    """A choice whose text or content is null."""

    finish_reason: str = "length"


@dataclass(frozen=True)
class EmptyChoices:
    """200 without any choice."""


@dataclass(frozen=True)
class Ended:
    """A proper answer that ended for another reason."""

    finish_reason: str


Fault = Status | Hang | Slow | Drip | Cut | Reset | HalfJson | NullContent | EmptyChoices | Ended
