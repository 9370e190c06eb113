"""`benchmark.json` and `comparison.json`: scores of base and best, and their paired comparisons.

Both have schema_version 1 and hold what the journal knows; what is not recorded is left out.
"""

from __future__ import annotations

from typing import Any, Literal

from rdagent_ft.evaluation.rows import Comparison, Score
from rdagent_ft.reporting.card import hub_model
from rdagent_ft.reporting.facts import arrow, claim_facts
from rdagent_ft.reporting.records import ClaimOutput, PrepareOutput
from rdagent_ft.reporting.text import display_name
from rdagent_ft.reporting.view import LoopView, RunView

Role = Literal["base", "candidate"]


def benchmark_document(view: RunView) -> dict[str, Any]:
    """Return scores of the base model and of the leading (else the claimed) loop as JSON values."""
    loop = _candidate(view)
    models: list[dict[str, Any]] = []
    if view.prepare is not None and view.baseline is not None:
        models.append(_model(view, view.prepare, "base", None))
        if loop is not None:
            models.append(_model(view, view.prepare, "candidate", loop))
    return {
        "schema_version": 1,
        "run_id": view.run_id,
        "created": view.last_utc,
        "target": view.prepare.target_benchmark if view.prepare else None,
        "looks": _looks(view),
        "models": models,
    }


def comparison_document(view: RunView) -> dict[str, Any]:
    """Return the paired comparisons of base and candidate, and what was decided from them."""
    loop, claim = _candidate(view), view.claim
    pairs: dict[str, dict[str, Any]] = {}
    if loop is not None and loop.evaluate is not None and loop.evaluate.vs_base is not None:
        paired = loop.evaluate.vs_base
        pairs[f"{paired.benchmark}/{paired.split}"] = _pair(paired)
    if claim is not None and loop is not None and claim.loop == loop.number:
        pairs |= _claimed_pairs(view, claim)
    decision = "inconclusive"
    if loop is not None:
        decision = "accept" if loop.number == view.best_loop else "reject"
    failed = [] if claim is None else [n for n, g in claim.guards.items() if g.outcome == "regressed"]
    is_shown = claim is not None and claim.comparison.verdict == "improved" and not view.seal.is_broken
    is_shown = is_shown and not failed
    if decision == "accept" and is_shown:
        decision = "promote"
    facts = claim_facts(view)
    return {
        "schema_version": 1,
        "run_id": view.run_id,
        "base_run": "base",
        "cand_run": None if loop is None else f"loop {loop.number}",
        "pairs": pairs,
        "guards_failed": failed,
        "decision": decision,
        "reasons": [facts.headline, *facts.cautions],
    }


def _claimed_pairs(view: RunView, claim: ClaimOutput) -> dict[str, dict[str, Any]]:
    """Return the target's and the guards' pairs; a guard carries its outcome, Holm's p and its openings."""
    target = claim.comparison
    pairs = {f"{target.benchmark}/{target.split}": _pair(target) | {"role": "target"}}
    if claim.clean is not None and claim.clean.comparison is not None:
        pairs[f"{target.benchmark}/{target.split}/clean"] = _pair(claim.clean.comparison)
    for name, beside in claim.reported.items():
        pair = _pair(beside.comparison)
        guard = claim.guards.get(name)
        if guard is not None:
            pair |= {"role": "guard", "guard": guard.outcome, "margin": guard.margin, "p_holm": guard.p_holm}
        if openings := view.openings(name):
            pair["opening"] = openings
        judged = claim.judged.get(name)
        if judged is not None:
            pair["judge"] = judged.model_dump(mode="json")
        pairs[f"{beside.comparison.benchmark}/{beside.comparison.split}"] = pair
    return pairs


def _looks(view: RunView) -> dict[str, Any]:
    """Return how often val, test and reported benchmarks were looked at, and the head of the chain.

    Heads of an earlier file that the chain holds no longer stay named, so that writing this file anew
    hides nothing.
    """
    found: dict[str, Any] = {"val": view.n_looks("val"), "test": view.n_looks("test"), "head": view.seal.head}
    names = view.prepare.reported_benchmarks if view.prepare else ()
    reported = {name: n for name in names if (n := view.openings(name))}
    found |= {"reported": reported} if reported else {}
    return found | ({"lost": list(view.seal.lost)} if view.seal.lost else {})


def _candidate(view: RunView) -> LoopView | None:
    claim = view.claim
    return view.loop(view.best_loop if view.best_loop is not None else (claim.loop if claim else None))


def _model(view: RunView, prepare: PrepareOutput, role: Role, loop: LoopView | None) -> dict[str, Any]:
    scores = _scores(view, role, loop)
    kind = loop.train.kind if loop is not None and loop.train is not None else "full"
    identity: dict[str, Any] = {
        "role": role,
        "id": hub_model(prepare) or display_name(prepare.model.name),
        "kind": "full" if role == "base" else kind,
        "fingerprint": prepare.model.fingerprint,
    }
    if loop is not None:
        identity |= {
            "loop": loop.number,
            "recipe_hash": loop.propose.recipe_hash,
            "weights_sha256": loop.train.weights_sha256 if loop.train else None,
        }
    complete = all(score.n == score.n_expected for score in scores)
    return {
        "status": "ok" if complete else "partial",
        "failure": None,
        "model": identity,
        "generation": {
            "protocol": prepare.prompt_format,
            "temperature": 0.0,
            "max_tokens": prepare.max_new_tokens,
            "repeats": 1,
        },
        "benchmarks": {f"{score.benchmark}/{score.split}": _score(score) for score in scores},
    }


def _scores(view: RunView, role: Role, loop: LoopView | None) -> list[Score]:
    claim = view.claim
    if role == "base":
        scores = [view.baseline.dev, view.baseline.val] if view.baseline else []
        if claim is not None:
            scores += [claim.base, *(beside.base for beside in claim.reported.values())]
        return scores
    evaluated = loop.evaluate if loop is not None else None
    scores = [score for score in (evaluated.dev, evaluated.val) if score] if evaluated else []
    if claim is not None and loop is not None and claim.loop == loop.number:
        scores += [claim.tuned, *(beside.tuned for beside in claim.reported.values())]
    return scores


def _score(score: Score) -> dict[str, Any]:
    return {
        "metric": score.scorer,
        "higher_is_better": True,
        "n": score.n,
        "n_expected": score.n_expected,
        "unscored": score.n_unscored,
        "value": score.value,
        "stderr": score.stderr,
        "ci95": list(score.ci95),
    }


def _pair(paired: Comparison) -> dict[str, Any]:
    mcnemar: dict[str, Any] | None = None
    if paired.discordant is not None:
        mcnemar = {"b": paired.discordant[0], "c": paired.discordant[1], "p": paired.p_mcnemar}
    return {
        "n_pairs": paired.n,
        "base": paired.base,
        "cand": paired.tuned,
        "delta": paired.delta,
        "se": paired.se,
        "ci95": list(paired.ci95),
        "mcnemar": mcnemar,
        "mde": paired.mde,
        "verdict": paired.verdict,
        "arrow": arrow(paired),
    }
