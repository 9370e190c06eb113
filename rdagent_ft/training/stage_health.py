"""Rules that read a training's metrics log by log: the job's own guard and the later verdict share them.

Covers what only some kinds of training have: missing rewards, equal rewards and cut completions of
`grpo`, margins of preference trainings, and the pace of all. NaN and loss rules stand in
`metrics_callback` (while it runs) and `monitor` (after it). Runs inside jobs: standard library only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Literal, NamedTuple

TrainedKind = Literal["sft", "dpo", "kto", "reward", "grpo", "distill"]
Values = Mapping[str, float | None]

LOSS_KINDS: frozenset[TrainedKind] = frozenset({"sft", "reward", "distill"})
"""Kinds whose loss is positive and shows progress. A `dpo` or `grpo` loss may be near 0 or negative."""

SILENT_LOGS = 20
CLIPPED_LOGS, MAX_CLIPPED = 20, 0.8
RISE_SHARE = 0.05
MIN_ENTROPY, MAX_KL, MAX_LOGP_GAP = 0.01, 2.0, 1.0
MIN_ACCURACY = 0.5
FLAT_MARGIN = 1e-5
END_LOGS = 3
SLOW_FACTOR, SLOW_LOGS, SLOW_S = 10.0, 5, 60.0
PACE_WINDOW, MIN_PACE_LOGS, PACE_REFRESH = 200, 20, 20

WATCHED: dict[TrainedKind, tuple[str, ...]] = {
    "sft": (),
    "dpo": ("rewards/accuracies", "rewards/margins"),
    "kto": ("rewards/margins",),
    "reward": ("accuracy", "margin"),
    "grpo": (
        "reward", "reward_std", "frac_reward_zero_std", "completions/clipped_ratio", "entropy", "kl",
        "sampling/sampling_logp_difference/mean",
    ),
    "distill": ("completions/clipped_ratio", "entropy"),
}  # fmt: skip
"""The metrics, by their names in TRL 1.16, that the rules of each kind read."""


class Finding(NamedTuple):
    """Why a training should end: the failure's class, a sentence, and the numbers that show it."""

    failure_class: str
    message: str
    evidence: dict[str, float]


