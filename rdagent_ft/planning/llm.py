"""The LLM planner: one structured call returns hypothesis, prediction and recipe diff.

What the reply may do is bounded here: known paths, valid and new recipes, priors that exist. A reply that
breaks this is sent back with all problems, twice at most. The prompt holds no val or test item and no
clock, so a resumed run asks the same question and its paid answer is found again.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import Field

from rdagent_ft.errors import LlmError, RecipeError, TimeIsUpError
from rdagent_ft.knowledge.store import Prior, matching_priors, prior_ids
from rdagent_ft.llm.port import LlmClient, LlmMessage
from rdagent_ft.llm.prompts import delimited, render_prompt
from rdagent_ft.planning.history import history_table, tried_hashes, value_at
from rdagent_ft.planning.port import PlanContext, Proposal
from rdagent_ft.planning.sample import space_of
from rdagent_ft.planning.scripts import earlier_scripts, recipe_text, script_limits
from rdagent_ft.recipe.admission import lacks_only_time
from rdagent_ft.recipe.diff import apply_diff, recipe_diff
from rdagent_ft.recipe.rules import check_recipe
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.space import Dimension
from rdagent_ft.values import Frozen, canonical_json

N_REASKS = 2
MAX_PRIORS = 15
ALL_PRIORS = 1_000
MAX_CHANGES = 12
MAX_HISTORY_CHARS = 60_000
_OBJECT_PATH = re.compile(
    r"stages(\.\d+(\.(adapter|sampling|rewards(\.\d+)?|loss_type|loss_weights))?)?"
    r"|data(\.(where|source_weights|source_caps|teacher))?"
)
"""Paths whose values are objects or lists of them."""


class Change(Frozen):
    """One change: a dotted recipe path and its new value."""

    path: str
    value: bool | int | float | str | tuple[str, ...] | None


class ProposalReply(Frozen):
    """What the LLM returns."""

    hypothesis: Annotated[str, Field(min_length=1, max_length=1_000)]
    prediction: Annotated[str, Field(min_length=1, max_length=500)]
    diff: tuple[Change, ...]
    cites: tuple[str, ...]


class LlmPlanner:
    """Proposes by asking an LLM."""

    name = "llm"

    def __init__(self, client: LlmClient) -> None:
        self._client = client

    def ask(self, context: PlanContext) -> Proposal:
        """Return a checked proposal.

        Raises `LlmError` (kind `malformed`) when three replies in a row cannot be used, `TimeIsUpError`
        when all that is wrong with the last one is that its training would not end in time, and what the
        client raises.
        """
        messages = proposal_messages(context)
        salt = f"propose:{context.loop}"
        recipe: Recipe | None = None
        problems: list[str] = []
        for _ in range(1 + N_REASKS):
            reply, _usage = self._client.complete("propose", messages, ProposalReply, salt=salt)
            recipe, problems = check_reply(reply, context)
            if recipe is not None and not problems:
                return _proposal(reply, recipe, context)
            messages = (*messages, *_objection(reply, problems))
        broken = [] if recipe is None else check_recipe(recipe, context.rule_facts)
        if lacks_only_time(broken) and len(problems) == len(broken):
            raise TimeIsUpError(f"the LLM proposed no recipe that can end in the time left: {problems[0]}")
        raise LlmError(
            f"the LLM proposed no usable recipe in {1 + N_REASKS} tries: {'; '.join(problems)}",
            kind="malformed",
            hint="try another FT_PLANNER_MODEL, or --planner tpe",
        )


def proposal_messages(context: PlanContext) -> tuple[LlmMessage, ...]:
    """Return the prompt. Everything that data, logs or an LLM may have written is delimited."""
    space = space_of(context)
    salt = f"propose:{context.seed}:{context.loop}"
    return render_prompt(
        "propose",
        loop=context.loop,
        scorer=context.scorer or "the task's score",
        n_val=context.n_val,
        baseline="unknown" if context.baseline_val is None else f"{context.baseline_val:.1%}",
        data_facts=delimited("data facts", _bullets(_data_facts(context)), salt=salt),
        model_facts=delimited("model facts", _bullets(context.model_facts), salt=salt),
        machine_facts=delimited("machine facts", _bullets(context.machine_facts), salt=salt),
        default_recipe=recipe_text(context.default_recipe),
        parent_recipe=_parent_text(context),
        parent_label="the default recipe" if context.parent is None else f"loop {context.parent}",
        history=delimited("loops", history_table(context), salt=salt, max_chars=MAX_HISTORY_CHARS),
        recent_facts=delimited("facts of loops", _recent_facts(context), salt=salt),
        space="\n".join(_dimension_line(dimension, context) for dimension in space),
        script_limits=script_limits(context),
        scripts=earlier_scripts(context, salt=salt),
        priors=_bullets(tuple(prior.render() for prior in shown_priors(context, space))),
    )


def check_reply(reply: ProposalReply, context: PlanContext) -> tuple[Recipe | None, list[str]]:
    """Return the proposed recipe, if the diff gives one, and every problem of the reply."""
    problems: list[str] = []
    paths = [change.path for change in reply.diff]
    if not paths:
        problems.append("`diff` is empty: change at least one thing")
    if len(paths) > MAX_CHANGES:
        problems.append(f"`diff` has {len(paths)} changes; one idea needs at most {MAX_CHANGES}")
    doubled = sorted({path for path in paths if paths.count(path) > 1})
    if doubled:
        problems.append(f"`diff` names {', '.join(doubled)} more than once")
    unknown = sorted(set(reply.cites) - prior_ids())
    if unknown:
        problems.append(f"`cites` names {', '.join(unknown)}, which is no id of a known prior")
    if not re.search(r"\d", reply.prediction):
        problems.append("`prediction` has no number, so it could not fail")
    if not paths:
        return None, problems
    try:
        diff = {change.path: plain_value(change.path, change.value) for change in reply.diff}
        recipe = apply_diff(context.parent_recipe, diff)
    except RecipeError as error:
        return None, [*problems, *(problem.render() for problem in error.problems)]
    problems += [problem.render() for problem in check_recipe(recipe, context.rule_facts)]
    if recipe.hash == context.parent_recipe.hash:
        problems.append("`diff` changes nothing: every value is the parent's already")
    elif recipe.hash in tried_hashes(context):
        problems.append("this recipe was already trained; propose one that is not in the table")
    return recipe, problems


def _proposal(reply: ProposalReply, recipe: Recipe, context: PlanContext) -> Proposal:
    return Proposal(
        hypothesis=_one_line(reply.hypothesis),
        prediction=_one_line(reply.prediction),
        diff=recipe_diff(context.parent_recipe, recipe),
        cites=tuple(dict.fromkeys(reply.cites)),
        recipe=recipe,
        planner=LlmPlanner.name,
    )


def _objection(reply: ProposalReply, problems: list[str]) -> tuple[LlmMessage, ...]:
    echo = LlmMessage(role="assistant", content=reply.model_dump_json())
    return (echo, *render_prompt("reask", problems=_bullets(tuple(problems))))


def shown_priors(context: PlanContext, space: tuple[Dimension, ...]) -> tuple[Prior, ...]:
    """Return the priors for the prompt: those behind the search space, then the most specific others."""
    fitting: dict[str, Prior] = {}
    for _, stage in context.parent_recipe.trained_stages:
        for prior in matching_priors(
            method=stage.kind,
            adapter=stage.adapter.kind,
            n_params=context.rule_facts.n_params,
            n_rows=context.rule_facts.n_train_rows,
            limit=ALL_PRIORS,
        ):
            fitting.setdefault(prior.id, prior)
    behind = {dimension.prior_id for dimension in space}
    return tuple(sorted(fitting.values(), key=lambda prior: prior.id not in behind)[:MAX_PRIORS])


def _data_facts(context: PlanContext) -> tuple[str, ...]:
    sources = ", ".join(f"{name!r} {n} rows" for name, n in sorted(context.sources.items()))
    tokens = ", ".join(f"{name} {n}" for name, n in context.token_percentiles.items())
    return (
        *context.data_facts,
        *((f"sources in the train split: {sources}",) if sources else ()),
        *((f"tokens per row: {tokens}",) if tokens else ()),
    )


def _recent_facts(context: PlanContext) -> str:
    """Return the facts of the parent's loop and of the last two loops."""
    shown = {trial.loop for trial in context.trials[-2:]} | {context.parent}
    lines: list[str] = []
    for trial in context.trials:
        if trial.loop in shown:
            seconds = f", trained {trial.train_s:.0f} s" if trial.train_s is not None else ""
            lines.append(f"Loop {trial.loop} ({trial.status}{seconds}): {_one_line(trial.hypothesis)}")
            lines += [f"- {_one_line(fact)}" for fact in trial.facts]
    return "\n".join(lines) or "none"


def _dimension_line(dimension: Dimension, context: PlanContext) -> str:
    if dimension.kind == "categorical":
        allowed = " / ".join(canonical_json(choice) for choice in dimension.choices)
    else:
        allowed = f"{dimension.low:g} to {dimension.high:g}" + (" (log)" if dimension.log else "")
    cells = (
        dimension.path,
        dimension.kind,
        allowed,
        canonical_json(value_at(context.parent_recipe, dimension.path)),
        dimension.prior_id,
    )
    return " | ".join(cells)


def _parent_text(context: PlanContext) -> str:
    if context.parent_recipe == context.default_recipe:
        return "(the default recipe, as above)"
    return recipe_text(context.parent_recipe)


def plain_value(path: str, value: bool | int | float | str | tuple[str, ...] | None) -> Any:
    """Return a change's value. Objects and lists of them come as JSON text: a reply's schema has no place
    for them. Text that is no JSON stays text, and the recipe's schema says what is wrong with it.
    """
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, str) or not _OBJECT_PATH.fullmatch(path):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _bullets(texts: tuple[str, ...]) -> str:
    return "\n".join(f"- {text}" for text in texts) or "none"
