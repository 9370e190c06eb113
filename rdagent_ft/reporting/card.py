"""The model card: `export/README.md` of the model that was handed over, and of each published form.

It may be published, so every value passes `public.py`: it holds no folder of a machine, no key, no row
of the data and no free text of an LLM. The front matter is YAML that the hub reads; `base_model` is there
only when it is a hub id, `license` only when it is known.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rdagent_ft.evaluation.rows import Score
from rdagent_ft.recipe.stages import LoraAdapter, StageKind
from rdagent_ft.reporting.card_cautions import card_cautions
from rdagent_ft.reporting.card_forms import FORM_WORDS, LIBRARIES, MARKER, CardPlace, served_rank
from rdagent_ft.reporting.card_ifeval import ifeval_rows
from rdagent_ft.reporting.facts import SCORER_WORDS, claim_facts, limits
from rdagent_ft.reporting.licence import base_licence
from rdagent_ft.reporting.public import Private, private_of, public_leaves, public_name, public_word
from rdagent_ft.reporting.records import ClaimOutput, CodeOutput, PrepareOutput
from rdagent_ft.reporting.text import (
    counted,
    duration,
    interval_percent,
    interval_points,
    markdown_code,
    markdown_text,
    percent,
    points,
    value_text,
)
from rdagent_ft.reporting.view import LoopView, RunView
from rdagent_ft.shipped import shipped_folder

NO_GAIN = "No demonstrated improvement"
"""How every headline begins that is not about a demonstrated improvement."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_HEX = re.compile(r"[0-9a-f]{7,64}\Z")
_STAGE_WORDS: dict[StageKind, str] = {
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimisation",
    "kto": "Kahneman-Tversky optimisation",
    "reward": "a reward model",
    "grpo": "reinforcement learning on verifiable rewards (GRPO)",
    "distill": "on-policy distillation",
    "merge": "a merge",
}


def model_card(view: RunView, place: CardPlace | None = None) -> str:
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
    own = claim if claim is not None and claim.loop == loop.number else None
    private = private_of(view)
    text = environment.get_template("card.md.j2").render(
        marker=MARKER,
        run_id=markdown_code(public_word(view.run_id)),
        accepted=view.best_loop == loop.number,
        limits=limits(view),
        versions=[(_word(k), _word(v)) for k, v in sorted(view.environment.items())],
        code_version=_word(view.code_version),
        created=view.created_utc[:10],
        **_claimed(view, own, private),
        **_model(view, prepare, loop, own),
        **_place(place or CardPlace(), prepare, loop),
        **_data(prepare, loop),
    )
    return re.sub(r"\n{3,}", "\n\n", private.cleaned(text))


def hub_model(prepare: PrepareOutput) -> str | None:
    """Return the base model's hub id, or None for a local folder (its revision is no commit)."""
    name, revision = prepare.model.name, prepare.model.revision
    return name if _HUB_ID.match(name) and _COMMIT.match(revision) else None


def _claimed(view: RunView, claim: ClaimOutput | None, private: Private) -> dict[str, Any]:
    """Return headline, scores, guards and cautions. Only a demonstrated improvement is called one."""
    if claim is None:
        return {
            "headline": NO_GAIN,
            "meaning": "This model has not been scored on a sealed test: there is no claim about it.",
            "scores": (),
            "cautions": (),
            "guards": (),
            "ifeval": (),
        }
    facts = claim_facts(view)
    headline, meaning = facts.headline, facts.meaning
    if view.seal.is_broken:
        headline = f"{NO_GAIN}: the record of looks at the test was changed"
        meaning = "What was measured proves nothing, because how often the test was opened is not known."
    elif claim.comparison.verdict != "improved" and not headline.startswith(NO_GAIN):
        headline = f"{NO_GAIN}: {headline[:1].lower()}{headline[1:]}"
    return {
        "headline": headline,
        "meaning": meaning,
        "scores": _scores(claim),
        "cautions": tuple(private.cleaned(line) for line in card_cautions(view, claim)),
        "guards": _guards(claim),
        "ifeval": ifeval_rows(view, claim),
    }


