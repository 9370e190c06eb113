"""Which endpoint the settings mean: library, model, base URL, key. Opens no connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from rdagent_ft.errors import PreflightError
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen

OPENAI_URL = "https://api.openai.com/v1"


class Endpoint(Frozen):
    """One model behind one endpoint.

    `base_url` None leaves the address to litellm's provider; `temperature` None leaves it to the model.
    """

    backend: Literal["openai", "litellm"]
    model: str
    base_url: str | None
    api_key: SecretStr | None = None
    temperature: float | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never appear in a text."""
        return (self.api_key.get_secret_value(),) if self.api_key is not None else ()


def resolve_endpoint(settings: Settings, environ: Mapping[str, str]) -> Endpoint:
    """Return the planner's endpoint.

    A key from OPENAI_API_KEY goes to OPENAI_BASE_URL when that is set: a gateway's key must not be
    sent to another server. Raises `PreflightError` without a model, or without a key where one is needed.
    """
    model = settings.planner_model
    if not model:
        raise PreflightError("no LLM is configured", hint="set FT_PLANNER_MODEL, or use --planner tpe")
    base_url = settings.llm_api_base
    key = settings.llm_api_key if settings.llm_api_key and settings.llm_api_key.get_secret_value() else None
    if backend_of(settings, model, base_url) == "litellm":
        # Without our own key litellm reads the provider's variable, e.g. ANTHROPIC_API_KEY.
        return Endpoint(backend="litellm", model=model, base_url=base_url, api_key=key)
    if key is None and environ.get("OPENAI_API_KEY"):
        key = SecretStr(environ["OPENAI_API_KEY"])
        base_url = base_url or environ.get("OPENAI_BASE_URL") or None
    base_url = base_url or OPENAI_URL
    if urlsplit(base_url).scheme not in ("http", "https"):
        raise PreflightError(
            f"FT_LLM_API_BASE {base_url!r} is no http(s) URL", hint="write it like http://127.0.0.1:8000/v1"
        )
    if key is None and not is_loopback(base_url):
        raise PreflightError(
            f"no key for the LLM {model!r}",
            hint="set FT_LLM_API_KEY (or OPENAI_API_KEY), or use --planner tpe",
        )
    return Endpoint(backend="openai", model=model, base_url=base_url, api_key=key)


def is_loopback(base_url: str | None) -> bool:
    """Tell whether the URL's host is this machine by name (localhost) or address (127/8, ::1)."""
    host = urlsplit(base_url).hostname if base_url else None
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def backend_of(settings: Settings, model: str, base_url: str | None) -> Literal["openai", "litellm"]:
    """Return the client library for `model`: the settings', else by the form of its name."""
    if settings.llm_backend != "auto":
        return settings.llm_backend
    return "litellm" if "/" in model and base_url is None else "openai"
