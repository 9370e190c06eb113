"""Whether a judge may be believed: measured on labelled pairs in both orders, before it decides anything.

Thresholds are from LLMBar's published judgements: GPT-4 has .955 (flip .05) on Natural and .81 on
Adversarial; weaker judges fall below a coin there. kappa is over the verdicts of all natural and
adversarial pairs. Costs two requests a pair, once for a judge and its prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import ValidationError

from rdagent_ft.evaluation.judge.calibration_sets import CalibrationSet, SetKind
from rdagent_ft.evaluation.judge.cascade import equivalence_question
from rdagent_ft.evaluation.judge.judge import (
    PROMPTS,
    Judge,
    health_of,
    joined_health,
    prompt_version,
    verdict_of_reply,
)
from rdagent_ft.evaluation.judge.pairwise import Ordered, ask_both_orders
from rdagent_ft.evaluation.judge.values import JudgeHealth, JudgeIdentity, UnscoredReason
from rdagent_ft.values import Frozen, content_hash

CALIBRATION_VERSION = 1
MAX_UNSCORED_SHARE = 0.10
MIN_ANSWERED = 20
OUTSIDE_REASONS: tuple[UnscoredReason, ...] = ("outage", "budget", "stopped")
"""Verdicts that are missing for reasons outside of the judge model."""


class Gate(Frozen):
    """What a judge must reach. `min_pairs` of the natural and of the adversarial kind must be judged."""

    natural_accuracy: float = 0.85
    natural_flip_rate: float = 0.10
    adversarial_accuracy: float = 0.70
    kappa: float = 0.6
    smoke_accuracy: float = 0.85
    smoke_flip_rate: float = 0.10
    min_pairs: int = 50


class SetResult(Frozen):
    """A judge on one set and one job; rates are None where nothing was judged.

    Attributes:
        n: examples; `n_judged` of them have all their verdicts.
        accuracy: right verdicts over verdicts (two a pair). A tie is not right: every pair has a better one.
        flip_rate: pairs whose orders named different outputs.
        first_position_rate: verdicts for the output shown first, of those that are no tie; 0.5 is fair.
        kappa: Cohen's, of verdicts against labels.
    """

    name: str
    kind: SetKind
    n: int
    n_judged: int
    accuracy: float | None
    flip_rate: float | None = None
    first_position_rate: float | None = None
    kappa: float | None


class Calibration(Frozen):
    """The finding. `passed` is the only thing that lets a judge decide.

    Attributes:
        status: `uncalibrated` when the labelled data for a finding is missing; `incomplete` when the judge
            did not answer enough of it (an outage, no money).
        reasons: every threshold that was missed, with its numbers; what is missing.
        sets: single sets, then `natural` and `adversarial` over all their sets.
        kappa: over all natural and adversarial verdicts.
    """

    version: Literal[1] = CALIBRATION_VERSION
    judge: JudgeIdentity
    key: str
    status: Literal["passed", "failed", "uncalibrated", "incomplete"]
    passed: bool
    reasons: tuple[str, ...]
    sets: tuple[SetResult, ...]
    kappa: float | None
    health: JudgeHealth


class _Verdict(NamedTuple):
    given: str
    gold: str


class _Judged(NamedTuple):
    """One example with all its verdicts: one for an answer, two for a pair."""

    verdicts: tuple[_Verdict, ...]


def calibrate(judge: Judge, sets: Sequence[CalibrationSet], gate: Gate | None = None) -> Calibration:
    """Return how the judge does on labelled sets, from the cache when it was measured before.

    A set kind that is missing makes the finding `uncalibrated`; a failed smoke set is a failure by itself.
    """
    gate = gate or Gate()
    key = _calibration_key(judge.identity, sets, gate)
    stored = _stored(judge, key)
    if stored is not None:
        return stored
    judged: dict[str, list[_Judged]] = {}
    healths: list[JudgeHealth] = []
    results: list[SetResult] = []
    for one in sets:
        pairs, answers, health = _judged_set(judge, one)
        judged.setdefault(one.kind, []).extend(pairs)
        healths.append(health)
        if one.pairs:
            results.append(_result(one.name, one.kind, len(one.pairs), pairs))
        if one.answers:
            results.append(_result(f"{one.name} answers", one.kind, len(one.answers), answers))
    kinds: tuple[SetKind, ...] = ("natural", "adversarial")
    for kind in kinds:
        n = sum(len(one.pairs) for one in sets if one.kind == kind)
        if n:
            results.append(_result(kind, kind, n, judged[kind]))
    gated = [*judged.get("natural", []), *judged.get("adversarial", [])]
    calibration = _finding(judge, key, gate, results, gated, joined_health(healths))
    if judge.cache is not None and not judge.ended_by and calibration.status != "incomplete":
        judge.cache.store(key, calibration.model_dump_json(), kind="calibration", model=judge.identity.model)
    return calibration


def cohen_kappa(verdicts: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa of (given, gold) labels; None without verdicts, 0 when chance agrees fully.

    (p_o - p_e) / (1 - p_e), p_e from both margins (Cohen 1960).
    """
    n = len(verdicts)
    if n == 0:
        return None
    agreed = sum(given == gold for given, gold in verdicts) / n
    given_counts = Counter(given for given, _ in verdicts)
    gold_counts = Counter(gold for _, gold in verdicts)
    chance = sum(count * gold_counts[label] for label, count in given_counts.items()) / n**2
    return (agreed - chance) / (1 - chance) if chance < 1 else 0.0


