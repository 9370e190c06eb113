"""`report.md`: the facts of the HTML report as Markdown, for terminals, tickets and pull requests.

Free text is escaped, so that Markdown shows it literally and no table breaks.
"""

from __future__ import annotations

from rdagent_ft.reporting.facts import SCORER_WORDS, claim_facts, limits, names, score_words, stop_words
from rdagent_ft.reporting.reproduce import run_command
from rdagent_ft.reporting.rows import (
    LoopRow,
    benchmark_rows,
    dropped_text,
    failure_rows,
    loop_rows,
    time_parts,
)
from rdagent_ft.reporting.text import (
    counted,
    display_name,
    duration,
    markdown_code,
    markdown_text,
    money,
    one_line,
    without_folders,
)
from rdagent_ft.reporting.view import RunView


def report_markdown(view: RunView) -> str:
    """Return the report of a run, finished or not, as Markdown."""
    dataset, model = names(view)
    stopped = ": ".join(filter(None, (view.status[0], stop_words(view))))
    lines = [
        f"# {markdown_text(model)}, fine-tuned on {markdown_text(dataset)}",
        "",
        f"Run {markdown_code(view.run_id)}, started {view.created_utc[:16].replace('T', ' ')} UTC, "
        f"status: {markdown_text(stopped)}.",
        "",
        *_claim(view),
        *_benchmarks(view),
        *_loops(view),
        *_data(view),
        *_failures(view),
        *_cost(view),
        "## Reproduce",
        "",
        "```sh",
        run_command(view),
        "```",
        "",
        *_rebuild(view),
        "## What this report does not show",
        "",
        *(f"- {line}" for line in limits(view)),
    ]
    return "\n".join(lines) + "\n"


def _rebuild(view: RunView) -> list[str]:
    if view.export(view.best_loop) is None:
        return []
    return ["`export/reproduce.sh` trains the winning model again and compares its weights.", ""]


def _claim(view: RunView) -> list[str]:
    claim = claim_facts(view)
    lines = [f"## {claim.headline}", "", f"*{claim.kicker}.*", "", claim.meaning, ""]
    if claim.measured:
        lines += [f"**How it was measured.** {markdown_text(claim.measured, 2_000)}", ""]
    if claim.cautions:
        lines += [*(f"- {caution}" for caution in claim.cautions), ""]
    if claim.evidence:
        lines += ["Every single answer:", "", *(f"- `{file}`" for file in claim.evidence), ""]
    return lines


