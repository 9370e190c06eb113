"""The adapter for OpenAI-compatible endpoints, on the `openai` package (2.x and 3.x).

One request a call, no retries of the package's own, one deadline over the whole exchange. The body
is read as plain JSON here, not by the package: a page of HTML or a half document then fails the
same way in every version. Nothing else imports `openai`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, cast

from rdagent_ft.llm.endpoint import OPENAI_URL, Endpoint, is_loopback
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.llm.redact import redact
from rdagent_ft.llm.transport import RawReply, ReplyFormat, TransportError, error_of_status, read_completion
from rdagent_ft.llm.within import call_within

T = TypeVar("T")
PROBE_TOKENS = 16
GRACE_S = 2.0
"""Seconds the worker gets to close its connection before the caller leaves it behind."""

LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
UNKNOWN_PARAMETER = re.compile(r"unsupported|not supported|unknown|unrecogni[sz]ed|extra|not permitted", re.I)
NOT_SENT = ("ConnectError", "ConnectTimeout", "UnsupportedProtocol", "InvalidURL")
"""Causes that arise before the request left; named, because openai 2 and 3 use different HTTP packages."""


class OpenAiTransport:
    """Chat completions of one model. Keeps which name of the output limit the endpoint takes."""

    def __init__(self, endpoint: Endpoint, secrets: tuple[str, ...] = ()) -> None:
        self.model = endpoint.model
        self.base_url = endpoint.base_url
        self._key = endpoint.api_key.get_secret_value() if endpoint.api_key else "none"
        self._secrets = (*secrets, *endpoint.secrets)
        self._temperature = endpoint.temperature
        # Reasoning models refuse `max_tokens`; older compatible servers know nothing else.
        self._limit_name = "max_completion_tokens" if endpoint.base_url == OPENAI_URL else "max_tokens"
        # The direct connection to this machine must not go through a proxy of the environment.
        self._trusts_env = not is_loopback(endpoint.base_url)
        self._idle_tls: list[Any] = []

    def send(
        self,
        messages: tuple[LlmMessage, ...],
        reply_format: ReplyFormat,
        max_output_tokens: int,
        timeout_s: float,
    ) -> RawReply:
        """See `Transport.send`. An endpoint that refuses the limit's name or a temperature is asked anew."""
        body = _body(self.model, messages, reply_format)
        refused: set[str] = set()
        while True:
            options = self._options(max_output_tokens, refused)
            try:
                reply = self._within(partial(self._complete, {**body, **options}, timeout_s), timeout_s)
            except TransportError as error:
                now = {name for name in options if _refuses_name(error, name)}
                if not now or (now & set(LIMIT_NAMES) and refused & set(LIMIT_NAMES)):
                    raise
                refused |= now
                continue
            self._limit_name = next(name for name in options if name in LIMIT_NAMES)
            self._temperature = options.get("temperature")
            return reply

    def _options(self, max_output_tokens: int, refused: set[str]) -> dict[str, Any]:
        """Return the parameters that not every endpoint takes, without what this one just refused."""
        names = (self._limit_name, *(name for name in LIMIT_NAMES if name != self._limit_name))
        options: dict[str, Any] = {next(n for n in names if n not in refused): max_output_tokens}
        if self._temperature is not None and "temperature" not in refused:
            options["temperature"] = self._temperature
        return options

    def probe(self, timeout_s: float) -> tuple[str, ...]:
        """Return the names that `GET models` lists; without such a list, ask for a few tokens."""
        try:
            return self._within(lambda: self._list_models(timeout_s), timeout_s)
        except TransportError as error:
            if error.kind != "bad_request":
                raise
        hello = (LlmMessage(role="user", content="Say ok."),)
        self.send(hello, ReplyFormat(mode="none", name="", json_schema={}), PROBE_TOKENS, timeout_s)
        return ()

    def _within(self, exchange: Callable[[], Coroutine[Any, Any, T]], timeout_s: float) -> T:
        try:
            return call_within(lambda: asyncio.run(exchange()), timeout_s + GRACE_S)
        except TimeoutError:
            pass
        raise TransportError(f"no complete answer within {timeout_s:g} s", kind="timeout", is_free=False)

    async def _complete(self, body: dict[str, Any], timeout_s: float) -> RawReply:
        async def exchange(client: Any) -> str:
            raw = await client.chat.completions.with_raw_response.create(**body)
            return str(raw.text)

        return read_completion(await self._document(exchange, timeout_s))

    async def _list_models(self, timeout_s: float) -> tuple[str, ...]:
        async def exchange(client: Any) -> str:
            raw = await client.models.with_raw_response.list()
            return str(raw.text)

        document = await self._document(exchange, timeout_s)
        return _model_names(document)

    @contextmanager
    def _tls(self) -> Generator[Any]:
        """Lend a TLS context with its CA bundle, which takes longer to load than an exchange.

        To one exchange at a time: the HTTP packages write into the context whenever they connect.
        """
        try:
            context = self._idle_tls.pop()
        except IndexError:
            context = _new_tls(self._trusts_env)
        try:
            yield context
        finally:
            self._idle_tls.append(context)

    async def _document(self, exchange: Callable[[Any], Coroutine[Any, Any, str]], timeout_s: float) -> Any:
        """Return the parsed body of one exchange; every failure becomes a redacted `TransportError`."""
        import openai

        failure: TransportError
        try:
            with self._tls() as tls:
                async with (
                    asyncio.timeout(timeout_s),
                    openai.AsyncOpenAI(
                        api_key=self._key,
                        base_url=self.base_url,
                        max_retries=0,
                        timeout=timeout_s,
                        http_client=openai.DefaultAsyncHttpxClient(trust_env=self._trusts_env, verify=tls),
                    ) as client,
                ):
                    text = await exchange(client)
                    return _parsed(text, self._secrets)
        except openai.APIStatusError as error:
            failure = error_of_status(
                error.status_code,
                redact(error_text(error.message, error.body), self._secrets),
                retry_after_s(dict(error.response.headers)),
            )
        except (openai.APITimeoutError, TimeoutError) as error:
            failure = TransportError(
                f"no complete answer within {timeout_s:g} s", kind="timeout", is_free=_was_not_sent(error)
            )
        except openai.APIConnectionError as error:
            cause = f": {error.__cause__}" if error.__cause__ is not None else ""
            failure = TransportError(
                redact(f"connection failed{cause} ({self.base_url})", self._secrets),
                kind="connection",
                is_free=_was_not_sent(error),
            )
        except (openai.OpenAIError, ValueError) as error:  # what the package could not read or send
            failure = TransportError(
                redact(f"{type(error).__name__}: {error}", self._secrets), kind="server", is_free=False
            )
        # Raised here, outside the handlers: the library's error with its headers is not chained to it.
        raise failure


