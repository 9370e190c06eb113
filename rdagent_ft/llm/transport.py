"""One request, one reply: what an adapter must do, and how its failures are named.

An adapter sends once and never retries: retries, money and re-asking belong to `policy.py`, so that
every attempt is booked. The reader of completion documents lives here because both adapters get
the same document.
"""

from __future__ import annotations

import re
from typing import Any, Literal, Protocol, cast

from rdagent_ft.errors import LlmError
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.values import Frozen

ReplyMode = Literal["json_schema", "json_object", "none"]
MAX_ERROR_CHARS = 600
QUOTA_WORDS = re.compile(r"insufficient_quota|billing_hard_limit|insufficient.{0,20}(credit|balance)", re.I)
"""Not "exceeded your current quota": one provider says so for limits per minute as well."""


class ReplyFormat(Frozen):
    """What the endpoint is asked to enforce: a JSON schema, any JSON object, or nothing."""

    mode: ReplyMode
    name: str
    json_schema: dict[str, Any]


class RawReply(Frozen):
    """An endpoint's answer before anyone trusted it. Token counts are None when it reports none."""

    text: str | None
    finish_reason: str | None = None
    refusal: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int = 0


class TransportError(LlmError):
    """One request failed.

    Attributes:
        status: HTTP status, None when there was no usable answer.
        retry_after_s: the server's wish, if it sent one.
        is_free: the request surely cost nothing; otherwise its reservation stays booked.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        is_free: bool,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, kind=kind)
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_free = is_free


class Transport(Protocol):
    """One endpoint with one model."""

    model: str
    base_url: str | None

    def send(
        self,
        messages: tuple[LlmMessage, ...],
        reply_format: ReplyFormat,
        max_output_tokens: int,
        timeout_s: float,
    ) -> RawReply:
        """Send one request and return its reply within `timeout_s`. Raises `TransportError`."""
        ...

    def probe(self, timeout_s: float) -> tuple[str, ...]:
        """Return the endpoint's model names, () when it lists none. Raises `TransportError`."""
        ...


def error_of_status(status: int, text: str, retry_after_s: float | None = None) -> TransportError:
    """Return the failure that an HTTP status of 400 or more stands for.

    `text` must be redacted. A refused request is not billed, so it is free.
    """
    kind = "bad_request"
    if status in (401, 403):
        kind = "auth"
    elif status == 402 or (status in (400, 403, 429) and QUOTA_WORDS.search(text)):
        kind = "quota"
    elif status == 429:
        kind = "rate_limit"
    elif status == 408:
        kind = "timeout"
    elif status in (409, 425) or status >= 500:
        kind = "server"
    shown = text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS] + " [cut]"
    return TransportError(
        f"HTTP {status}: {shown}", kind=kind, is_free=True, status=status, retry_after_s=retry_after_s
    )


def read_completion(document: Any) -> RawReply:
    """Return the reply in a chat-completion document. Raises `TransportError` (server) when it is none."""
    if not isinstance(document, dict):
        raise TransportError("the endpoint's answer is not a JSON object", kind="server", is_free=False)
    body = cast(dict[str, Any], document)
    error = body.get("error")
    if isinstance(error, dict):  # some gateways answer 200 and put the failure inside
        fields = cast(dict[str, Any], error)
        code = fields.get("code")
        raise error_of_status(
            code if isinstance(code, int) and code >= 400 else 502, str(fields.get("message"))
        )
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise TransportError("the endpoint's answer has no `choices`", kind="server", is_free=False)
    choice = cast(dict[str, Any], choices[0])
    message = choice.get("message")
    fields = cast(dict[str, Any], message) if isinstance(message, dict) else {}
    usage = body.get("usage")
    counts = cast(dict[str, Any], usage) if isinstance(usage, dict) else {}
    details = counts.get("prompt_tokens_details")
    cached = cast(dict[str, Any], details).get("cached_tokens") if isinstance(details, dict) else None
    return RawReply(
        text=_text_of(fields.get("content")),
        finish_reason=_str_or_none(choice.get("finish_reason")),
        refusal=_str_or_none(fields.get("refusal")),
        input_tokens=_count_or_none(counts.get("prompt_tokens")),
        output_tokens=_count_or_none(counts.get("completion_tokens")),
        cached_input_tokens=_count_or_none(cached) or 0,
    )


def _text_of(content: Any) -> str | None:
    """Return the text of `content`: a string, or a list of parts of which the texts count."""
    if isinstance(content, list):
        parts = [cast(dict[str, Any], part) for part in cast(list[Any], content) if isinstance(part, dict)]
        return "".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str))
    return _str_or_none(content)


def _str_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
