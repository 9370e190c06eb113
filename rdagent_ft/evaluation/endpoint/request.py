"""What an evaluation through an endpoint is asked to do, and everything that can be wrong with it.

A model is an address here, not a folder: nothing is loaded, and a key is named, never written down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from rdagent_ft.data.rows import SplitName
from rdagent_ft.errors import Problem
from rdagent_ft.evaluation.items import EvalItem, read_items
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.rows import PromptFormat
from rdagent_ft.values import Frozen

Protocol = Literal["completions", "chat"]
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,80}")


class EndpointTarget(Frozen):
    """One model behind an endpoint.

    Attributes:
        role: `base` or `tuned`; part of the output file names.
        base_url: up to and with the version, e.g. `http://127.0.0.1:8000/v1`.
        model: the name that the server knows.
        protocol: `completions` sends the rendered prompt, `chat` the messages (the server renders).
        api_key_env: name of the environment variable that holds the key; None sends no key at all.
        tokenizer: folder with the model's `tokenizer.json`; needed for `method="choose"` alone.
        concurrency: requests in flight.
        request_timeout_s: one request from first byte sent to last byte read.
        extra_body: further keys of every request body, as the server documents them.
        only: (benchmark, split) of the tasks it is asked; None means all of the request.
    """

    role: str
    base_url: str
    model: str
    protocol: Protocol = "completions"
    api_key_env: str | None = None
    tokenizer: Path | None = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    request_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    extra_body: dict[str, Any] = {}
    only: tuple[tuple[str, SplitName], ...] | None = None


class RetryRules(Frozen):
    """How often and how patiently one request is sent.

    Attributes:
        n_tries: sendings of one request, the first one included.
        backoff_s, backoff_cap_s: the wait before try k+1 is uniform between 0 and
            min(cap, backoff * 2**k), so that clients do not come back together ("full jitter").
        retry_after_cap_s: longest `Retry-After` that is honoured in full.
        breaker: requests failed for good, one after the other, that end the job.
    """

    n_tries: Annotated[int, Field(ge=1, le=20)] = 5
    backoff_s: Annotated[float, Field(ge=0)] = 1.0
    backoff_cap_s: Annotated[float, Field(ge=0)] = 60.0
    retry_after_cap_s: Annotated[float, Field(ge=0)] = 300.0
    breaker: Annotated[int, Field(ge=1)] = 20


class EndpointRequest(Frozen):
    """Everything that the endpoint harness needs: targets x tasks under one protocol.

    Attributes:
        targets: asked in this order in one job.
        tasks: benchmark splits.
        prompt_format: how the items' prompts were rendered; `plain` asks the server for its
            tokenizer's special tokens, `chat` (template applied) asks it to add none.
        fingerprint: identity of everything that decides an answer and is not in this request: weights,
            server version, chat template. Stored answers of another fingerprint are never used.
        seed: seeds sampling; each (item, repeat) gets its own derived from it.
    """

    targets: tuple[EndpointTarget, ...]
    tasks: tuple[EvalTask, ...]
    prompt_format: PromptFormat
    fingerprint: Annotated[str, Field(min_length=1)]
    seed: int = 1234
    retry: RetryRules = RetryRules()

    def pairs(self) -> list[tuple[EndpointTarget, EvalTask]]:
        """Return who is asked what, in the order of the job."""
        return [
            (target, task)
            for target in self.targets
            for task in self.tasks
            if target.only is None or (task.benchmark, task.split) in target.only
        ]


def problems_of(request: EndpointRequest) -> tuple[Problem, ...]:
    """Return everything that is wrong with the request. Raises `JobError` for unreadable items."""
    found: list[Problem] = []
    found += _name_problems(request)
    for target in request.targets:
        asked = [task for asked, task in request.pairs() if asked == target]
        found += _target_problems(target, asked)
    for task in request.tasks:
        askers = [target for target, asked in request.pairs() if asked == task]
        found += _task_problems(task)
        found += _item_problems(task, read_items(task.items_file, task.n_items), askers)
    return tuple(found)


def _name_problems(request: EndpointRequest) -> list[Problem]:
    found: list[Problem] = []
    if not request.pairs():
        found.append(_problem("targets", None, "nothing to ask or nobody to ask", "name a model and a task"))
    for key, names in (
        ("targets.role", [target.role for target in request.targets]),
        ("tasks.benchmark", [f"{task.benchmark}-{task.split}" for task in request.tasks]),
    ):
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            found.append(_problem(key, ", ".join(doubled), "named twice", "give each its own name"))
        found += [
            _problem(key, name, "cannot be part of a file name", "use letters, digits, `-`, `_` and `.`")
            for name in names
            if not _SLUG.fullmatch(name)
        ]
    return found


def _target_problems(target: EndpointTarget, tasks: Sequence[EvalTask]) -> list[Problem]:
    found: list[Problem] = []
    key = f"targets.{target.role}"
    address = urlsplit(target.base_url)
    if address.scheme not in {"http", "https"} or not address.hostname:
        found.append(
            _problem(
                f"{key}.base_url", target.base_url, "no http(s) address", "e.g. http://127.0.0.1:8000/v1"
            )
        )
    if address.username or address.password or address.query:
        found.append(
            _problem(f"{key}.base_url", None, "holds a secret or a query", "name the key's variable instead")
        )
    chosen = sorted({task.benchmark for task in tasks if task.method == "choose"})
    if chosen and target.protocol == "chat":
        found.append(
            _problem(
                f"{key}.protocol",
                "chat",
                f"{', '.join(chosen)}: choosing by log-probability needs the log-probabilities of a given "
                "text, which chat endpoints do not return",
                "leave these benchmarks out, or serve the model with vLLM and use its completions protocol",
            )
        )
    elif chosen and (target.tokenizer is None or not (target.tokenizer / "tokenizer.json").is_file()):
        found.append(
            _problem(
                f"{key}.tokenizer",
                None if target.tokenizer is None else str(target.tokenizer),
                f"{', '.join(chosen)}: choosing by log-probability needs the model's tokenizer.json",
                "give the folder of the model's tokenizer",
            )
        )
    return found


def _task_problems(task: EvalTask) -> list[Problem]:
    if task.repeats > 1 and (task.temperature <= 0 or task.method == "choose"):
        return [
            _problem(
                f"tasks.{task.benchmark}.repeats",
                task.repeats,
                "repeats of a greedy answer are copies of it",
                "set a temperature above 0, or one repeat",
            )
        ]
    return []


def _item_problems(
    task: EvalTask, items: Sequence[EvalItem], targets: Sequence[EndpointTarget]
) -> list[Problem]:
    is_asked_in_text = task.method == "choose" or any(target.protocol == "completions" for target in targets)
    is_asked_in_turns = task.method == "generate" and any(target.protocol == "chat" for target in targets)
    is_choice = task.method == "choose"
    rules = (
        ("prompt", "is empty", [item for item in items if is_asked_in_text and not item.prompt]),
        (
            "messages",
            "no messages for a chat endpoint",
            [item for item in items if is_asked_in_turns and not item.messages],
        ),
        (
            "choices",
            "fewer than two choices, or an empty one",
            [item for item in items if is_choice and (len(item.choices) < 2 or "" in item.choices)],
        ),
        ("gold", "is none of the choices", [item for item in items if is_choice and not gold_indexes(item)]),
    )
    found: list[Problem] = []
    for key, rule, broken in rules:
        if broken:
            shown = ", ".join(item.item_id for item in broken[:5])
            found.append(
                _problem(
                    f"tasks.{task.benchmark}.{key}",
                    f"{len(broken)} items ({shown})",
                    rule,
                    "prepare these items anew, or leave the benchmark out for this endpoint",
                )
            )
    return found


def gold_indexes(item: EvalItem) -> list[int]:
    """Return the places of the choices that say what the reference says, outer blanks apart."""
    wanted = item.gold.strip()
    return [number for number, choice in enumerate(item.choices) if choice.strip() == wanted]


def _problem(key: str, value: Any, rule: str, fix: str) -> Problem:
    return Problem(key, value, rule, "evaluation.endpoint", fix)
