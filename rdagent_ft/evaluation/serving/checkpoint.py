"""What a `config.json` says to a reader: pure JSON, standard library only, for jobs and the core.

transformers 5 keeps the rotary embedding's base in `rope_parameters`, version 4 in `rope_theta`. A
reader of version 4 that finds no `rope_theta` takes its default of 10000 without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

Json = dict[str, Any]


def needs_version_5(config: Json) -> bool:
    """Return whether only a transformers-5 reader finds the rotary base, here or in a nested config."""
    return any(theta is not None and "rope_theta" not in part for part, theta in _parts(config))


def rope_contradiction(config: Json) -> tuple[float, float] | None:
    """Return `rope_theta` and the one of `rope_parameters` where both are there and differ."""
    for part, theta in _parts(config):
        flat = part.get("rope_theta")
        if theta is not None and isinstance(flat, (int, float)) and float(flat) != theta:
            return float(flat), theta
    return None


def text_config(config: Json) -> Json:
    """Return the part that describes the language model."""
    inner = config.get("text_config")
    return cast(Json, inner) if isinstance(inner, dict) else config


def head_size(config: Json) -> int | None:
    """Return the size of one attention head; None when the config does not say."""
    part = text_config(config)
    given = part.get("head_dim")
    if isinstance(given, int) and given > 0:
        return given
    hidden, heads = part.get("hidden_size"), part.get("num_attention_heads")
    if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        return hidden // heads
    return None


def _parts(config: Json) -> Iterator[tuple[Json, float | None]]:
    """Yield each (nested) config with the rotary base of its `rope_parameters`, None without one."""
    yield config, _theta(config.get("rope_parameters"))
    for key, value in config.items():
        if key.endswith("_config") and isinstance(value, dict):
            yield from _parts(cast(Json, value))


def _theta(rope: Any) -> float | None:
    if not isinstance(rope, dict):
        return None
    parameters = cast(Json, rope)
    inner = parameters.get("full_attention")
    if isinstance(inner, dict):
        return _theta(cast(Json, inner))
    theta = parameters.get("rope_theta")
    return float(theta) if isinstance(theta, (int, float)) else None