def _new_tls(trusts_env: bool) -> Any:
    """Return the context that the HTTP package of the installed openai would make for each client."""
    import openai

    package = openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]  # httpx or httpx2
    return import_module(package).create_ssl_context(trust_env=trusts_env)


def retry_after_s(headers: dict[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or `Retry-After` (seconds or a date) ask for."""
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    try:
        if "retry-after-ms" in lower:
            return max(0.0, float(lower["retry-after-ms"]) / 1000.0)
        value = lower.get("retry-after", "")
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()) if value else None
    except (ValueError, TypeError):
        return None


def _body(model: str, messages: tuple[LlmMessage, ...], reply_format: ReplyFormat) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
    }
    if reply_format.mode != "none":
        body["response_format"] = response_format(reply_format)
    return body


def response_format(reply_format: ReplyFormat) -> dict[str, Any]:
    """Return the `response_format` value of a request."""
    if reply_format.mode == "json_object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": reply_format.name, "strict": True, "schema": reply_format.json_schema},
    }


def _model_names(document: Any) -> tuple[str, ...]:
    entries = cast(dict[str, Any], document).get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    found = [cast(dict[str, Any], e).get("id") for e in cast(list[Any], entries) if isinstance(e, dict)]
    return tuple(name for name in found if isinstance(name, str))


def _refuses_name(error: TransportError, name: str) -> bool:
    return (
        error.status in (400, 422) and name in error.message and bool(UNKNOWN_PARAMETER.search(error.message))
    )


def _was_not_sent(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in NOT_SENT:
            return True
        seen = seen.__cause__
    return False


def error_text(message: str, body: object) -> str:
    """Return the server's own words with its error code, where the body is the usual document."""
    if isinstance(body, dict) and "message" in body:
        code = body.get("code") or body.get("type")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return f"{body['message']}" + (f" ({code})" if code else "")
    return message


def _parsed(text: str, secrets: tuple[str, ...]) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        pass
    start = redact(" ".join(text[:120].split()), secrets)
    raise TransportError(f"the endpoint answered 200 without JSON: {start!r}", kind="server", is_free=False)
