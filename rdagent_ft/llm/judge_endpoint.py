"""Which endpoint judges: its own model, key and base URL, apart from the planner's.

Fall-backs: the model is FT_JUDGE_MODEL; the base URL FT_JUDGE_API_BASE, then FT_LLM_API_BASE; the key
FT_JUDGE_API_KEY, then FT_LLM_API_KEY, then OPENAI_API_KEY. A borrowed key goes only to the server
that it belongs to: a planner's key is never sent to a judge elsewhere. Opens no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from rdagent_ft.errors import PreflightError
from rdagent_ft.llm.endpoint import OPENAI_URL, Endpoint, backend_of, is_loopback
from rdagent_ft.settings import Settings

JUDGE_TEMPERATURE = 0.0


def resolve_judge_endpoint(settings: Settings, environ: Mapping[str, str]) -> Endpoint | None:
    """Return the judge's endpoint, or None when FT_JUDGE_* ask for none.

    Raises `PreflightError` when a judge is asked for and cannot be reached as asked.
    """
    model = settings.judge_model.strip()
    if not _is_asked_for(settings) or not model or model.lower() == "none":
        return None
    base_url = _full_url(settings.judge_api_base or settings.llm_api_base)
    if backend_of(settings, model, base_url) == "litellm":
        # Other providers' keys are litellm's to find, so only a named judge counts.
        key = _own_key(settings)
        found = Endpoint(
            backend="litellm", model=model, base_url=base_url, api_key=key, temperature=JUDGE_TEMPERATURE
        )
        return found
    if base_url is None and _own_key(settings) is None and _text(settings.llm_api_key) is None:
        base_url = _full_url(environ.get("OPENAI_BASE_URL")) if environ.get("OPENAI_API_KEY") else None
    base_url = base_url or OPENAI_URL
    if not _is_http_url(base_url):
        raise PreflightError(
            f"the judge's base URL {base_url!r} is no http(s) URL",
            hint="write FT_JUDGE_API_BASE like http://127.0.0.1:8000/v1",
        )
    key = _own_key(settings) or _borrowed_key(settings, environ, base_url)
    if key is None and not is_loopback(base_url):
        raise PreflightError(
            f"no key for the judge {model!r} at {_server_text(base_url)}",
            hint="set FT_JUDGE_API_KEY; the planner's key is only used for the planner's own server",
        )
    return Endpoint(
        backend="openai", model=model, base_url=base_url, api_key=key, temperature=JUDGE_TEMPERATURE
    )


def _borrowed_key(settings: Settings, environ: Mapping[str, str], base_url: str) -> SecretStr | None:
    planner_key = _text(settings.llm_api_key)
    if planner_key and _is_same_server(base_url, settings.llm_api_base or OPENAI_URL):
        return SecretStr(planner_key)
    key = environ.get("OPENAI_API_KEY")
    home = settings.llm_api_base or environ.get("OPENAI_BASE_URL") or OPENAI_URL
    return SecretStr(key) if key and _is_same_server(base_url, home) else None


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
    """Return the URL with `/v1` where only a server is named: the guide writes it like that."""
    if not base_url:
        return None
    if not _is_http_url(base_url) or urlsplit(base_url).path not in ("", "/"):
        return base_url
    return urlunsplit(urlsplit(base_url)._replace(path="/v1"))


def _own_key(settings: Settings) -> SecretStr | None:
    key = _text(settings.judge_api_key)
    return SecretStr(key) if key else None


def _text(secret: SecretStr | None) -> str | None:
    return (secret.get_secret_value() or None) if secret is not None else None


def _is_asked_for(settings: Settings) -> bool:
    """Return whether one of FT_JUDGE_* says something: a key that is at hand for a planner asks for no judge.

    Values are looked at and not where they come from: a resumed run has every value from its record.
    """
    default = Settings.model_fields["judge_model"].default
    own = (settings.judge_api_key, settings.judge_api_base)
    return settings.judge_model != default or any(value not in (None, "") for value in own)
