"""`report.html`: one self-contained page that a stranger can read, print and mail.

No script, no request to anywhere: CSS and SVG are inline, and a content security policy forbids the
rest. All text of a run is hostile: templates escape everything, only SVG made by `plots.py` is
passed as markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rdagent_ft.reporting import plots, svg
from rdagent_ft.reporting.curves import loss_curve
from rdagent_ft.reporting.facts import (
    SCORER_WORDS,
    ClaimFacts,
    claim_facts,
    limits,
    margin,
    names,
    score_words,
    stop_words,
)
from rdagent_ft.reporting.reproduce import run_command
from rdagent_ft.reporting.rows import (
    LoopRow,
    benchmark_rows,
    dropped_text,
    failure_rows,
    loop_rows,
    time_parts,
)
from rdagent_ft.reporting.stages import curve_folder, stage_tables
from rdagent_ft.reporting.text import (
    counted,
    display_name,
    duration,
    money,
    one_line,
    percent,
    without_folders,
)
from rdagent_ft.reporting.view import LoopView, RunView
from rdagent_ft.shipped import shipped_folder

MAX_CURVES = 60
NARROW_PX, WIDE_PX = 350, 860
Draw = Callable[[int, str], str]


def report_html(view: RunView) -> str:
    """Return the report of a run, finished or not, as one HTML document."""
    folder = shipped_folder("templates") / "report"
    css = (folder / "style.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    rows = loop_rows(view)
    return environment.get_template("report.html.j2").render(
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        **_head(view),
        **_result(view),
        **_loops(view, rows),
        **_data(view),
        **_cost(view),
        failures=failure_rows(view),
        limits=limits(view),
        command=run_command(view),
        has_export=view.export(view.best_loop) is not None,
    )


def _head(view: RunView) -> dict[str, Any]:
    dataset, model = names(view)
    return {
        "dataset": dataset,
        "model": model,
        "run_id": one_line(view.run_id, 80),
        "created": view.created_utc[:16].replace("T", " "),
        "updated": view.last_utc[:16].replace("T", " "),
        "status": view.status[0],
        "stop_reason": stop_words(view),
    }


def _result(view: RunView) -> dict[str, Any]:
    facts: ClaimFacts = claim_facts(view)
    claim = view.claim
    interval = ""
    if claim is not None:
        paired = claim.comparison

        def draw(width: int, name: str) -> str:
            return plots.interval_plot(
                paired.delta, paired.ci95, margin(view), claim.val_delta, width=width, name=name
            )

        interval = _both_widths("interval", draw)
    return {
        "claim": facts,
        "claimed": claim,
        "base": percent(claim.comparison.base) if claim else "",
        "tuned": percent(claim.comparison.tuned) if claim else "",
        "interval": interval,
        "margin": f"{100 * margin(view):.1f}",
        "benchmarks": benchmark_rows(view),
    }


def _loops(view: RunView, rows: tuple[LoopRow, ...]) -> dict[str, Any]:
    finished = [loop for loop in view.loops if loop.feedback is not None]
    baseline = view.baseline
    reference = plots.Reference(value=baseline.val.value, ci95=baseline.val.ci95) if baseline else None
    progress = [_progress_point(loop) for loop in finished]

    def draw(width: int, name: str) -> str:
        height = 340 if width == WIDE_PX else 300
        return plots.progress_plot(progress, reference, width=width, height=height, name=name)

    counts = {key: sum(row.status == key for row in rows) for key in ("accepted", "rejected", "failed")}
    return {
        "loops": rows,
        "counts": counts,
        "baseline": score_words(baseline.val) if baseline else "",
        "progress": _both_widths("progress", draw) if progress or reference else "",
        "markers": {name: _legend(name) for name in ("accepted", "rejected", "failed")},
        "curves": _curves(view),
        "stage_tables": stage_tables(view),
        "recipe_was_given": view.request.get("recipe") is not None,
    }


def _progress_point(loop: LoopView) -> plots.ProgressPoint:
    assert loop.feedback is not None
    val = loop.evaluate.val if loop.evaluate else None
    what = score_words(val) if val else (loop.failure.failure_class if loop.failure else "no score")
    return plots.ProgressPoint(
        loop=loop.number,
        status=loop.feedback.status,
        value=val.value if val else None,
        ci95=val.ci95 if val else None,
        leads=loop.feedback.new_parent,
        label=f"loop {loop.number}, {one_line(what, 80)}: {one_line(loop.propose.hypothesis, 160)}",
    )


def _curves(view: RunView) -> list[dict[str, Any]]:
    """Return the newest loops' loss curves; curves that end well share one scale."""
    trained = [loop for loop in view.loops if loop.train is not None][-MAX_CURVES:]
    found = [(loop, *_curve(view, loop)) for loop in trained]
    healthy = [
        max(loss for _, loss in curve)
        for loop, curve, _ in found
        if curve and loop.train and loop.train.health and loop.train.health.verdict == "ok"
    ]
    shared = max(healthy, default=None)
    cards: list[dict[str, Any]] = []
    for loop, curve, problem in found:
        status = loop.feedback.status if loop.feedback else "open"
        picture = plots.loss_plot(
            curve,
            width=264,
            height=132,
            name=f"loss-{loop.number}",
            y_max=shared if status != "failed" else None,
        )
        note = "" if picture else one_line(problem or "no losses were logged", 90).replace("`", "")
        cards.append({"number": loop.number, "status": status, "svg": Markup(picture), "note": note})
    return cards


