"""The adapter for every other provider, on the optional `litellm` package.

litellm is told before its import to use its own copy of the price map (else it downloads one) and
not to load a `.env` file into this process. Nothing else imports it. Streaming and tools are not
used.
"""

from __future__ import annotations

import logging
import os
import warnings
from importlib.util import find_spec
from typing import Any

from rdagent_ft.errors import PreflightError
from rdagent_ft.llm.endpoint import Endpoint
from rdagent_ft.llm.openai_client import error_text, response_format, retry_after_s
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.llm.redact import redact
from rdagent_ft.llm.transport import RawReply, ReplyFormat, TransportError, error_of_status, read_completion
from rdagent_ft.llm.within import call_within

REFUSED = frozenset({400, 401, 403, 404, 413, 422, 429})
"""Statuses that a provider itself sent before doing work. litellm also makes up 500s of its own."""


class LitellmTransport:
    """Chat completions of one `provider/model`."""

    def __init__(self, endpoint: Endpoint, secrets: tuple[str, ...] = ()) -> None:
        if find_spec("litellm") is None:
            raise PreflightError(
                f"the model {endpoint.model!r} needs the package litellm",
                hint="pip install 'rdagent-ft[litellm]', or name an OpenAI-compatible FT_LLM_API_BASE",
            )
        self.model = endpoint.model
        self.base_url = endpoint.base_url
        self._temperature = endpoint.temperature
        self._key = endpoint.api_key.get_secret_value() if endpoint.api_key else None
        self._secrets = (*secrets, *endpoint.secrets)

    def send(
        self,
        messages: tuple[LlmMessage, ...],
        reply_format: ReplyFormat,
        max_output_tokens: int,
        timeout_s: float,
    ) -> RawReply:
        """See `Transport.send`."""
        arguments: dict[str, Any] = {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "max_tokens": max_output_tokens,
        }
        if reply_format.mode != "none":
            arguments["response_format"] = response_format(reply_format)
        if self._temperature is not None:
            # litellm knows which models refuse it, and leaves it out for them.
            arguments |= {"temperature": self._temperature, "drop_params": True}
        return read_completion(self._completion(arguments, timeout_s))

    def probe(self, timeout_s: float) -> tuple[str, ...]:
        """Ask for one token: not every provider can list its models. Returns ()."""
        hello = [{"role": "user", "content": "Say ok."}]
        self._completion({"messages": hello, "max_tokens": 16}, timeout_s)
        return ()

    def _completion(self, arguments: dict[str, Any], timeout_s: float) -> Any:
        litellm = _import_litellm()
        failure: TransportError
        try:
            reply = call_within(
                lambda: litellm.completion(
                    model=self.model,
                    api_key=self._key,
                    api_base=self.base_url,
                    timeout=timeout_s,
                    num_retries=0,
                    max_retries=0,
                    **arguments,
                ),
                timeout_s,
            )
            return reply.model_dump()
        except TimeoutError:
            failure = _timed_out(timeout_s)
        except tuple(litellm.LITELLM_EXCEPTION_TYPES) as error:
            failure = self._failure(litellm, error, timeout_s)
        raise failure

    def _failure(self, litellm: Any, error: Any, timeout_s: float) -> TransportError:
        words = error_text(str(getattr(error, "message", error)), getattr(error, "body", None))
        text = redact(words, self._secrets)
        if isinstance(error, litellm.Timeout):
            return _timed_out(timeout_s)
        if isinstance(error, litellm.APIConnectionError):
            return TransportError(f"connection failed: {text}", kind="connection", is_free=False)
        # `response` is often made up by litellm; the server's own headers are kept here.
        headers = dict(getattr(error, "litellm_response_headers", None) or {})
        status = int(getattr(error, "status_code", None) or 500)
        failure = error_of_status(status, text, retry_after_s(headers))
        failure.is_free = status in REFUSED
        return failure


def _timed_out(timeout_s: float) -> TransportError:
    return TransportError(f"no complete answer within {timeout_s:g} s", kind="timeout", is_free=False)


def _import_litellm() -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = (
        "PRODUCTION"  # the other mode loads ./.env, and with it our keys, into os.environ
    )
    with warnings.catch_warnings():
        # Its own classes warn while pydantic builds them, which happens at the first use.
        warnings.simplefilter("ignore")
        import litellm

        litellm.ModelResponse()
    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # it logs whole requests on an error
    return litellm
