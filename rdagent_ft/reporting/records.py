"""What each step leaves in the journal: one frozen type a step.

Why here and not in the engine: reports and the dashboard read these from `run.db` without
importing the engine; the engine writes them. All paths are relative to the run directory, so a
run can be moved.
"""

from __future__ import annotations

from typing import Any, Literal

from rdagent_ft.data.rows import DatasetSource, ModelSource, ReadReport, SplitName
from rdagent_ft.evaluation.guards import GuardResult
from rdagent_ft.evaluation.rows import Comparison, PromptFormat, Score, ScorerName
from rdagent_ft.planning.port import LoopStatus
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.stage_records import Failure, StageOutput, StageProbe, TrainingHealth
from rdagent_ft.values import Frozen

SETUP_LOOP = -1
"""The loop number under which the set-up steps `prepare` and `baseline` are journaled."""

HF: Literal["lm-eval hf"] = "lm-eval hf"
VLLM: Literal["vllm"] = "vllm"
"""What generates a run's answers: a job for each model, or one warm server."""

SetupStep = Literal["prepare", "baseline"]
LoopStep = Literal["propose", "code", "train", "evaluate", "feedback"]
ClosingStep = Literal["claim", "export"]
StepName = SetupStep | LoopStep | ClosingStep
SETUP_STEPS: tuple[SetupStep, ...] = ("prepare", "baseline")
LOOP_STEPS: tuple[LoopStep, ...] = ("propose", "code", "train", "evaluate", "feedback")
CLOSING_STEPS: tuple[ClosingStep, ...] = ("claim", "export")
"""Closing steps are journaled under the loop whose model they claim and export."""


class SplitInfo(Frozen):
    """One split: how many items, and the hash of its file."""

    n_items: int
    sha256: str


class PreferenceInfo(Frozen):
    """The run's preference dataset: rows left after `n_copies` copies of evaluation items went."""

    source: DatasetSource
    n_rows: int
    n_copies: int
    sha256: str


class PrepareOutput(Frozen):
    """Data and model as the whole run uses them.

    Attributes:
        splits: split -> size and hash of `data/<split>.jsonl`.
        n_near_duplicate_groups: groups with more than one member, kept in one split.
        scorer, scorer_reason: how `heldout` answers are scored and why.
        prompt_format: `chat` when the tokenizer has a template, else `plain`.
        method: how the target benchmark is asked; see `evaluation.port.EvalTask`.
        max_new_tokens: generation limit of the target benchmark.
        token_percentiles: p50, p90, p99, max tokens per training row (prompt + completion).
        sources: `source` value -> rows in the train split.
        data_facts, model_facts, machine_facts: sentences for planners and the report.
        memory_gib, gpu_memory_gib: memory of the machine and of its largest GPU.
        n_gpus: GPUs that jobs can be given.
        preferences: the dataset of `--preferences`; None without one.
        notices: lines that were shown to the user.
    """

    dataset: DatasetSource
    read: ReadReport
    model: ModelSource
    splits: dict[SplitName, SplitInfo]
    n_near_duplicate_groups: int
    target_benchmark: str
    reported_benchmarks: tuple[str, ...]
    scorer: ScorerName
    scorer_reason: str
    prompt_format: PromptFormat
    method: Literal["generate", "choose"] = "generate"
    max_new_tokens: int
    token_percentiles: dict[str, int]
    sources: dict[str, int]
    data_facts: tuple[str, ...]
    model_facts: tuple[str, ...]
    machine_facts: tuple[str, ...]
    device: Literal["cpu", "cuda"]
    memory_gib: float | None = None
    gpu_memory_gib: float | None = None
    n_gpus: int = 0
    preferences: PreferenceInfo | None = None
    notices: tuple[str, ...] = ()
    seconds: float = 0.0