def _judged_set(judge: Judge, one: CalibrationSet) -> tuple[list[_Judged], list[_Judged], JudgeHealth]:
    """Return the pairs with both verdicts, the answers with one, and how it went."""
    ordered = ask_both_orders([(pair.input, pair.output_1, pair.output_2) for pair in one.pairs], judge)
    opinions = judge.ask([equivalence_question(a.question, a.reference, a.answer) for a in one.answers])
    pairs = [_of_pair(both, pair.label) for both, pair in zip(ordered, one.pairs, strict=True)]
    given = [(verdict_of_reply(o), a.label) for o, a in zip(opinions, one.answers, strict=True)]
    answers = [_Judged((_Verdict(verdict, label),)) for verdict, label in given if verdict is not None]
    health = health_of([*(opinion for both in ordered for opinion in both.opinions), *opinions])
    return [judged for judged in pairs if judged is not None], answers, health


def _of_pair(both: Ordered, label: int) -> _Judged | None:
    """The gold place of output 1 is `first` in the first order and `second` in the other one."""
    one, other = both.places
    if one is None or other is None:
        return None
    gold = ("first", "second") if label == 1 else ("second", "first")
    return _Judged((_Verdict(one, gold[0]), _Verdict(other, gold[1])))


def _result(name: str, kind: SetKind, n: int, judged: Sequence[_Judged]) -> SetResult:
    verdicts = [verdict for example in judged for verdict in example.verdicts]
    pairs = [example.verdicts for example in judged if len(example.verdicts) == 2]
    places = [v.given for verdicts in pairs for v in verdicts if v.given != "tie"]
    return SetResult(
        name=name,
        kind=kind,
        n=n,
        n_judged=len(judged),
        accuracy=sum(v.given == v.gold for v in verdicts) / len(verdicts) if verdicts else None,
        flip_rate=sum(_is_flip(one.given, two.given) for one, two in pairs) / len(pairs) if pairs else None,
        first_position_rate=places.count("first") / len(places) if places else None,
        kappa=cohen_kappa(verdicts),
    )


def _is_flip(one: str, other: str) -> bool:
    """Verdicts of both orders agree when the place changes with the order, or both are ties."""
    return (one, other) not in {("first", "second"), ("second", "first"), ("tie", "tie")}


def _finding(
    judge: Judge, key: str, gate: Gate, results: Sequence[SetResult],
    gated: Sequence[_Judged], health: JudgeHealth,
) -> Calibration:  # fmt: skip
    kappa = cohen_kappa([verdict for example in gated for verdict in example.verdicts])
    lacking = _lacking(results, gate)
    failures = _failures(results, kappa, gate)
    silent, mute = _silence(judge, health), _muteness(health)
    status: Literal["passed", "failed", "uncalibrated", "incomplete"] = "passed"
    if silent and not mute:
        status = "incomplete"
    elif failures or mute:
        status = "failed"
    elif lacking:
        status = "uncalibrated"
    return Calibration(
        judge=judge.identity,
        key=key,
        status=status,
        passed=status == "passed",
        reasons=(*mute, *silent, *failures, *lacking),
        sets=tuple(results),
        kappa=kappa,
        health=health,
    )


