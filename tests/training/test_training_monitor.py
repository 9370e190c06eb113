"""The verdict on a training from its metrics alone."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.training.monitor import read_health

FALLING = [(3.0, 1.0), (2.5, 0.9), (2.0, 0.8), (1.5, 0.8), (1.2, 0.7)]


def write(path: Path, points: list[tuple[object, object]]) -> Path:
    with path.open("w") as stream:
        for step, (loss, grad_norm) in enumerate(points, start=1):
            stream.write(json.dumps({"step": step, "loss": loss, "grad_norm": grad_norm}) + "\n")
    return path


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        (FALLING, "ok"),
        ([(3.0, 1.0), ("nan", 1.0), (2.0, 1.0)], "diverged"),
        ([(3.0, 1.0), ("inf", "nan")], "diverged"),
        ([(3.0, 1.0), (0, "nan"), (0, "nan")], "diverged"),
        ([(3.0, "inf"), (2.9, 1.0), (2.5, 1.0), (2.2, 1.0)], "ok"),  # the loss scaler's first steps
        ([(3.0, 1.0), (40.0, 5.0), (900.0, 9.0)], "diverged"),
        ([(5.658, 1.23), (5.724, 0.0), (5.724, 0.0), (5.724, 0.0)], "diverged"),  # seen with lr 1e6
        ([(1.0, 1.0), (0.0, 0.0), (0.0, 0.0)], "ok"),
        ([(3.0, 0.0), (3.1, 0.0), (2.9, 0.0)], "flat"),
        ([(3.0, 1.0)] * 6, "flat"),
        ([(3.0, 1.0)], "ok"),
        ([], "no_metrics"),
    ],
)
def test_verdicts(tmp_path: Path, points: list[tuple[object, object]], verdict: str) -> None:
    assert read_health(write(tmp_path / "metrics.jsonl", points)).verdict == verdict


def test_numbers_are_reported(tmp_path: Path) -> None:
    health = read_health(write(tmp_path / "metrics.jsonl", list(FALLING)))
    assert (health.n_steps, health.first_loss, health.last_loss) == (5, 3.0, 1.2)
    assert (health.min_loss, health.max_grad_norm) == (1.2, 1.0)


def test_a_repeated_step_counts_once_and_a_cut_line_does_not(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", list(FALLING))
    with path.open("a") as stream:
        stream.write('{"step": 5, "loss": 1.1, "grad_norm": 0.5}\n{"step": 6, "lo')
    assert read_health(path).last_loss == 1.1


def test_no_file_is_no_metrics(tmp_path: Path) -> None:
    assert read_health(tmp_path / "metrics.jsonl").verdict == "no_metrics"


@given(st.binary(max_size=300))
def test_any_content_gives_a_verdict(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    assert read_health(path).verdict in {"ok", "diverged", "flat", "no_metrics"}


HOSTILE_LINES = [
    '{"step": 1e400, "loss": 1}',
    '{"step": true, "loss": 1}',
    '{"step": ' + "9" * 4000 + ', "loss": 1}',
    '{"step": -1, "loss": 1}',
    '{"step": 1, "loss": [1]}',
    '{"step": 1, "loss": ' + "9" * 4000 + "}",
    '{"step": 1, "loss": "\\u001b[2J"}',
    '{"step": "1", "loss": 1}',
]


@pytest.mark.parametrize("line", HOSTILE_LINES)
def test_values_that_are_no_metrics_are_left_out(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "metrics.jsonl", list(FALLING))
    with path.open("a") as stream:
        stream.write(line + "\n")
    assert read_health(path) == read_health(write(tmp_path / "clean.jsonl", list(FALLING)))


def test_a_flood_of_metrics_stays_within_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"step": 1, "loss": 1.0, "junk": [[]] * 9000}) + "\n"
    path.write_text(line * 1000)
    tracemalloc.start()
    try:
        assert read_health(path).verdict == "ok"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    path.write_text(json.dumps({"step": 1, "loss": 1.0, "junk": "x" * 70_000}))
    assert "longer than" in read_health(path).message
    path.unlink()
    os.mkfifo(path)
    assert read_health(path).verdict == "no_metrics"
    path.unlink()
    path.symlink_to(write(tmp_path / "other.jsonl", list(FALLING)))
    assert read_health(path).verdict == "no_metrics"
