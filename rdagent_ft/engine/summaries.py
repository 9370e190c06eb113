"""One short phrase per finished step, for the progress display."""

from __future__ import annotations

from functools import singledispatch

from rdagent_ft.reporting import records
from rdagent_ft.values import Frozen


@singledispatch
def summarise_step(output: Frozen) -> str:
    """Return a few words on a step's output; one overload per record type below."""
    return type(output).__name__


@summarise_step.register
def _(output: records.PrepareOutput) -> str:
    sizes = ", ".join(f"{name} {info.n_items}" for name, info in output.splits.items())
    return f"{sizes}; scored by {output.scorer}; base {output.model.name}"


@summarise_step.register
def _(output: records.BaselineOutput) -> str:
    cached = " (cached)" if output.from_cache else ""
    return f"base val {output.val.value:.1%} +- {output.val.stderr:.1%} on {output.val.n} items{cached}"


@summarise_step.register
def _(output: records.ProposeOutput) -> str:
    return output.hypothesis


@summarise_step.register
def _(output: records.CodeOutput) -> str:
    if output.failure is not None:
        return f"rejected [{output.failure.failure_class}] {output.failure.message[:200]}"
    made = "" if output.script is None else f"; {output.script.words}"
    time = "" if output.forecast_s is None else f", about {output.forecast_s:,.0f} s of training"
    return f"{output.n_train_rows} rows, config checked{made}{time}"


@summarise_step.register
def _(output: records.TrainOutput) -> str:
    if output.failure is not None:
        return f"failed [{output.failure.failure_class}]"
    health = output.health
    if health is None or health.last_loss is None:
        return "trained"
    return f"{health.n_steps} steps, loss {health.first_loss:.3g} -> {health.last_loss:.3g}"


@summarise_step.register
def _(output: records.EvaluateOutput) -> str:
    if output.failure is not None or output.val is None:
        return "skipped: nothing to score"
    return f"val {output.val.value:.1%} +- {output.val.stderr:.1%} on {output.val.n} items"


@summarise_step.register
def _(output: records.FeedbackOutput) -> str:
    return f"{output.status}: {output.reason}"


@summarise_step.register
def _(output: records.ClaimOutput) -> str:
    low, high = output.comparison.ci95
    return (
        f"{output.comparison.verdict}: test {output.base.value:.1%} -> {output.tuned.value:.1%}, "
        f"{output.comparison.delta:+.1%} [{low:+.1%}, {high:+.1%}] on {output.comparison.n} sealed items"
    )


@summarise_step.register
def _(output: records.ExportOutput) -> str:
    return f"merged model in {output.merged}; logits differ by at most {output.max_logit_diff:.1e}"
