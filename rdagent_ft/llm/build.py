"""Builds the LLM client that the settings ask for, and checks for `doctor` that it answers."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable

from rdagent_ft.errors import LlmError, PreflightError
from rdagent_ft.llm.endpoint import Endpoint, resolve_endpoint
from rdagent_ft.llm.litellm_client import LitellmTransport
from rdagent_ft.llm.openai_client import OpenAiTransport
from rdagent_ft.llm.policy import CallLimits, MeteredClient
from rdagent_ft.llm.port import Ledger, LlmClient
from rdagent_ft.llm.prices import price_of
from rdagent_ft.llm.redact import secrets_of_environment
from rdagent_ft.llm.transport import Transport
from rdagent_ft.settings import Settings

OUTPUT_CAP_TOKENS = 32_768
PROBE_TIMEOUT_S = 10.0


def build_client(
    settings: Settings,
    ledger: Ledger,
    note: Callable[[str], None],
    time_left_s: Callable[[], float | None] | None = None,
) -> LlmClient:
    """Return the planner's metered client. Opens no connection.

    `note` receives one line whenever the client waits, falls back or guesses; `time_left_s` gives
    the seconds until the run must end (requests and waits stay inside). Raises `PreflightError`
    without a model, key or known price.
    """
    endpoint = resolve_endpoint(settings, os.environ)
    price = price_of(settings, endpoint.model, endpoint.base_url)
    if price is None:
        note(f"LLM: the price of {endpoint.model} is not known; its money is counted as 0 (allowed)")
    return MeteredClient(
        build_transport(settings, endpoint), ledger, price, call_limits(settings), note, time_left_s
    )


def build_transport(settings: Settings, endpoint: Endpoint) -> Transport:
    """Return the adapter for `endpoint`; it knows every secret that its errors must not show."""
    keys = (settings.llm_api_key, settings.judge_api_key, settings.teacher_api_key)
    secrets = (
        *secrets_of_environment(os.environ),
        *(key.get_secret_value() for key in keys if key is not None),
    )
    if endpoint.backend == "litellm":
        return LitellmTransport(endpoint, secrets)
    return OpenAiTransport(endpoint, secrets)


def call_limits(settings: Settings) -> CallLimits:
    """Return the bounds of a call. A short FT_LLM_MAX_WAIT shortens the waits too, so that it is used."""
    return CallLimits(
        timeout_s=settings.llm_timeout,
        max_wait_s=settings.llm_max_wait,
        max_output_tokens=settings.llm_max_output_tokens,
        output_cap_tokens=max(OUTPUT_CAP_TOKENS, settings.llm_max_output_tokens),
        max_cost_usd=settings.max_cost,
        backoff_base_s=min(1.0, settings.llm_max_wait / 20),
    )


def check_reachable(settings: Settings) -> str | None:
    """Return what is wrong with the configured LLM, or None when it answers or none is configured.

    Asks an OpenAI-compatible endpoint for its models (free), any other for one short reply.
    """
    if not settings.planner_model:
        return None
    try:
        endpoint = resolve_endpoint(settings, os.environ)
        price_of(settings, endpoint.model, endpoint.base_url)
        names = build_transport(settings, endpoint).probe(min(PROBE_TIMEOUT_S, settings.llm_timeout))
    except PreflightError as error:
        return f"{error.message}; {error.hint}" if error.hint else error.message
    except LlmError as error:
        return f"{endpoint_text(settings)} does not answer: {error.message}"
    if names and endpoint.model not in names:
        near = difflib.get_close_matches(endpoint.model, names, n=3, cutoff=0.3) or sorted(names)[:3]
        return f"{endpoint_text(settings)} lists {', '.join(near)}, but not the model {endpoint.model!r}"
    return None


def endpoint_text(settings: Settings) -> str:
    """Return the endpoint's name for a message, without user info or query."""
    base = settings.llm_api_base or "the provider's endpoint"
    return base.split("?")[0].rsplit("@", 1)[-1]
