"""The teacher: the endpoint that writes answers to training prompts and labels rows, with its own money.

FT_TEACHER_MODEL names it; what else is unset is borrowed as `side_endpoint.py` says. Without a model there
is no teacher. Its calls are booked in the caller's ledger like the planner's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rdagent_ft.errors import PreflightError
from rdagent_ft.llm.build import build_transport, call_limits
from rdagent_ft.llm.endpoint import Endpoint
from rdagent_ft.llm.locked_ledger import LockedLedger
from rdagent_ft.llm.policy import MeteredClient
from rdagent_ft.llm.port import Ledger, LlmClient
from rdagent_ft.llm.side_endpoint import SideModel, side_endpoint, side_price
from rdagent_ft.settings import Settings

N_REASKS = 1
"""An answer that is no JSON twice is given up: it is one of many."""


class Teacher(NamedTuple):
    """A teacher that can be asked from several threads. `identity` names what decides about its answers."""

    client: LlmClient
    endpoint: Endpoint
    ledger: LockedLedger
    identity: dict[str, str | int | float | None]


def resolve_teacher_endpoint(
    settings: Settings, environ: Mapping[str, str], temperature: float | None = None
) -> Endpoint | None:
    """Return the teacher's endpoint, or None when FT_TEACHER_MODEL is unset.

    Raises `PreflightError` when a teacher is named and cannot be reached as asked.
    """
    model = (settings.teacher_model or "").strip()
    if not model:
        return None
    wanted = SideModel(
        name="teacher",
        model=model,
        api_key=settings.teacher_api_key,
        api_base=settings.teacher_api_base,
        temperature=temperature,
    )
    return side_endpoint(wanted, settings, environ)


def build_teacher(
    settings: Settings,
    ledger: Ledger,
    note: Callable[[str], None],
    time_left_s: Callable[[], float | None] | None = None,
    *,
    temperature: float,
    max_tokens: int,
) -> Teacher:
    """Return the teacher. Opens no connection.

    `ledger` and `note` may belong to one connection: they are called from several threads, one at a time.
    Replies are bounded by `max_tokens`; a longer one is a lost one, not asked again with a larger bound.
    Raises `PreflightError` without a model, key or known price.
    """
    endpoint = resolve_teacher_endpoint(settings, os.environ, temperature)
    if endpoint is None:
        raise PreflightError("no teacher is set", hint="set FT_TEACHER_MODEL")
    locked = LockedLedger(ledger)
    limits = call_limits(settings).model_copy(
        update={
            "max_output_tokens": max_tokens,
            "output_cap_tokens": max_tokens,
            "n_reasks": N_REASKS,
            "is_whole_reply": True,
        }
    )
    client = MeteredClient(
        build_transport(settings, endpoint),
        locked,
        side_price("teacher", settings, endpoint, note),
        limits,
        locked.ordered(note),
        time_left_s,
    )
    identity: dict[str, str | int | float | None] = {
        "model": endpoint.model,
        "server": (endpoint.base_url or "").split("?")[0].rsplit("@", 1)[-1],
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    return Teacher(client, endpoint, locked, identity)