class BaselineOutput(Frozen):
    """The base model's scores.

    Attributes:
        dev_errors: error class -> count on dev items.
        again: the base against itself on val, asked a second time in other batches: what differs here
            is noise of the engine. None in records of earlier versions.
        engine: what generated the answers of this run, base and candidates alike.
    """

    val: Score
    dev: Score
    dev_errors: dict[str, int]
    fingerprint: str
    from_cache: bool
    eval_s: float
    again: Comparison | None = None
    engine: Literal["lm-eval hf", "vllm"] = HF


class ProposeOutput(Frozen):
    """The loop's proposal. `failure` is set when no valid proposal could be had."""

    planner: str
    parent: int | None
    recipe: Recipe | None
    recipe_hash: str | None
    hypothesis: str
    prediction: str
    diff: dict[str, Any] = {}
    cites: tuple[str, ...] = ()
    failure: Failure | None = None


class ScriptedData(Frozen):
    """What a recipe's data script made of the train split.

    Attributes:
        sha256: of `loops/NNN/files/process_data.py`.
        n_in, n_out: rows of the train split that it read, rows that it wrote.
        n_copies: written rows that repeat held-out items and were dropped; splits taken together.
        n_repeats: written rows that equal another one; the mix's `dedupe` decides about them.
        seconds: how long the job ran.
    """

    sha256: str
    n_in: int
    n_out: int
    n_copies: int = 0
    n_repeats: int = 0
    seconds: float = 0.0

    @property
    def words(self) -> str:
        """The record as one line for people and planners."""
        return (
            f"data script {self.sha256[:12]}: {self.n_in:,} rows in, {self.n_out:,} out, "
            f"{self.n_copies:,} dropped as copies of held-out items, {self.n_repeats:,} exact repeats"
        )


class CodeOutput(Frozen):
    """The rendered and checked candidate.

    Attributes:
        files: name -> SHA-256 of what was rendered into `loops/NNN/files/`.
        n_train_rows: rows of `loops/NNN/data/train.jsonl`.
        dropped: reason -> rows that the data mix left out.
        script: what the recipe's data script did before the mix; None without one.
        notes: every rename, override and automatic choice, one line each.
        estimate_gib: estimated peak memory, corrected by what was measured.
        tokens_per_row: of the mean row, as the first training on answers cuts it.
        forecast_s: seconds of all trainings; None before any speed was measured.
        probes: stages that were tried on their longest rows first.
        failure: set when a rung of the ladder rejected it.
    """

    files: dict[str, str] = {}
    n_train_rows: int = 0
    dropped: dict[str, int] = {}
    script: ScriptedData | None = None
    notes: tuple[str, ...] = ()
    estimate_gib: float | None = None
    tokens_per_row: float | None = None
    forecast_s: float | None = None
    probes: tuple[StageProbe, ...] = ()
    failure: Failure | None = None


class TrainOutput(Frozen):
    """The trained recipe: an adapter on the base model, or whole weights.

    `kind` and `weights` are what is scored and handed over; `health` is that of the last training, or of
    the one that failed. `stages` names every stage of the chain. `attempts` counts those of the first.
    """

    attempts: int = 0
    kind: Literal["lora", "full"] | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    health: TrainingHealth | None = None
    train_s: float = 0.0
    n_tokens: int | None = None
    stages: tuple[StageOutput, ...] = ()
    failure: Failure | None = None


class EvaluateOutput(Frozen):
    """The candidate's scores on val and dev, and the paired comparison on val to its parent.

    `share_scored` is below 1 after a race that ended early: `val` and the comparisons then rest on that
    share of val's items.
    """

    val: Score | None = None
    dev: Score | None = None
    dev_errors: dict[str, int] = {}
    vs_parent: Comparison | None = None
    vs_base: Comparison | None = None
    share_scored: float = 1.0
    eval_s: float = 0.0
    failure: Failure | None = None


class FeedbackOutput(Frozen):
    """The loop's end: what was decided, by which numbers, and what was learnt.

    `posterior_gain` is the expected true gain over the parent, given the run's earlier trials and the
    luck in the parent's own score; the parent moves when it and the measured difference are above 0.
    """

    status: LoopStatus
    reason: str
    posterior_gain: float | None = None
    p_gain: float | None = None
    facts: tuple[str, ...] = ()
    lesson: str | None = None
    new_parent: bool = False
    failure: Failure | None = None


