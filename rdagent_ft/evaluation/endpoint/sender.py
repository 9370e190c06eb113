"""One HTTP request with its retries, and the breaker that tells a bad request from a dead server.

What is worth a retry: timeouts, broken connections, unreadable bodies and the statuses 408, 409, 425,
429 and 5xx. 401, 403 and 404 end the job, because every other request would meet them too. Another
4xx is about this one prompt. A key is sent only where the target names one, and never shown.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import aiohttp

from rdagent_ft.evaluation.endpoint.ends import EndKind, EndpointError
from rdagent_ft.evaluation.endpoint.request import EndpointTarget, RetryRules
from rdagent_ft.execution.outputs import clean_text

REPLY_MAX_BYTES = 64 << 20
_RETRIED = frozenset({408, 409, 425, 429})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TOO_LONG = re.compile(
    r"context[ _](?:length|window)|maximum (?:model|context|input|prompt)|max_model_len"
    r"|too (?:long|many tokens)",
    re.IGNORECASE,
)


class Reply(NamedTuple):
    """What the server answered, and the seconds of the try that worked."""

    body: dict[str, Any]
    latency_s: float


class Refused(NamedTuple):
    """Why one request has no answer. `too_long`: the prompt does not fit the model's context."""

    reason: str
    too_long: bool = False


class _Failure(NamedTuple):
    reason: str
    wait_s: float | None = None
    status: int | None = None


class Sender:
    """Sends to one target. Counts the requests that failed one after the other."""

    def __init__(self, target: EndpointTarget, rules: RetryRules, key: str | None) -> None:
        self._target = target
        self._rules = rules
        self._key = key
        self._failed_in_row = 0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Sender:
        is_near = (urlsplit(self._target.base_url).hostname or "") in _LOOPBACK
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._target.request_timeout_s),
            connector=aiohttp.TCPConnector(limit=self._target.concurrency),
            headers={} if self._key is None else {"Authorization": f"Bearer {self._key}"},
            trust_env=not is_near,  # a proxy of the environment never stands before the own machine
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Reply | Refused:
        """GET `base_url + path`. Raises `EndpointError` when nobody answers or the key is refused."""
        found = await self._try_all("GET", path, None)
        if isinstance(found, _Failure):
            if found.status is None:
                raise EndpointError("server_gone", f"{self._target.base_url} does not answer: {found.reason}")
            return Refused(found.reason)
        return found

    async def post(self, path: str, payload: dict[str, Any]) -> Reply | Refused:
        """POST a body. A request that fails for good is `Refused`.

        Raises `EndpointError`: `auth` (401, 403), `bad_request` (404, or refused again and again),
        `server_gone` after as many failures in a row as the breaker allows.
        """
        found = await self._try_all("POST", path, payload)
        if isinstance(found, Reply):
            self._failed_in_row = 0
            return found
        if found.status == 404:
            raise EndpointError("bad_request", f"{self._target.base_url}{path}: {found.reason}")
        if found.status in {400, 413, 422} and _TOO_LONG.search(found.reason):
            self._failed_in_row = 0  # it answers; this prompt is the trouble
            return Refused(found.reason, too_long=True)
        self._failed_in_row += 1
        if self._failed_in_row >= self._rules.breaker:
            is_refusal = found.status is not None and 400 <= found.status < 500 and found.status != 429
            kind: EndKind = "bad_request" if is_refusal else "server_gone"
            raise EndpointError(kind, f"{self._failed_in_row} requests failed in a row; {found.reason}")
        return Refused(found.reason)

    async def _try_all(self, method: str, path: str, payload: dict[str, Any] | None) -> Reply | _Failure:
        failure = _Failure("never sent")
        for number in range(self._rules.n_tries):
            found = await self._try_once(method, path, payload)
            if isinstance(found, Reply) or (found.status is not None and not _is_retried(found.status)):
                return found
            failure = found
            if number + 1 < self._rules.n_tries:
                await asyncio.sleep(self._wait_s(number, found.wait_s))
        return failure

    async def _try_once(self, method: str, path: str, payload: dict[str, Any] | None) -> Reply | _Failure:
        assert self._session is not None
        started = time.monotonic()
        url = self._target.base_url.rstrip("/") + path
        try:
            async with self._session.request(method, url, json=payload, allow_redirects=False) as response:
                status, headers = response.status, response.headers
                raw = await _read_bounded(response)
        except TimeoutError:
            return _Failure(f"no whole answer within {self._target.request_timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return _Failure(self._shown(f"{type(error).__name__}: {error}"))
        if status in {401, 403}:
            raise EndpointError(
                "auth", self._shown(f"{self._target.base_url} refuses the key: {_message(raw)}")
            )
        if status >= 300:
            reason = self._shown(f"HTTP {status}: {_message(raw)}")
            return _Failure(reason, _retry_after_s(headers.get("Retry-After")), status)
        try:
            body: Any = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            return _Failure(f"HTTP {status} with a body that is no JSON object")
        return Reply(cast("dict[str, Any]", body), time.monotonic() - started)

    def _wait_s(self, number: int, asked_s: float | None) -> float:
        jitter = random.uniform(0, min(self._rules.backoff_cap_s, self._rules.backoff_s * 2**number))
        return max(jitter, min(asked_s or 0.0, self._rules.retry_after_cap_s))

    def _shown(self, text: str) -> str:
        shown = clean_text(text if self._key is None else text.replace(self._key, "***"))
        return " ".join(shown.split())[:400]


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    pieces = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        pieces += piece
        if len(pieces) > REPLY_MAX_BYTES:
            raise aiohttp.ClientPayloadError("the answer is too large")
    return bytes(pieces)


def _is_retried(status: int) -> bool:
    return status in _RETRIED or status >= 500


def _retry_after_s(header: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header (a number or an HTTP date); None for neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None


def _message(raw: bytes) -> str:
    """Return what an error document says, or the beginning of whatever came instead."""
    text = raw[:4096].decode("utf-8", "replace")
    try:
        document: Any = json.loads(raw[: 1 << 16])
    except (ValueError, RecursionError):
        return text[:300]
    fields = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    error: Any = fields.get("error", fields.get("message"))
    if isinstance(error, dict):
        error = cast("dict[str, Any]", error).get("message")
    return error[:300] if isinstance(error, str) else text[:300]
