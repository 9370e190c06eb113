"""How fast a judge is asked: a server's wish to wait holds for all threads, and a rate may be set.

A wait that one thread was told to make concerns the whole endpoint: without this, its neighbours would be
refused too, one after the other, and each refusal counts towards the judge's breaker. Retries and their
number stay with `llm.policy`; tokens a minute are not counted.
"""

from __future__ import annotations

import threading
import time

from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.llm.transport import RawReply, ReplyFormat, Transport, TransportError

MAX_HOLD_S = 300.0
_POLL_S = 0.5


class Pace:
    """When the next request may go out, over all threads. Without a rate only `hold` makes it wait."""

    def __init__(self, requests_per_minute: float | None = None) -> None:
        self._lock = threading.Lock()
        self._interval_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._free_at = 0.0

    def take(self, within_s: float) -> float:
        """Wait for a turn and return the seconds that took.

        Raises `TransportError` (rate_limit, free of charge) when there will be none `within_s` seconds.
        """
        began = time.monotonic()
        while True:
            with self._lock:
                now = time.monotonic()
                left_s = self._free_at - now
                if left_s <= 0:
                    self._free_at = now + self._interval_s
                    return now - began
            if now + left_s > began + within_s:
                raise TransportError(
                    f"the next request may go out in {left_s:.0f} s, as its rate is limited",
                    kind="rate_limit",
                    is_free=True,
                    retry_after_s=left_s,
                )
            time.sleep(min(left_s, _POLL_S))

    def hold(self, seconds: float) -> None:
        """Let nobody send for so many seconds, at most 5 minutes."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + min(seconds, MAX_HOLD_S))


class PacedTransport:
    """A transport whose threads share one pace."""

    def __init__(self, inner: Transport, pace: Pace) -> None:
        self.model = inner.model
        self.base_url = inner.base_url
        self._inner = inner
        self._pace = pace

    def send(
        self,
        messages: tuple[LlmMessage, ...],
        reply_format: ReplyFormat,
        max_output_tokens: int,
        timeout_s: float,
    ) -> RawReply:
        """See `Transport.send`; waiting for a turn is part of `timeout_s`."""
        waited_s = self._pace.take(timeout_s / 2)
        try:
            return self._inner.send(messages, reply_format, max_output_tokens, timeout_s - waited_s)
        except TransportError as error:
            if error.kind == "rate_limit" and error.retry_after_s is not None:
                self._pace.hold(error.retry_after_s)
            raise

    def probe(self, timeout_s: float) -> tuple[str, ...]:
        """See `Transport.probe`."""
        return self._inner.probe(timeout_s)