class ReportedBenchmark(Frozen):
    """A benchmark beside the target: both scores and the paired comparison."""

    base: Score
    tuned: Score
    comparison: Comparison


class JudgedBenchmark(Frozen):
    """One benchmark with a judge's verdicts on what the rule rejected, beside the rule alone.

    Attributes:
        status, decides, reasons, cautions: what the judge's numbers are worth; only `ok` decides anything.
        rule, with_judge: tuned - base by the rule alone, and with the judge's verdicts on both sides.
        base_rescued, tuned_rescued: share of answers that only the judge accepts.
        alert: why the difference with the judge is not to be believed; None when nothing speaks against it.
        n_asked, n_unscored: verdicts wanted, and those that could not be had.
        cost_usd: what the judge has cost in this run so far.
    """

    status: str
    decides: bool
    reasons: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    model: str
    rule: Comparison
    with_judge: Comparison | None = None
    base_rescued: float = 0.0
    tuned_rescued: float = 0.0
    alert: str | None = None
    n_asked: int = 0
    n_unscored: int = 0
    cost_usd: float = 0.0


class CleanSubset(Frozen):
    """The claim without the test items that have a near copy in the training data.

    `n_near` items were left out; `comparison` is None when none or nothing is left.
    """

    n_near: int
    comparison: Comparison | None = None


class SeedTraining(Frozen):
    """One more training of the claimed recipe, with another seed.

    `delta` is its difference to the base on test; None when it failed (`failure` says why).
    """

    seed: int
    weights: str | None = None
    weights_sha256: str | None = None
    train_s: float = 0.0
    delta: float | None = None
    failure: Failure | None = None


class ClaimOutput(Frozen):
    """The sealed test, opened. `opening` counts openings of this run's test split from 1.

    Attributes:
        comparison: what the headline says. With several seeds it is about the recipe, and its interval
            covers the luck of training; else about the model that is handed over.
        own: the handed-over model alone, when `comparison` covers several seeds.
        seeds: the further trainings; () when the claim rests on one.
        clean: the same without items that have near copies in the training data.
        decoding: role (`base`, `tuned`) -> repetition penalty chosen on val; {} when the run did not choose.
        plain: both models in the plain protocol, when `decoding` changed one of them.
        judged: benchmark -> the same with a judge; {} without one.
        guards: reported benchmark -> whether a loss beyond the margin is excluded.
        optimism: val delta minus test delta; selection makes it positive on average.
        accepted: whether the claimed loop leads by the selection rule; when False the base model
            is still the best and the claim is about the best candidate tried.
    """

    loop: int
    recipe_hash: str
    accepted: bool
    base: Score
    tuned: Score
    comparison: Comparison
    val_delta: float
    optimism: float
    opening: int
    reported: dict[str, ReportedBenchmark] = {}
    own: Comparison | None = None
    seeds: tuple[SeedTraining, ...] = ()
    clean: CleanSubset | None = None
    decoding: dict[str, float] = {}
    plain: Comparison | None = None
    judged: dict[str, JudgedBenchmark] = {}
    guards: dict[str, GuardResult] = {}
    eval_s: float = 0.0


class ExportOutput(Frozen):
    """What was handed over, relative to the run directory.

    `max_logit_diff` is the largest absolute difference between merged and adapter logits in fp32.
    """

    adapter: str | None
    merged: str
    max_logit_diff: float
    files: dict[str, str] = {}
    seconds: float = 0.0


STEP_OUTPUTS: dict[StepName, type[Frozen]] = {
    "prepare": PrepareOutput,
    "baseline": BaselineOutput,
    "propose": ProposeOutput,
    "code": CodeOutput,
    "train": TrainOutput,
    "evaluate": EvaluateOutput,
    "feedback": FeedbackOutput,
    "claim": ClaimOutput,
    "export": ExportOutput,
}
