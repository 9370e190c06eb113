"""Endpoints beside the planner's: a judge or a teacher with a model, key and base URL of its own.

What is unset is borrowed from the planner: the base URL is FT_LLM_API_BASE, the key FT_LLM_API_KEY, then
OPENAI_API_KEY. A borrowed key goes only to the server that it belongs to: a planner's key is never sent
elsewhere. Opens no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from rdagent_ft.errors import PreflightError
from rdagent_ft.llm.endpoint import OPENAI_URL, Endpoint, backend_of, is_loopback
from rdagent_ft.llm.prices import Price, price_of
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen


class SideModel(Frozen):
    """What the settings say of one such model; `name` stands in messages and in FT_<NAME>_… settings."""

    name: Literal["judge", "teacher"]
    model: str
    api_key: SecretStr | None
    api_base: str | None
    temperature: float | None


def side_endpoint(wanted: SideModel, settings: Settings, environ: Mapping[str, str]) -> Endpoint:
    """Return the endpoint of a model that is asked for. Raises `PreflightError` when it cannot be reached."""
    base_url = _full_url(wanted.api_base or settings.llm_api_base)
    own_key = _text(wanted.api_key)
    if backend_of(settings, wanted.model, base_url) == "litellm":
        # Other providers' keys are litellm's to find, so only the model's own key counts.
        return _endpoint("litellm", wanted, base_url, own_key)
    if base_url is None and own_key is None and _text(settings.llm_api_key) is None:
        base_url = _full_url(environ.get("OPENAI_BASE_URL")) if environ.get("OPENAI_API_KEY") else None
    base_url = base_url or OPENAI_URL
    prefix = f"FT_{wanted.name.upper()}"
    if not _is_http_url(base_url):
        raise PreflightError(
            f"the {wanted.name}'s base URL {base_url!r} is no http(s) URL",
            hint=f"write {prefix}_API_BASE like http://127.0.0.1:8000/v1",
        )
    key = own_key or _borrowed_key(settings, environ, base_url)
    if key is None and not is_loopback(base_url):
        raise PreflightError(
            f"no key for the {wanted.name} {wanted.model!r} at {_server_text(base_url)}",
            hint=f"set {prefix}_API_KEY; the planner's key is only used for the planner's own server",
        )
    return _endpoint("openai", wanted, base_url, key)


def side_price(
    name: Literal["judge", "teacher"], settings: Settings, endpoint: Endpoint, note: Callable[[str], None]
) -> Price | None:
    """Return what the endpoint's tokens cost; None means unknown and allowed.

    FT_LLM_PRICE_* are the planner's: for another model they count only where nothing else is known. A
    gateway on this machine that the planner uses too is taken to cost as the planner does. Raises
    `PreflightError` for an unknown price that is not allowed.
    """
    is_gateway = is_loopback(endpoint.base_url) and endpoint.base_url == settings.llm_api_base
    if endpoint.model == settings.planner_model or is_gateway:
        return price_of(settings, endpoint.model, endpoint.base_url)
    listed = settings.model_copy(update={"llm_price_input": None, "llm_price_output": None})
    try:
        found = price_of(listed, endpoint.model, endpoint.base_url)
    except PreflightError:
        found = None
        if settings.llm_price_input is None:
            raise
    if found is None and settings.llm_price_input is not None:
        note(f"{name}: the price of {endpoint.model} is not known; FT_LLM_PRICE_* are booked for it")
        return price_of(settings, endpoint.model, endpoint.base_url)
    if found is None:
        note(f"{name}: the price of {endpoint.model} is not known; its money is counted as 0 (allowed)")
    return found


def _endpoint(
    backend: Literal["openai", "litellm"], wanted: SideModel, base_url: str | None, key: str | None
) -> Endpoint:
    return Endpoint(
        backend=backend,
        model=wanted.model,
        base_url=base_url,
        api_key=SecretStr(key) if key else None,
        temperature=wanted.temperature,
    )


def _borrowed_key(settings: Settings, environ: Mapping[str, str], base_url: str) -> str | None:
    planner_key = _text(settings.llm_api_key)
    if planner_key and _is_same_server(base_url, settings.llm_api_base or OPENAI_URL):
        return planner_key
    key = environ.get("OPENAI_API_KEY")
    home = settings.llm_api_base or environ.get("OPENAI_BASE_URL") or OPENAI_URL
    return key if key and _is_same_server(base_url, home) else None


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or a broken IPv6 address
        return False


def _is_same_server(left: str, right: str) -> bool:
    return _server_text(left) == _server_text(right)


def _server_text(url: str) -> str:
    """Return scheme, host and port of an http(s) URL; another URL is its own server."""
    if not _is_http_url(url):
        return url
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _full_url(base_url: str | None) -> str | None:
    """Return the URL with `/v1` where only a server is named."""
    if not base_url:
        return None
    if not _is_http_url(base_url) or urlsplit(base_url).path not in ("", "/"):
        return base_url
    return urlunsplit(urlsplit(base_url)._replace(path="/v1"))


def _text(secret: SecretStr | None) -> str | None:
    return (secret.get_secret_value() or None) if secret is not None else None
