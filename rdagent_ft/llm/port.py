"""The LLM port: one structured call, metered and recorded.

Money is reserved before a request is sent and settled from the reply's `usage`; the ledger is
owned by the caller (the engine keeps it in the run's journal), so a paid answer survives a crash.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel

from rdagent_ft.values import Frozen

LlmRole = Literal["propose", "repair", "feedback", "judge", "teacher"]
T = TypeVar("T", bound=BaseModel)


class LlmMessage(Frozen):
    """One message of a request."""

    role: Literal["system", "user", "assistant"]
    content: str


class Usage(Frozen):
    """What one call cost. `usd` is 0 for an endpoint without a price (loopback, or allowed)."""

    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0


class LedgerEntry(Frozen):
    """One line of the ledger.

    Attributes:
        key: hash of role, model, parameters, messages, schema and `salt`.
        status: `reserved` before the request, `settled` after the reply, `void` when the request
            surely cost nothing (refused before it was accepted). `reserved` counts as spent.
        reserved_usd: upper bound booked before the request.
        usage: settled cost.
        reply: the reply's text, kept so that a crash after paying does not pay again.
    """

    key: str
    role: LlmRole
    model: str
    status: Literal["reserved", "settled", "void"]
    reserved_usd: float
    usage: Usage = Usage()
    reply: str | None = None


class Ledger(Protocol):
    """Where money is booked. Each method is durable when it returns."""

    def find(self, key: str) -> LedgerEntry | None:
        """Return the newest entry of this key that has a reply, or None."""
        ...

    def reserve(self, entry: LedgerEntry, limit_usd: float | None) -> int:
        """Book `entry` (status reserved); return its number. Raises `BudgetError` over the limit.

        Spent = sum of settled usd + sum of reserved_usd of unsettled entries.
        """
        ...

    def settle(
        self, number: int, usage: Usage, reply: str | None, status: Literal["settled", "void"]
    ) -> None:
        """Close a reservation with what it cost and, if there is one, the reply."""
        ...


class LlmClient(Protocol):
    """One structured call."""

    def complete(
        self, role: LlmRole, messages: tuple[LlmMessage, ...], schema: type[T], *, salt: str
    ) -> tuple[T, Usage]:
        """Return a validated object and its cost.

        `salt` separates calls that are equal on purpose (loop, attempt). Raises `LlmError` (kind
        `truncated`, `refused`, `malformed`, `rate_limit`, `server`, `timeout`, `auth`, `bad_request`,
        `connection`, `quota`) after bounded retries, `BudgetError` before a call that could pass the limit.
        """
        ...