def _place(place: CardPlace, prepare: PrepareOutput, loop: LoopView) -> dict[str, Any]:
    """Return what differs between the forms: front matter, loading and serving."""
    lora = loop.train is not None and loop.train.kind == "lora"
    adapter = place.adapter if lora else None
    return {
        "front_matter": _front_matter(place, prepare, loop),
        "form_words": "" if place.form == "run" else FORM_WORDS[place.form],
        "notes": place.notes,
        "adapter_ref": None if adapter is None else json.dumps(adapter),
        "merged_ref": None if place.merged is None else json.dumps(place.merged),
        "gguf": place.weights,
        "ollama_name": f"{_base_name(prepare).rpartition('/')[2].lower()}-tuned",
        "serve": _serve(place, prepare, loop),
        "has_script": place.form == "run",
    }


def _serve(place: CardPlace, prepare: PrepareOutput, loop: LoopView) -> str:
    """Return the command of vLLM; "" where it cannot serve the form."""
    length = f"--max-model-len {min(prepare.model.max_positions, 32_768)}"
    if place.merged is not None:
        return f"vllm serve {place.merged} {length}"
    settings = _lora(loop)
    rank = None if settings is None or settings.use_dora else served_rank(settings.r)
    if place.adapter is None or rank is None:
        return ""
    base = hub_model(prepare) or f"path/to/{_base_name(prepare)}"
    lora = f"--enable-lora --max-lora-rank {rank} --lora-modules tuned={place.adapter}"
    return f"vllm serve {base} {length} {lora}"


def _lora(loop: LoopView) -> LoraAdapter | None:
    """Return the settings of the recipe's last adapter."""
    stages = () if loop.propose.recipe is None else loop.propose.recipe.trained_stages
    found = [stage.adapter for _, stage in stages if isinstance(stage.adapter, LoraAdapter)]
    return found[-1] if found else None


def _front_matter(place: CardPlace, prepare: PrepareOutput, loop: LoopView) -> str:
    lora = loop.train is not None and loop.train.kind == "lora"
    library = ("peft" if lora else "transformers") if place.form == "run" else LIBRARIES[place.form]
    tags = ["rdagent-ft", "trl", *dict.fromkeys(_kinds(loop)), *(["lora"] if lora else [])]
    values: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    base, licence = hub_model(prepare), base_licence(prepare)
    if base is not None:
        values["base_model"] = base
    if licence is not None:
        values["license"] = licence
    dataset = prepare.dataset.name.split(":")[0].split("@")[0]
    if prepare.dataset.kind == "hub" and _HUB_ID.match(dataset):
        values["datasets"] = [dataset]
    return yaml.safe_dump(values, sort_keys=True, allow_unicode=True).strip()


def _kinds(loop: LoopView) -> tuple[StageKind, ...]:
    stages = () if loop.propose.recipe is None else loop.propose.recipe.stages
    return tuple(stage.kind for stage in stages if stage.kind != "merge") or ("sft",)


def _base_name(prepare: PrepareOutput) -> str:
    return public_name(prepare.model.name, is_hub=hub_model(prepare) is not None)


