"""Durations and the clock."""

from __future__ import annotations

import pytest

from rdagent_ft.engine.bounds import Clock, parse_duration_s
from rdagent_ft.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3600", 3600),
        ("2h", 7200),
        ("90m", 5400),
        ("1h30m", 5400),
        ("45s", 45),
        ("30min", 1800),
        ("1.5h", 5400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["foo", "", "0", "-5", "2 fortnights", "1h foo", "nan", "inf"])
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(UserError, match="--timeout"):
        parse_duration_s(text)


def test_no_timeout_never_expires() -> None:
    clock = Clock(None)
    assert clock.left_s() is None
    assert not clock.expired(1e9)
    assert clock.reserve_s(30) == 0


def test_a_reserve_is_kept_only_where_it_is_a_small_share() -> None:
    assert Clock(20).reserve_s(30) == 0
    assert Clock(600).reserve_s(30) == 30
    assert Clock(600).expired(601)