class SignalWatch:
    """Whether a `grpo` training still gets a signal; feed it every log in order.

    `train.no_signal`: in 20 logs in a row every group's rewards were equal, and they never differed
    before, or the reward stopped below its start. Equal rewards at or above the start are no failure:
    the task is learnt. `reward.no_score`: in 20 logs in a row, or in all of a shorter training, the
    rewards scored at most one completion and returned None for the others. `train.truncated`: in 20 logs
    in a row more than 80 % of the completions were cut at `max_completion_length`, and the reward did not
    rise meanwhile.
    """

    def __init__(self) -> None:
        self._first_reward: float | None = None
        self._reward: float | None = None
        self._had_signal = False
        self._n_silent = 0
        self._n_unscored = self._n_scored = 0
        self._rewards_while_clipped: deque[float | None] = deque(maxlen=CLIPPED_LOGS)

    def see(self, values: Values) -> Finding | None:
        """Take one log's metrics; return the failure that it completes."""
        reward = _finite(values.get("reward"))
        if self._first_reward is None:
            self._first_reward = reward
        if reward is not None:
            self._reward = reward
        clipped = _finite(values.get("completions/clipped_ratio"))
        if clipped is not None and clipped > MAX_CLIPPED:
            self._rewards_while_clipped.append(reward)
        elif clipped is not None:
            self._rewards_while_clipped.clear()
        silent = is_silent(values)
        if silent is not None:
            self._n_silent = self._n_silent + 1 if silent else 0
            self._had_signal = self._had_signal or not silent
        self._count_scored(values)
        found = self._no_score() if self._n_unscored >= SILENT_LOGS else None
        return found or self._truncated(clipped) or self._no_signal()

    def end(self) -> Finding | None:
        """Return what only the end of the training shows: that no log of it had a score."""
        return self._no_score() if self._n_unscored and not self._n_scored else None

    def _count_scored(self, values: Values) -> None:
        unscored = is_unscored(values)
        if unscored is not None:
            self._n_unscored = self._n_unscored + 1 if unscored else 0
            self._n_scored += not unscored

    def _no_score(self) -> Finding:
        message = (
            "the rewards returned None for all completions, or all but one, in "
            f"{self._n_unscored} logs in a row ({self._n_scored} logs before had scores)"
        )
        evidence: dict[str, float] = {"n_logs": self._n_unscored, "n_scored_logs": self._n_scored}
        return Finding("reward.no_score", message, evidence)

    def _truncated(self, clipped: float | None) -> Finding | None:
        rewards = self._rewards_while_clipped
        if clipped is None or len(rewards) < CLIPPED_LOGS or _rose(rewards):
            return None
        message = (
            f"{clipped:.0%} of the completions were cut at the limit, above {MAX_CLIPPED:.0%} in "
            f"{CLIPPED_LOGS} logs in a row, and the reward did not rise"
        )
        return Finding("train.truncated", message, {"clipped_ratio": clipped, "n_logs": CLIPPED_LOGS})

    def _no_signal(self) -> Finding | None:
        if self._n_silent < SILENT_LOGS:
            return None
        reward = self._reward
        evidence: dict[str, float] = {"n_logs": self._n_silent}
        if reward is not None:
            evidence["reward"] = reward
        if not self._had_signal:
            shown = "unknown" if reward is None else f"{reward:.4g}"
            message = f"the rewards of a group never differed in {self._n_silent} logs (reward {shown})"
            return Finding("train.no_signal", message, evidence)
        first = self._first_reward
        if reward is not None and first is not None and reward < first:
            message = f"the rewards stopped differing at {reward:.4g}, below the start ({first:.4g})"
            return Finding("train.no_signal", message, evidence | {"first_reward": first})
        return None


class PaceWatch:
    """Whether the tokens (or, where unknown, steps) per second fell below a tenth of the run's median.

    The median is that of the last 200 intervals that were not slow; five slow intervals in a row that
    took at least a minute together are a finding. Numbers that go back (a resumed training) are skipped.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._rates: deque[float] = deque(maxlen=PACE_WINDOW)
        self._usual = 0.0
        self._n_seen = self._n_slow = 0
        self._slow_s = 0.0

    def see(self, work: float, elapsed_s: float) -> Finding | None:
        """Take the work done and the seconds passed since the start of the training."""
        last, self._last = self._last, (work, elapsed_s)
        if last is None or work <= last[0] or elapsed_s <= last[1]:
            return None
        seconds = elapsed_s - last[1]
        rate = (work - last[0]) / seconds
        if len(self._rates) >= MIN_PACE_LOGS and rate < self._usual / SLOW_FACTOR:
            self._n_slow, self._slow_s = self._n_slow + 1, self._slow_s + seconds
        else:
            self._n_slow, self._slow_s = 0, 0.0
            self._rates.append(rate)
            if self._n_seen % PACE_REFRESH == 0 or len(self._rates) <= MIN_PACE_LOGS:
                self._usual = median(self._rates)
            self._n_seen += 1
        if self._n_slow < SLOW_LOGS or self._slow_s < SLOW_S:
            return None
        message = f"the pace fell to {rate:.3g} a second, below a tenth of the usual {self._usual:.3g}"
        return Finding("resource.throughput", message, {"rate": rate, "usual_rate": self._usual})


def is_silent(values: Values) -> bool | None:
    """Return whether no group's rewards differed in a log; None when the log does not say."""
    share = _finite(values.get("frac_reward_zero_std"))
    if share is not None:
        return share >= 1.0 or is_unscored(values) is True
    spread = _finite(values.get("reward_std"))
    return None if spread is None else spread == 0.0


