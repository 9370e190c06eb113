"""Builds the judge that the settings ask for: its own endpoint, price and bounds, the run's ledger.

Verdicts are kept under FT_FILE_PATH/cache/judge and shared by runs. Opens no connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from rdagent_ft.evaluation.judge.judge import N_PARALLEL, Judge
from rdagent_ft.evaluation.judge.pace import Pace, PacedTransport
from rdagent_ft.evaluation.judge.texts import read_mark_key
from rdagent_ft.evaluation.judge.values import JudgeIdentity
from rdagent_ft.evaluation.judge.verdict_cache import VerdictCache
from rdagent_ft.llm.build import build_transport, call_limits
from rdagent_ft.llm.endpoint import Endpoint
from rdagent_ft.llm.judge_endpoint import resolve_judge_endpoint
from rdagent_ft.llm.locked_ledger import LockedLedger
from rdagent_ft.llm.policy import MeteredClient
from rdagent_ft.llm.port import Ledger
from rdagent_ft.llm.redact import secrets_of_environment
from rdagent_ft.llm.side_endpoint import side_price
from rdagent_ft.settings import Settings

MAX_WAIT_S = 120.0
"""Retries of one question. A planner waits for hours; here a breaker ends an outage after 20 questions."""


class BuiltJudge(NamedTuple):
    """A judge with what its owner needs besides: the money of its own calls, and its endpoint."""

    judge: Judge
    ledger: LockedLedger
    endpoint: Endpoint


def build_judge(
    settings: Settings,
    ledger: Ledger,
    note: Callable[[str], None],
    time_left_s: Callable[[], float | None] | None = None,
    *,
    n_parallel: int = N_PARALLEL,
    requests_per_minute: float | None = None,
) -> BuiltJudge | None:
    """Return the judge, or None when none is configured (then its report is `status.skipped_report`).

    `ledger` and `note` may belong to one connection: they are called from several threads, one at a
    time. `requests_per_minute` bounds what is sent; a server's Retry-After holds back all threads either
    way. Raises `PreflightError` for a judge that is asked for and lacks a key or a known price.
    """
    endpoint = resolve_judge_endpoint(settings, os.environ)
    if endpoint is None:
        return None
    locked = LockedLedger(ledger)
    price = side_price("judge", settings, endpoint, note)
    limits = call_limits(settings).model_copy(
        update={"max_wait_s": min(MAX_WAIT_S, settings.llm_max_wait), "is_whole_reply": True}
    )
    transport = PacedTransport(build_transport(settings, endpoint), Pace(requests_per_minute))
    client = MeteredClient(transport, locked, price, limits, locked.ordered(note), time_left_s)
    folder = settings.file_path / "cache" / "judge"
    judge = Judge(
        client,
        JudgeIdentity(
            model=endpoint.model,
            server=(endpoint.base_url or "").split("?")[0].rsplit("@", 1)[-1],
            temperature=endpoint.temperature,
            max_output_tokens=limits.max_output_tokens,
        ),
        mark_key=read_mark_key(folder),
        cache=VerdictCache(folder),
        hidden=_hidden(settings),
        n_parallel=n_parallel,
    )
    return BuiltJudge(judge, locked, endpoint)


def _hidden(settings: Settings) -> tuple[str, ...]:
    keys = (settings.llm_api_key, settings.judge_api_key, settings.teacher_api_key)
    own = tuple(key.get_secret_value() for key in keys if key is not None)
    return (*own, *secrets_of_environment(os.environ))