def _benchmarks(view: RunView) -> list[str]:
    rows = benchmark_rows(view)
    if not rows:
        return []
    lines = [
        "## All benchmarks",
        "",
        "| benchmark | split | metric | n | base | tuned | delta [95% CI] | MDE | verdict |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for index, row in enumerate(rows):
        forgotten = ": forgetting" if row.verdict == "regressed" and index else ""
        cells = (
            markdown_text(row.benchmark),
            row.split,
            row.metric,
            row.n,
            row.base,
            row.tuned,
            f"{row.delta} {row.ci95} {row.arrow}",
            row.mde,
            row.verdict + forgotten,
        )
        lines.append(f"| {' | '.join(cells)} |")
    legend = (
        "Scores in percent, differences in points. ↑ better and ↓ worse: the interval excludes zero. "
        "↗ ↘: a tendency that chance may explain. →: no difference to speak of. MDE: the smallest difference "
        "that is found in four cases of five."
    )
    return [*lines, "", legend, ""]


def _loops(view: RunView) -> list[str]:
    rows = loop_rows(view)
    lines = ["## Loops", ""]
    if view.baseline is not None:
        lines += [f"Base model on validation: {score_words(view.baseline.val)}.", ""]
    if not rows:
        return [*lines, "No loop has been proposed yet.", ""]
    lines += [
        "| loop | outcome | validation score | against parent | time | cost | what was tried |",
        "|--:|---|---|---|--:|--:|---|",
    ]
    for row in rows:
        against = f"{row.arrow} {row.delta} {row.delta_ci} ({row.parent})" if row.delta else "–"
        outcome = row.status_word + (" (leads)" if row.leads else "")
        tried = markdown_text(row.short)
        cells = (str(row.number), outcome, row.val or "–", against, row.minutes, row.usd, tried)
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for row in rows:
        lines += _loop(row)
    return lines


def _loop(row: LoopRow) -> list[str]:
    lines = [
        f"### Loop {row.number}: {row.status_word}",
        "",
        f"- Hypothesis: {markdown_text(row.hypothesis)}",
    ]
    if row.prediction:
        lines.append(f"- Prediction: {markdown_text(row.prediction)}")
    for change in row.changes:
        values = f"{markdown_text(change.before)} → {markdown_text(change.after)}"
        lines.append(f"- Changed: {markdown_code(change.key)} {values}")
    if row.data:
        lines.append(f"- Data: {markdown_text(row.data)}")
    if row.training:
        lines.append(f"- Training: {markdown_text(row.training)}")
    lines += [f"- Forecast: {markdown_text(words)}" for words in row.forecast]
    lines += [f"- Weights: {markdown_text(words)}" for words in row.kept]
    lines.append(f"- Decision: {markdown_text(row.decision)}")
    lines += [f"- Fact: {markdown_text(fact)}" for fact in row.facts]
    if row.lesson:
        lines.append(f"- Lesson (by the LLM): {markdown_text(row.lesson)}")
    record = f"built on {row.parent}, proposed by {markdown_text(row.planner)}"
    return [*lines, f"- Record: {record}, recipe {markdown_code(row.recipe_hash or 'none')}", ""]


def _data(view: RunView) -> list[str]:
    prepare = view.prepare
    if prepare is None:
        return ["## Data", "", "The data has not been prepared yet.", ""]
    read = prepare.read
    lines = ["## Data", "", f"{read.n_read:,} records read, {read.n_rows:,} rows kept, format {read.format}."]
    lines += ["", "| split | items |", "|---|--:|"]
    lines += [f"| {name} | {split.n_items:,} |" for name, split in prepare.splits.items()]
    lines += [""]
    lines += [f"- Not usable: {markdown_text(reason)}: {n:,}" for reason, n in read.dropped.items()]
    lines.append(
        f"- Near-duplicates: {counted(prepare.n_near_duplicate_groups, 'group')}, each kept in one split"
    )
    tokens = ", ".join(f"{markdown_text(key)} {value:,}" for key, value in prepare.token_percentiles.items())
    lines.append(f"- Tokens per training row: {tokens or 'not counted'}")
    lines += [
        f"- Loop {loop.number} trained on {markdown_text(dropped_text(loop.code))}"
        for loop in view.loops
        if loop.code is not None and (loop.code.dropped or loop.code.script)
    ]
    lines.append(f"- Scored by {SCORER_WORDS[prepare.scorer]}")
    lines += [
        f"- File {markdown_code(display_name(file.path))}, SHA-256 {markdown_code(file.sha256)}"
        for file in prepare.dataset.files[:40]
    ]
    return [*lines, ""]


def _failures(view: RunView) -> list[str]:
    rows = failure_rows(view)
    if not rows:
        return ["## Failures", "", "None.", ""]
    lines = ["## Failures", ""]
    for row in rows:
        fix = f" What helps: {markdown_text(row.fix)}." if row.fix else ""
        head = f"{row.place}: {markdown_code(row.failure_class)} ({row.blame})"
        lines.append(f"- {head}. {markdown_text(row.message)}.{fix}")
    return [*lines, ""]


def _cost(view: RunView) -> list[str]:
    spent = money(sum(call.usd for call in view.llm_calls))
    n_tokens = sum(call.input_tokens + call.output_tokens for call in view.llm_calls)
    lines = [
        "## Cost and environment",
        "",
        f"- Time in all {duration(view.wall_s)}; LLM {spent} for {counted(n_tokens, 'token')}",
    ]
    parts = [f"{part.label} {duration(part.amount)}" for part in time_parts(view) if part.amount >= 0.05]
    if parts:
        lines.append(f"- Where the time went: {', '.join(parts)}")
    prepare = view.prepare
    if prepare is not None:
        lines.append(f"- Base model revision {markdown_code(prepare.model.revision)}")
        lines += [f"- {markdown_text(without_folders(one_line(fact)))}" for fact in prepare.machine_facts]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(view.environment.items()))
    lines.append(
        f"- rdagent_ft {markdown_text(view.code_version)}, seed {view.settings.get('seed', 'not recorded')}, "
        + (markdown_text(versions, 1_000) or "package versions were not recorded")
    )
    return [*lines, ""]