def _model(
    view: RunView, prepare: PrepareOutput, loop: LoopView, claim: ClaimOutput | None
) -> dict[str, Any]:
    model, train, recipe = prepare.model, loop.train, loop.propose.recipe
    shown = {} if recipe is None else public_leaves(recipe)
    stages = () if recipe is None else recipe.stages
    export = view.export(loop.number)
    seed = view.settings.get("seed")
    revision = model.revision if _HEX.match(model.revision) else public_word(model.revision)
    return {
        "base": markdown_text(_base_name(prepare)),
        "base_code": json.dumps(hub_model(prepare) or f"path/to/{_base_name(prepare)}"),
        "base_revision": markdown_code(revision),
        "base_is_hub": hub_model(prepare) is not None,
        "revision_code": json.dumps(revision),
        "fingerprint": markdown_code(public_word(model.fingerprint)),
        "architecture": _word(model.architecture),
        "n_params": f"{model.n_params:,}",
        "licence": base_licence(prepare),
        "has_adapter": bool(train and train.kind == "lora"),
        "stages": ", then ".join(_STAGE_WORDS[stage.kind] for stage in stages) or _STAGE_WORDS["sft"],
        "is_chat": prepare.prompt_format == "chat",
        "max_new_tokens": prepare.max_new_tokens,
        "penalty": 1.0 if claim is None else claim.decoding.get("tuned", 1.0),
        "recipe": [(markdown_code(key), markdown_text(value_text(value))) for key, value in shown.items()],
        "recipe_hash": markdown_code(public_word(loop.propose.recipe_hash or "unknown")),
        "loop_number": loop.number,
        "training": _training(loop),
        "seed": str(seed) if isinstance(seed, int) else "not recorded",
        "weights": markdown_code(public_word(train.weights_sha256)) if train and train.weights_sha256 else "",
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
    files = [(public_name(file.path, is_hub=False), file.sha256) for file in source.files[:40]]
    n_dropped = sum(prepare.read.dropped.values())
    return {
        "dataset": markdown_text(public_name(source.name, is_hub=source.kind != "local")),
        "dataset_revision": markdown_code(public_word(source.revision)),
        "files": [(markdown_code(name), markdown_code(public_word(digest))) for name, digest in files],
        "n_read": f"{prepare.read.n_read:,}",
        "n_rows": f"{prepare.read.n_rows:,}",
        "n_dropped": f"{n_dropped:,}" if n_dropped else "",
        "trained_on": markdown_text(_trained_on(loop.code)) if loop.code else "",
        "splits": [(name, f"{split.n_items:,}") for name, split in prepare.splits.items()],
        "near_groups": counted(prepare.n_near_duplicate_groups, "group"),
        "scorer": SCORER_WORDS[prepare.scorer],
    }


def _trained_on(code: CodeOutput) -> str:
    """Return what the recipe's data mix left, in numbers: reasons may name a person's sources."""
    n_left_out = sum(code.dropped.values())
    parts = [counted(code.n_train_rows, "training row")]
    if n_left_out:
        parts.append(f"{n_left_out:,} left out by the recipe's data settings")
    if code.script is not None:
        parts.append(code.script.words)
    return "; ".join(parts)


def _scores(claim: ClaimOutput) -> tuple[dict[str, str], ...]:
    pairs = [(claim.base, claim.tuned, claim.comparison)]
    pairs += [(beside.base, beside.tuned, beside.comparison) for beside in claim.reported.values()]
    return tuple(
        {
            "benchmark": _word(paired.benchmark),
            "split": _word(paired.split),
            "metric": base.scorer.replace("_", " "),
            "n": f"{paired.n:,}",
            "base": _score(base),
            "tuned": _score(tuned),
            "delta": f"{points(paired.delta)} {interval_points(paired.ci95)}",
            "verdict": paired.verdict,
        }
        for base, tuned, paired in pairs
    )


def _guards(claim: ClaimOutput) -> tuple[dict[str, str], ...]:
    words = {"safe": "a larger loss is excluded", "not_shown": "not shown", "regressed": "regressed"}
    return tuple(
        {
            "benchmark": _word(name),
            "margin": f"{100 * guard.margin:.1f}",
            "outcome": words[guard.outcome],
            "p": f"{guard.p_holm:.3g}",
        }
        for name, guard in claim.guards.items()
    )


def _score(score: Score) -> str:
    return f"{percent(score.value)} ({interval_percent(score.ci95)})"


def _word(text: str) -> str:
    return markdown_text(public_word(text))
