"""A small run of `bench.claims`: reproducible, and of the shape that the kept result has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.evaluation.distributions import clopper_pearson

ROOT = Path(__file__).resolve().parents[2]


def simulate(seed: int, workers: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.claims", "--json", "--seed", str(seed)]
    sizes = ["--gain-worlds", "6", "--null-worlds", "20", "--workers", str(workers)]
    done = subprocess.run([*command, *sizes], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return simulate(4, 1)


def test_seed_decides_the_numbers_and_workers_do_not(document: dict[str, Any]) -> None:
    assert simulate(4, 2) == document
    assert simulate(5, 2)["null_worlds"] != document["null_worlds"]


def test_null_worlds_fool_keep_if_higher_and_not_the_claim(document: dict[str, Any]) -> None:
    null = document["null_worlds"]["all"]
    ours, kept = null["ours"], null["keep_if_higher_100"]
    assert null["worlds"] == 40
    assert ours["rate_ci95"] == pytest.approx(clopper_pearson(ours["false_improved"], 40), abs=1e-4)
    # 2.5 % are expected; 5 of 40 have a chance below 1 in 1,000.
    assert ours["false_improved"] < 5
    assert kept["claims_a_gain_rate"] > 0.8
    assert kept["claimed_gain_pp"]["mean"] > kept["true_gain_pp"]["mean"] + 3


def test_racing_saves_items_and_keeps_gain(document: dict[str, Any]) -> None:
    gain = document["gain_worlds"]["all"]
    assert 0.75 < gain["gain_share"]["value"] < 1.2
    assert gain["item_share"]["value"] < 0.8
    assert gain["ours_racing"]["true_gain_pp"]["mean"] > gain["keep_if_higher_100"]["true_gain_pp"]["mean"]
    claim = gain["ours_racing"]
    assert abs(claim["optimism_of_the_claim_pp"]["mean"]) < 4 * claim["optimism_of_the_claim_pp"]["se"] + 0.1


def test_the_kept_result_reached_its_targets() -> None:
    kept = json.loads((ROOT / "bench" / "results" / "claims.json").read_text())
    assert all(kept["reached"].values())
