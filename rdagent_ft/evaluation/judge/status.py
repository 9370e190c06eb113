"""What may be said about a judge's numbers: one status, every reason, and whether they may decide.

Rule-only numbers do not depend on any of this.
"""

from __future__ import annotations

from rdagent_ft.evaluation.judge.calibration import Calibration, reasons_text
from rdagent_ft.evaluation.judge.cautions import Caution
from rdagent_ft.evaluation.judge.judge import Judge
from rdagent_ft.evaluation.judge.values import JudgeHealth, JudgeStatus
from rdagent_ft.values import Frozen

DEGRADED_SHARE = 0.02
INVALID_SHARE = 0.10


class JudgeReport(Frozen):
    """One judge in one benchmark, for the record.

    Attributes:
        decides: the judge's numbers may move a parent or carry a claim; true for the status `ok` alone.
        reasons: everything that speaks against it, worst first.
        cautions: what a reader should know; they do not change the status.
        cost_usd: what the judge has cost in this run so far.
    """

    status: JudgeStatus
    decides: bool
    reasons: tuple[str, ...] = ()
    model: str | None = None
    rubric: str | None = None
    calibration: Calibration | None = None
    health: JudgeHealth | None = None
    cautions: tuple[Caution, ...] = ()
    cost_usd: float = 0.0


def skipped_report(reason: str = "no judge is configured") -> JudgeReport:
    """Return the report of a judge that is not there. Its scores are absent, not 0."""
    return JudgeReport(status="skipped", decides=False, reasons=(reason,))


def judge_report(
    judge: Judge,
    health: JudgeHealth,
    calibration: Calibration | None,
    *,
    rubric: str | None = None,
    cautions: tuple[Caution, ...] = (),
    cost_usd: float = 0.0,
) -> JudgeReport:
    """Return status and reasons. The worst finding names the status; all of them are listed.

    Order: more than 10 % unscored is `invalid`; a failed gate; no calibration; then more than 2 %
    unscored, or an end before the last question, is `degraded`.
    """
    findings = [*_invalid(health), *_gate(calibration), *_degraded(judge, health)]
    status: JudgeStatus = findings[0][0] if findings else "ok"
    return JudgeReport(
        status=status,
        decides=status == "ok",
        reasons=tuple(text for _, text in findings),
        model=judge.identity.model,
        rubric=rubric,
        calibration=calibration,
        health=health,
        cautions=cautions,
        cost_usd=cost_usd,
    )


def _invalid(health: JudgeHealth) -> list[tuple[JudgeStatus, str]]:
    share = unscored_share(health)
    if share <= INVALID_SHARE:
        return []
    return [("invalid", f"{share:.1%} of the verdicts are missing: {reasons_text(health)}")]


def _gate(calibration: Calibration | None) -> list[tuple[JudgeStatus, str]]:
    if calibration is None:
        return [("uncalibrated", "the judge was not measured on labelled data")]
    if calibration.passed:
        return []
    status: JudgeStatus = "failed_gate" if calibration.status == "failed" else "uncalibrated"
    return [(status, reason) for reason in calibration.reasons]


def _degraded(judge: Judge, health: JudgeHealth) -> list[tuple[JudgeStatus, str]]:
    found: list[tuple[JudgeStatus, str]] = []
    share = unscored_share(health)
    if DEGRADED_SHARE < share <= INVALID_SHARE:
        found.append(("degraded", f"{share:.1%} of the verdicts are missing: {reasons_text(health)}"))
    if judge.ended_by and health.n_unscored:
        found.append(("degraded", f"the judge ended early: {judge.ended_by}"))
    return found


def unscored_share(health: JudgeHealth) -> float:
    """Return missing verdicts over wanted ones; 0 when none was wanted."""
    return health.n_unscored / health.n_asked if health.n_asked else 0.0
