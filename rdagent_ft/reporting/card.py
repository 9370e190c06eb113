"""The model card: `export/README.md` of the model that was handed over.

It may be published, so it holds no folder of a machine, no row of the data and no free text of an
LLM. The front matter is YAML that the hub reads; `base_model` is there only when it is a hub id.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rdagent_ft.evaluation.rows import Score
from rdagent_ft.reporting.facts import SCORER_WORDS, claim_facts, limits, recipe_leaves
from rdagent_ft.reporting.records import ClaimOutput, PrepareOutput
from rdagent_ft.reporting.rows import dropped_text
from rdagent_ft.reporting.text import (
    counted,
    display_name,
    duration,
    interval_percent,
    interval_points,
    markdown_code,
    markdown_text,
    one_line,
    percent,
    points,
    value_text,
)
from rdagent_ft.reporting.view import LoopView, RunView
from rdagent_ft.shipped import shipped_folder

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


def model_card(view: RunView) -> str:
    """Return the card of the leading loop, else of the claimed one, else one that names no model."""
    claim = view.claim
    loop = view.loop(view.best_loop if view.best_loop is not None else (claim.loop if claim else None))
    environment = Environment(
        loader=FileSystemLoader(shipped_folder("templates")),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown: every value is escaped below
        trim_blocks=True,
        lstrip_blocks=True,
    )
    prepare = view.prepare
    if prepare is None or loop is None:
        return "# No model\n\nThis run has not produced a model.\n"
    return environment.get_template("card.md.j2").render(
        front_matter=_front_matter(prepare, loop),
        run_id=markdown_code(view.run_id),
        claim=claim_facts(view) if claim is not None and claim.loop == loop.number else None,
        accepted=view.best_loop == loop.number,
        scores=_scores(claim) if claim is not None and claim.loop == loop.number else (),
        limits=limits(view),
        versions=[(markdown_text(k), markdown_text(v)) for k, v in sorted(view.environment.items())],
        code_version=markdown_text(view.code_version),
        created=view.created_utc[:10],
        **_model(view, prepare, loop),
        **_data(prepare, loop),
    )


def hub_model(prepare: PrepareOutput) -> str | None:
    """Return the base model's hub id, or None for a local folder (its revision is no commit)."""
    name, revision = prepare.model.name, prepare.model.revision
    return name if _HUB_ID.match(name) and _COMMIT.match(revision) else None


def _front_matter(prepare: PrepareOutput, loop: LoopView) -> str:
    kind = loop.train.kind if loop.train else None
    values: dict[str, Any] = {
        "library_name": "peft" if kind == "lora" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rdagent-ft", "trl", "sft", *(["lora"] if kind == "lora" else [])],
    }
    base = hub_model(prepare)
    if base is not None:
        values["base_model"] = base
    dataset = prepare.dataset.name.split(":")[0]
    if prepare.dataset.kind == "hub" and _HUB_ID.match(dataset):
        values["datasets"] = [dataset]
    return yaml.safe_dump(values, sort_keys=True, allow_unicode=True).strip()


def _model(view: RunView, prepare: PrepareOutput, loop: LoopView) -> dict[str, Any]:
    model, train = prepare.model, loop.train
    recipe = recipe_leaves(loop.propose.recipe) if loop.propose.recipe else {}
    shown = {key: value for key, value in recipe.items() if value is not None and key != "schema_version"}
    export = view.export(loop.number)
    base = display_name(model.name)
    is_claimed = view.claim is not None and view.claim.loop == loop.number
    penalty = view.claim.decoding.get("tuned", 1.0) if view.claim is not None and is_claimed else 1.0
    return {
        "base": markdown_text(base),
        "base_code": repr(hub_model(prepare) or f"path/to/{base}"),
        "base_revision": markdown_code(model.revision),
        "base_is_hub": hub_model(prepare) is not None,
        "revision_code": repr(one_line(model.revision, 80)),
        "fingerprint": markdown_code(model.fingerprint),
        "architecture": markdown_text(model.architecture),
        "n_params": f"{model.n_params:,}",
        "kind": train.kind if train else None,
        "has_adapter": bool(train and train.kind == "lora"),
        "is_chat": prepare.prompt_format == "chat",
        "max_new_tokens": prepare.max_new_tokens,
        "penalty": penalty,
        "recipe": [(markdown_code(key), markdown_text(value_text(value))) for key, value in shown.items()],
        "recipe_hash": markdown_code(loop.propose.recipe_hash or "unknown"),
        "loop_number": loop.number,
        "training": _training(loop),
        "seed": str(view.settings.get("seed", "not recorded")),
        "weights": markdown_code(train.weights_sha256) if train and train.weights_sha256 else "",
        "logit_diff": f"{export.max_logit_diff:.1e}" if export else "",
        "device": prepare.device,
    }


def _training(loop: LoopView) -> str:
    """Return how long the training was: steps, tokens and time, as far as recorded."""
    if loop.train is None:
        return ""
    parts = [f"{duration(loop.train.train_s)} of training"]
    if loop.train.health is not None:
        parts.insert(0, counted(loop.train.health.n_steps, "optimizer step"))
    if loop.train.n_tokens is not None:
        parts.append(counted(loop.train.n_tokens, "token"))
    return ", ".join(parts)


def _data(prepare: PrepareOutput, loop: LoopView) -> dict[str, Any]:
    source = prepare.dataset
    return {
        "dataset": markdown_text(display_name(source.name)),
        "dataset_revision": markdown_code(source.revision),
        "files": [(markdown_code(display_name(f.path)), markdown_code(f.sha256)) for f in source.files[:40]],
        "n_read": f"{prepare.read.n_read:,}",
        "n_rows": f"{prepare.read.n_rows:,}",
        "dropped": [(markdown_text(reason), f"{n:,}") for reason, n in prepare.read.dropped.items()],
        "trained_on": markdown_text(dropped_text(loop.code)) if loop.code else "",
        "splits": [(name, f"{split.n_items:,}") for name, split in prepare.splits.items()],
        "near_groups": counted(prepare.n_near_duplicate_groups, "group"),
        "scorer": SCORER_WORDS[prepare.scorer],
    }


def _scores(claim: ClaimOutput | None) -> tuple[dict[str, str], ...]:
    if claim is None:
        return ()
    pairs = [(claim.base, claim.tuned, claim.comparison)]
    pairs += [(beside.base, beside.tuned, beside.comparison) for beside in claim.reported.values()]
    return tuple(
        {
            "benchmark": markdown_text(paired.benchmark),
            "split": markdown_text(paired.split),
            "metric": base.scorer.replace("_", " "),
            "n": f"{paired.n:,}",
            "base": _score(base),
            "tuned": _score(tuned),
            "delta": f"{points(paired.delta)} {interval_points(paired.ci95)}",
            "verdict": paired.verdict,
        }
        for base, tuned, paired in pairs
    )


def _score(score: Score) -> str:
    return f"{percent(score.value)} ({interval_percent(score.ci95)})"
