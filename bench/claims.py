"""Can the selection rules be fooled? Simulated campaigns with known truth, judged by the real code.

`python -m bench.claims --seed N [--json]`. Null worlds, in which no recipe helps, count how often
the final claim falsely says "improved" (at most 5 %). Worlds with gains count what racing reaches of
the true gain that scoring everything reaches (at least 90 %), and for what share of the val items
(at most 65 %). Beside it: keep-if-higher on 100 items. The worlds are described in `bench.worlds`.

The document depends on the seed, the sizes and the code alone. Kept: `bench/results/claims.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from bench.campaigns import Campaign, keep_if_higher, our_rule
from bench.worlds import GAIN_KINDS, NULL_KINDS, Kind, draw_world
from rdagent_ft.evaluation.distributions import Z_975, clopper_pearson

ROOT = Path(__file__).resolve().parents[1]
CODE = (
    "bench/claims.py", "bench/campaigns.py", "bench/worlds.py", "rdagent_ft/engine/selection.py",
    "rdagent_ft/evaluation/distributions.py", "rdagent_ft/evaluation/posterior.py",
    "rdagent_ft/evaluation/racing.py", "rdagent_ft/evaluation/rows.py",
    "rdagent_ft/evaluation/statistics.py", "rdagent_ft/evaluation/trials.py",
)  # fmt: skip
"""What the numbers depend on."""

MAX_FALSE_CLAIMS = 0.05
MIN_GAIN_SHARE = 0.90
MAX_ITEM_SHARE = 0.65


class Played(NamedTuple):
    """One world under every rule; `full` and `keep_all` only where there is something to gain."""

    kind: Kind
    n_val: int
    racing: Campaign
    keep_100: Campaign
    full: Campaign | None = None
    keep_all: Campaign | None = None


def play(task: tuple[Kind, int, int]) -> Played:
    """Play one world, given as (kind, seed, number)."""
    world = draw_world(*task)
    racing, keep_100 = our_rule(world, racing=True), keep_if_higher(world, 100)
    if world.kind in NULL_KINDS:
        return Played(world.kind, world.n_val, racing, keep_100)
    full, keep_all = our_rule(world, racing=False), keep_if_higher(world, world.n_val)
    return Played(world.kind, world.n_val, racing, keep_100, full, keep_all)


def simulate(seed: int, n_gain: int, n_null: int, workers: int = 1) -> dict[str, Any]:
    """Play `n_gain` worlds of each kind with gains and `n_null` of each without; return the document."""
    tasks: list[tuple[Kind, int, int]] = []
    for kinds, size in ((GAIN_KINDS, n_gain), (NULL_KINDS, n_null)):
        tasks += [(kind, seed, number) for kind in kinds for number in range(size)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            played = list(pool.map(play, tasks, chunksize=8))
    else:
        played = [play(task) for task in tasks]
    null = [one for one in played if one.kind in NULL_KINDS]
    gain = [one for one in played if one.kind in GAIN_KINDS]
    document = {
        "schema_version": 1,
        "seed": seed,
        "worlds": {"gain_per_kind": n_gain, "null_per_kind": n_null},
        "code_sha256": code_sha256(),
        "null_worlds": {"all": _null(null)} | _split(null, _null, lambda one: one.kind),
        "gain_worlds": {"all": _gain(gain)}
        | _split(gain, _gain, lambda one: one.kind)
        | _split(gain, _gain, lambda one: f"{one.n_val} val items"),
    }
    return document | {"reached": _reached(document)}


def code_sha256() -> str:
    """Return one hash over the sources that make the numbers."""
    digest = hashlib.sha256()
    for name in CODE:
        digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes() + b"\0")
    return digest.hexdigest()


def _split(
    played: list[Played], summary: Callable[[list[Played]], Any], key: Callable[[Played], str]
) -> dict[str, Any]:
    names = sorted({key(one) for one in played})
    return {name: summary([one for one in played if key(one) == name]) for name in names}


def _null(played: list[Played]) -> dict[str, Any]:
    verdicts = [one.racing.claim.verdict for one in played if one.racing.claim is not None]
    n_false = sum(verdict == "improved" for verdict in verdicts)
    fooled = sum(one.keep_100.val_gain > 0 for one in played)
    return {
        "worlds": len(played),
        "ours": {
            "false_improved": n_false,
            "rate": _r(n_false / len(played)),
            "rate_ci95": _rs(clopper_pearson(n_false, len(played))),
            "verdicts": {name: verdicts.count(name) for name in sorted(set(verdicts))},
            "test_claim_pp": _pp(_claimed([one.racing for one in played])),
            "true_gain_pp": _pp([one.racing.claimed_true_gain for one in played]),
        },
        "keep_if_higher_100": {
            "claims_a_gain_rate": _r(fooled / len(played)),
            "claimed_gain_pp": _pp([one.keep_100.val_gain for one in played]),
            "true_gain_pp": _pp([one.keep_100.true_gain for one in played]),
        },
    }


def _gain(played: list[Played]) -> dict[str, Any]:
    racing = [one.racing for one in played]
    full = [one.full for one in played if one.full is not None]
    keep_all = [one.keep_all for one in played if one.keep_all is not None]
    gain_share = _ratio([one.true_gain for one in racing], [one.true_gain for one in full])
    item_share = _ratio([one.n_items for one in racing], [one.n_items for one in full])
    return {
        "worlds": len(played),
        "gain_share": gain_share,
        "item_share": item_share,
        "ours_racing": _ours(racing),
        "ours_all_items": _ours(full),
        "keep_if_higher_100": _kept([one.keep_100 for one in played]),
        "keep_if_higher_all_items": _kept(keep_all),
    }


def _ours(campaigns: list[Campaign]) -> dict[str, Any]:
    claims = [(one, one.claim) for one in campaigns if one.claim is not None]
    covered = sum(claim.ci95[0] <= one.claimed_true_gain <= claim.ci95[1] for one, claim in claims)
    improved = [one for one, claim in claims if claim.verdict == "improved"]
    return {
        **_kept(campaigns),
        "claimed_on_test_pp": _pp(_claimed(campaigns)),
        "optimism_of_the_claim_pp": _pp([claim.delta - one.claimed_true_gain for one, claim in claims]),
        "interval_holds_truth_rate": _r(covered / len(claims)),
        "improved_rate": _r(len(improved) / len(claims)),
        "false_improved": sum(one.claimed_true_gain <= 0 for one in improved),
    }


def _kept(campaigns: list[Campaign]) -> dict[str, Any]:
    return {
        "true_gain_pp": _pp([one.true_gain for one in campaigns]),
        "val_gain_pp": _pp([one.val_gain for one in campaigns]),
        "val_optimism_pp": _pp([one.val_gain - one.true_gain for one in campaigns]),
        "items": _r(fmean(one.n_items for one in campaigns)),
        "rounds": _r(fmean(one.n_rounds for one in campaigns)),
    }


def _claimed(campaigns: list[Campaign]) -> list[float]:
    return [one.claim.delta for one in campaigns if one.claim is not None]


def _reached(document: dict[str, Any]) -> dict[str, bool]:
    """Return whether the targets are met in every kind of world, not only on average."""
    null = [document["null_worlds"][kind] for kind in NULL_KINDS]
    gain = [document["gain_worlds"][kind] for kind in GAIN_KINDS]
    return {
        "false_improved_at_most_5_percent": all(one["ours"]["rate"] <= MAX_FALSE_CLAIMS for one in null),
        "gain_share_at_least_90_percent": all(one["gain_share"]["value"] >= MIN_GAIN_SHARE for one in gain),
        "item_share_at_most_65_percent": all(one["item_share"]["value"] <= MAX_ITEM_SHARE for one in gain),
    }


def _ratio(ours: Sequence[float], all_items: Sequence[float]) -> dict[str, Any]:
    """Return sum(ours) / sum(all_items), paired by world, with its delta-method interval."""
    value = sum(ours) / sum(all_items)
    residuals = [a - value * b for a, b in zip(ours, all_items, strict=True)]
    half = Z_975 * stdev(residuals) / (abs(fmean(all_items)) * math.sqrt(len(residuals)))
    return {"value": _r(value), "ci95": _rs((value - half, value + half))}


def _pp(values: list[float]) -> dict[str, float]:
    """Return mean and its standard error in percentage points."""
    se = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": _r(100 * fmean(values)), "se": _r(100 * se)}


def _r(value: float) -> float:
    return round(value, 4)


def _rs(values: Sequence[float]) -> list[float]:
    return [_r(value) for value in values]


def main() -> None:
    """Parse the command line, simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gain-worlds", type=int, default=120, help="of each of the two kinds")
    parser.add_argument("--null-worlds", type=int, default=400, help="of each of the two kinds")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    started = time.perf_counter()
    document = simulate(arguments.seed, arguments.gain_worlds, arguments.null_worlds, arguments.workers)
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    document["code"] = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        print(words(document))