def _curve(view: RunView, loop: LoopView) -> tuple[list[tuple[float, float]], str | None]:
    return loss_curve(view.run_dir, curve_folder(loop))


def _data(view: RunView) -> dict[str, Any]:
    prepare = view.prepare
    if prepare is None:
        return {"data": None}
    use = {
        "train": "what a recipe may train on",
        "dev": "errors on it may be read by the planner",
        "val": "scores on it choose between loops",
        "test": "sealed until the claim",
    }
    return {
        "data": {
            "format": prepare.read.format.replace("_", "/"),
            "n_read": f"{prepare.read.n_read:,}",
            "n_rows": f"{prepare.read.n_rows:,}",
            "mapping": [(one_line(k, 60), one_line(v, 60)) for k, v in prepare.read.mapping.items()],
            "dropped": [(one_line(reason, 160), f"{n:,}") for reason, n in prepare.read.dropped.items()],
            "splits": [(n, f"{s.n_items:,}", use[n], s.sha256[:12]) for n, s in prepare.splits.items()],
            "near_groups": counted(prepare.n_near_duplicate_groups, "group"),
            "tokens": [(key, f"{value:,}") for key, value in prepare.token_percentiles.items()],
            "sources": [(one_line(key, 80), f"{n:,}") for key, n in list(prepare.sources.items())[:40]],
            "files": [(display_name(f.path), f"{f.n_bytes:,}", f.sha256) for f in prepare.dataset.files[:40]],
            "revision": one_line(prepare.dataset.revision, 80),
            "scorer": SCORER_WORDS[prepare.scorer],
            "scorer_reason": one_line(prepare.scorer_reason, 200),
            "mixes": _mixes(view),
            "notices": [without_folders(one_line(notice)) for notice in prepare.notices[:20]],
        }
    }


def _mixes(view: RunView) -> list[tuple[str, str]]:
    """Return (loops, what their recipes left out), equal ones together."""
    groups: dict[str, list[str]] = {}
    for loop in view.loops:
        if loop.code is not None and (loop.code.dropped or loop.code.script):
            groups.setdefault(dropped_text(loop.code), []).append(str(loop.number))
    return [(", ".join(numbers), text) for text, numbers in groups.items()]


def _cost(view: RunView) -> dict[str, Any]:
    total = sum(part.amount for part in time_parts(view)) or 1.0
    parts = [part for part in time_parts(view) if part.amount > 0.002 * total]

    def draw(width: int, name: str) -> str:
        return plots.share_bar(parts, width=width, name=name, title="Where the time went")

    prepare = view.prepare
    machine = [without_folders(one_line(fact)) for fact in (prepare.machine_facts if prepare else ())]
    facts = [without_folders(one_line(fact)) for fact in (prepare.model_facts if prepare else ())]
    return {
        "wall": duration(view.wall_s),
        "train_time": duration(view.train_s),
        "eval_time": duration(view.eval_s),
        "spent": money(sum(call.usd for call in view.llm_calls)),
        "n_tokens": f"{sum(call.input_tokens + call.output_tokens for call in view.llm_calls):,}",
        "llm": [
            (one_line(t.role, 40), one_line(t.model, 80), f"{t.n_calls:,}", f"{t.n_tokens:,}", money(t.usd))
            for t in view.llm_totals
        ],
        "time_bar": Markup(draw(WIDE_PX, "time")),
        "time_parts": [(p.label, p.tone, duration(p.amount), percent(p.amount / total, 0)) for p in parts],
        "versions": sorted((one_line(k, 60), one_line(v, 60)) for k, v in view.environment.items()),
        "code_version": one_line(view.code_version, 60),
        "machine": machine,
        "model_facts": facts,
        "fingerprint": prepare.model.fingerprint if prepare else "",
        "model_revision": one_line(prepare.model.revision, 80) if prepare else "",
        "choice_reason": one_line(prepare.model.choice_reason or "", 300) if prepare else "",
        "seed": str(view.settings.get("seed", "not recorded")),
    }


def _both_widths(name: str, draw: Draw) -> Markup:
    """Return a wide and a narrow drawing; the style sheet shows the one that fits."""
    wide, narrow = draw(WIDE_PX, f"{name}-wide"), draw(NARROW_PX, f"{name}-narrow")
    return Markup(f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>')


def _legend(status: str) -> Markup:
    sign = svg.marker(status, 7, 7)
    return Markup(svg.element("svg", sign, viewBox="0 0 14 14", class_="sign", aria_hidden="true"))
