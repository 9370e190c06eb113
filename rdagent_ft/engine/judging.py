"""The judge of one invocation: built when first needed, calibrated once, and what its numbers are worth.

A judge adds a second column beside the rule's scores. Only for items that have a rubric instead of a
reference is it the scorer. It never decides a move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rdagent_ft.evaluation.judge.build import BuiltJudge, build_judge
from rdagent_ft.evaluation.judge.calibration import Calibration, calibrate
from rdagent_ft.evaluation.judge.calibration_sets import read_llmbar, smoke_set
from rdagent_ft.evaluation.judge.cascade import judge_both_sides
from rdagent_ft.evaluation.judge.cautions import judge_cautions
from rdagent_ft.evaluation.judge.grader import grader_of
from rdagent_ft.evaluation.judge.judge import Judge
from rdagent_ft.evaluation.judge.side_by_side import JUDGED_SCORERS
from rdagent_ft.evaluation.judge.status import JudgeReport, judge_report
from rdagent_ft.evaluation.judge.values import JudgeHealth
from rdagent_ft.evaluation.outside import Grader
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.llm.port import Ledger
from rdagent_ft.reporting.records import JudgedBenchmark
from rdagent_ft.settings import Settings

__all__ = ["CALIBRATION_FOLDER", "JUDGED_SCORERS", "Judging", "open_judging"]

CALIBRATION_FOLDER = "llmbar"
"""Below FT_FILE_PATH/benchmarks: labelled pairs that the judge is measured on."""


class Judging:
    """A judge with its calibration. `open_judging` makes one; close it at the end."""

    def __init__(self, built: BuiltJudge, settings: Settings, notice: Callable[[str], None]) -> None:
        self._built = built
        self._settings = settings
        self._notice = notice
        self._calibration: Calibration | None = None

    @property
    def judge(self) -> Judge:
        """Who is asked."""
        return self._built.judge

    @property
    def spent_usd(self) -> float:
        """What its own calls have cost so far, open reservations included."""
        return self._built.ledger.spent_usd

    @property
    def grader(self) -> Grader:
        """What grades open answers by their rubric."""
        return grader_of(self._built.judge)

    def calibration(self) -> Calibration:
        """Return how the judge does on labelled pairs; asked once and kept in its cache."""
        if self._calibration is None:
            folder = self._settings.file_path / "benchmarks" / CALIBRATION_FOLDER
            self._calibration = calibrate(self._built.judge, [smoke_set(), *read_llmbar(folder)])
            reasons = "; ".join(self._calibration.reasons) or "all bounds are met"
            self._notice(f"judge {self._built.endpoint.model}: {self._calibration.status} ({reasons})")
        return self._calibration

    def judged(
        self,
        base: Sequence[SampleRow],
        tuned: Sequence[SampleRow],
        questions: Mapping[str, str],
        *,
        margin: float,
        tuned_names: Sequence[str],
    ) -> JudgedBenchmark:
        """Let the judge look at both sides' rule misses; never raises for what the judge does."""
        self.calibration()  # first: a judge that an outage ends below could not be measured any more
        found = judge_both_sides(
            base, tuned, questions, self._built.judge, seed=self._settings.seed, margin=margin
        )
        report = self.report(found.health, tuned_names)
        return JudgedBenchmark(
            status=report.status,
            decides=report.decides,
            reasons=report.reasons,
            cautions=tuple(caution.message for caution in report.cautions),
            model=self._built.endpoint.model,
            rule=found.rule,
            with_judge=found.with_judge,
            base_rescued=found.base.rescue_share,
            tuned_rescued=found.tuned.rescue_share,
            alert=found.alert,
            n_asked=found.health.n_asked,
            n_unscored=found.health.n_unscored,
            cost_usd=report.cost_usd,
        )

    def report(self, health: JudgeHealth, tuned_names: Sequence[str]) -> JudgeReport:
        """Return what this judge's numbers are worth, after a job in which it fared like `health`.

        `tuned_names`: the tuned model's name and architecture. Measures the judge when that is not done.
        """
        return judge_report(
            self._built.judge,
            health,
            self.calibration(),
            cautions=judge_cautions(
                self._built.endpoint.model,
                tuned_names=tuned_names,
                planner_model=self._settings.planner_model,
                base_url=self._built.endpoint.base_url,
            ),
            cost_usd=self._built.ledger.spent_usd,
        )

    def close(self) -> None:
        """Close the store of verdicts."""
        if self._built.judge.cache is not None:
            self._built.judge.cache.close()


def open_judging(
    settings: Settings,
    ledger: Ledger,
    notice: Callable[[str], None],
    time_left_s: Callable[[], float | None] | None = None,
) -> Judging | None:
    """Return the judge that the settings ask for, None for none. Raises `PreflightError`; asks nothing."""
    built = build_judge(settings, ledger, notice, time_left_s, requests_per_minute=settings.judge_rpm)
    return None if built is None else Judging(built, settings, notice)