def words(document: dict[str, Any]) -> str:
    """Return the document's main numbers as lines for people."""
    null, gain = document["null_worlds"]["all"], document["gain_worlds"]["all"]
    ours, kept = null["ours"], null["keep_if_higher_100"]
    low, high = ours["rate_ci95"]
    lines = [
        f'null worlds ({null["worlds"]}): falsely "improved" {ours["rate"]:.1%} [{low:.1%}, {high:.1%}]; '
        f"keep-if-higher on 100 items claims {kept['claimed_gain_pp']['mean']:+.1f} pp "
        f"where {kept['true_gain_pp']['mean']:+.1f} is true",
        f"worlds with gains ({gain['worlds']}): racing reaches {gain['gain_share']['value']:.1%} of the gain "
        f"for {gain['item_share']['value']:.1%} of the items",
    ]
    for name in ("ours_racing", "ours_all_items", "keep_if_higher_100", "keep_if_higher_all_items"):
        rule = gain[name]
        lines.append(
            f"  {name:25s} true {rule['true_gain_pp']['mean']:+5.1f} pp, val says "
            f"{rule['val_gain_pp']['mean']:+5.1f} pp, {rule['items']:,.0f} items, {rule['rounds']:.0f} rounds"
        )
    claim = gain["ours_racing"]
    lines.append(
        f"  our claim on test: {claim['claimed_on_test_pp']['mean']:+.1f} pp, "
        f"its interval holds the truth in {claim['interval_holds_truth_rate']:.1%}"
    )
    lines += [f"{'reached' if good else 'NOT REACHED'}: {name}" for name, good in document["reached"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