def is_unscored(values: Values) -> bool | None:
    """Return whether at most one completion of each step in a log had a score; None when it does not say.

    TRL 1.16 logs the three reward metrics together. Where every reward returned None it leaves `reward`
    empty, and `reward_std` too, which needs two scores; its share of groups with equal rewards is then 0,
    as if all of them differed.
    """
    if _finite(values.get("frac_reward_zero_std")) is None:
        return None
    return _finite(values.get("reward")) is None or _finite(values.get("reward_std")) is None


def stage_warnings(kind: TrainedKind, logs: Sequence[Values]) -> tuple[str, ...]:
    """Return what a person should know about a training that ended, one sentence each.

    Judges the mean of the last three logs. Thresholds: axolotl's guides for `grpo` and `dpo`; the KL
    limit is per token, so it does not apply to the sequence-level `kl` of `kto`.
    """
    found: list[str] = []
    for name in ("rewards/accuracies", "accuracy"):
        value = _end(logs, name)
        if value is not None and value < MIN_ACCURACY:
            found.append(f"`{name}` ended at {value:.3g}: worse than a coin; are the columns swapped?")
    for name in ("rewards/margins", "margin"):
        value = _end(logs, name)
        if value is not None and value < 0:
            found.append(f"`{name}` ended at {value:.3g}: the rejected answers are preferred")
    clipped = _end(logs, "completions/clipped_ratio")
    if clipped is not None and clipped > MAX_CLIPPED:
        found.append(f"{clipped:.0%} of the last completions were cut at `max_completion_length`")
    if kind == "grpo":
        found += _grpo_warnings(logs)
    return tuple(found)


def flat_margin(kind: TrainedKind, logs: Sequence[Values]) -> str | None:
    """Return the sentence for a preference training whose margin never moved, else None."""
    for name in WATCHED[kind]:
        if name in {"rewards/margins", "margin"}:
            seen = [value for log in logs if (value := _finite(log.get(name))) is not None]
            if len(seen) >= SLOW_LOGS and max(seen) - min(seen) <= FLAT_MARGIN:
                return f"`{name}` stayed at {seen[-1]:.3g}: the answers of a pair are not told apart"
    return None


def _grpo_warnings(logs: Sequence[Values]) -> list[str]:
    found: list[str] = []
    entropy = _end(logs, "entropy")
    if entropy is not None and entropy < MIN_ENTROPY:
        found.append(f"`entropy` ended at {entropy:.3g}: the samples hardly differ; lower the learning rate")
    for name, limit, meaning in (
        ("kl", MAX_KL, "the policy left its reference"),
        ("sampling/sampling_logp_difference/mean", MAX_LOGP_GAP, "the sampler and the trainer disagree"),
    ):
        value = _end(logs, name)
        if value is not None and value > limit:
            found.append(f"`{name}` ended at {value:.3g}, above {limit:g}: {meaning}")
    n_silent = 0
    for log in reversed(logs):
        if is_silent(log) is False:
            break
        n_silent += is_silent(log) is True
    if SILENT_LOGS <= n_silent < len(logs):
        found.append(f"no group's rewards differed in the last {n_silent} logs: nothing more was learnt")
    return found


def _end(logs: Sequence[Values], name: str) -> float | None:
    seen = [value for log in logs[-END_LOGS:] if (value := _finite(log.get(name))) is not None]
    return fmean(seen) if seen else None


def _rose(rewards: Sequence[float | None]) -> bool:
    """Whether the second half's mean lies above the first one's by 5 % of it, and by 0.01 at least."""
    seen = [reward for reward in rewards if reward is not None]
    half = len(seen) // 2
    if not half:
        return False
    early, late = fmean(seen[:half]), fmean(seen[half:])
    return late > early + RISE_SHARE * max(abs(early), 0.2)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