def _failures(results: Sequence[SetResult], kappa: float | None, gate: Gate) -> list[str]:
    found: list[str] = []
    for one in results:
        if one.name == "natural":
            found += _below(one, "accuracy", one.accuracy, gate.natural_accuracy)
            found += _above(one, "flip rate", one.flip_rate, gate.natural_flip_rate)
        elif one.name == "adversarial":
            found += _below(one, "accuracy", one.accuracy, gate.adversarial_accuracy)
        elif one.kind == "smoke":
            found += _below(one, "accuracy", one.accuracy, gate.smoke_accuracy)
            found += _above(one, "flip rate", one.flip_rate, gate.smoke_flip_rate)
    if kappa is not None and kappa < gate.kappa:
        found.append(f"kappa against the labels is {kappa:.2f}, below {gate.kappa}")
    return found


def _below(one: SetResult, what: str, value: float | None, bound: float) -> list[str]:
    is_low = value is not None and value < bound
    return [f"{what} on {one.name} is {value:.3f}, below {bound}"] if is_low else []


def _above(one: SetResult, what: str, value: float | None, bound: float) -> list[str]:
    is_high = value is not None and value > bound
    return [f"{what} on {one.name} is {value:.3f}, above {bound}"] if is_high else []


def _lacking(results: Sequence[SetResult], gate: Gate) -> list[str]:
    n_judged = {one.name: one.n_judged for one in results if one.name in ("natural", "adversarial")}
    return [
        f"{n_judged.get(kind, 0)} labelled pairs of the {kind} kind were judged; {gate.min_pairs} are needed"
        for kind in ("natural", "adversarial")
        if n_judged.get(kind, 0) < gate.min_pairs
    ]


def _silence(judge: Judge, health: JudgeHealth) -> list[str]:
    """An end before the last question is no property of the judge: it is measured again next time."""
    found = [f"the measurement ended early: {judge.ended_by}"] if judge.ended_by and health.n_unscored else []
    share = _n_outside(health) / health.n_asked if health.n_asked else 0.0
    if share > MAX_UNSCORED_SHARE:
        found.append(f"{share:.0%} of the labelled examples were not answered ({reasons_text(health)})")
    return found


def _muteness(health: JudgeHealth) -> list[str]:
    """A judge that answers and gives no verdict fails: unreadable, cut, refused, cannot judge."""
    n_answered = health.n_asked - _n_outside(health)
    n_mute = health.n_unscored - _n_outside(health)
    if n_answered < MIN_ANSWERED or n_mute <= MAX_UNSCORED_SHARE * n_answered:
        return []
    return [f"{n_mute} of {n_answered} answers gave no verdict ({reasons_text(health)})"]


def _n_outside(health: JudgeHealth) -> int:
    return sum(health.unscored.get(reason, 0) for reason in OUTSIDE_REASONS)


def reasons_text(health: JudgeHealth) -> str:
    """Return the reasons for missing verdicts with their counts, most frequent first."""
    ranked = sorted(health.unscored.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{reason} {count}" for reason, count in ranked)


def _calibration_key(identity: JudgeIdentity, sets: Sequence[CalibrationSet], gate: Gate) -> str:
    facts = {
        "version": CALIBRATION_VERSION,
        "judge": identity,
        "prompts": {name: prompt_version(name) for name in PROMPTS},
        "sets": sorted([one.name, one.fingerprint] for one in sets),
        "gate": gate,
    }
    return f"calibration-{content_hash(facts, n_chars=48)}"


def _stored(judge: Judge, key: str) -> Calibration | None:
    text = judge.cache.find_text(key) if judge.cache is not None else None
    if text is None:
        return None
    try:
        return Calibration.model_validate_json(text)
    except ValidationError:
        return None
