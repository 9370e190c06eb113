# pyright: basic
"""lm-eval's own API model classes, with our sending, our record and our idea of no answer.

Only the endpoint job imports this: lm_eval and datasets load at import (no torch). lm-eval builds the
requests, the bodies and the metrics. Four things differ from its stock classes, each for a reason:

- one failed request is one unanswered item; the stock classes end the whole run with it;
- null content is no answer; the stock classes make it an empty one, which then is wrong;
- what was answered is kept per item, repeat and fingerprint; lm-eval's cache knows no model;
- the key of another service is never sent: the stock header is always OPENAI_API_KEY.

Unanswered items are left out of lm-eval's means too: it evaluates a second time, with its own
`samples=`, over what was answered, and nothing is sent in that pass. Prompts are never cut here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import datasets
from lm_eval.evaluator import evaluate
from lm_eval.models.api_models import JsonChatStr
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
from lm_eval.tasks import TaskManager

from rdagent_ft.evaluation.endpoint.asked import Asked
from rdagent_ft.evaluation.endpoint.asking import PATHS, Exchange, ask_all
from rdagent_ft.evaluation.endpoint.replies import check_echo, read_generated
from rdagent_ft.evaluation.endpoint.request import gold_indexes
from rdagent_ft.evaluation.endpoint.sender import Refused, Reply
from rdagent_ft.evaluation.items import Answer, EvalItem

_Completions: Any = LocalCompletionsAPI  # their decorator hides their type
_Chat: Any = LocalChatCompletion


class CompletionsModel(_Completions):
    """lm-eval's `local-completions`: rendered prompts, and log-probabilities of choices."""

    asked: Asked

    def generate_until(self, requests, disable_tqdm=False):
        """Return one text a request; "" for an unanswered one (never counted, see the module)."""
        return _generate(self, requests, str)

    def tok_encode(self, string, left_truncate_len=None, add_special_tokens=None, **kwargs):
        """Return the ids as the server has them: with its special tokens for plain prompts only."""
        add_special = self.asked.request.prompt_format == "plain" and add_special_tokens is not False
        tokenizer: Any = self.asked.tokenizer
        return tokenizer.encode(string, add_special_tokens=add_special).ids

    def loglikelihood(self, requests, disable_tqdm=False):
        """Return (log-probability, is greedy) of each choice; one request an item, all choices in it."""
        asked = self.asked
        by_number: dict[int, list[Any]] = {}
        for request in requests:
            by_number.setdefault(request.doc["number"], []).append(request)
        exchanges = [
            _choosing(self, number, found) for number, found in by_number.items() if not asked.known(number)
        ]
        ask_all(exchanges, asked.target, asked.request.retry, asked.key)
        nothing = [(0.0, False)] * max((len(found) for found in by_number.values()), default=0)
        return [
            (asked.outcomes[request.doc["number"]].logprobs or nothing)[request.idx] for request in requests
        ]


class ChatModel(_Chat):
    """lm-eval's `local-chat-completions`: messages, for which the server applies its template."""

    asked: Asked

    def generate_until(self, requests, disable_tqdm=False):
        """Return one text a request; "" for an unanswered one (never counted, see the module)."""
        return _generate(self, requests, JsonChatStr)


def answer_task(asked: Asked) -> tuple[list[Answer], dict[str, Any], dict[str, Any] | None]:
    """Put one task to one target through lm-eval's evaluator.

    Returns the answers in item order and then by repeat, the facts for `aggregate.json`, and lm-eval's
    own results (None when nothing was answered). Raises `EndpointError` and `OSError`.
    """
    started = time.monotonic()
    lm = _model(asked)
    name = f"rdft_{asked.task.benchmark}_{asked.task.split}"
    limit = _generation_limit(asked, lm)
    config = _task_config(name, asked, limit)
    results: Any = _evaluate(lm, config, None)
    n_questions = len(asked.items) * asked.task.repeats
    answered = [n for n in range(n_questions) if asked.outcomes[n].answer.unanswered is None]
    if 0 < len(answered) < n_questions:
        results = _evaluate(lm, config, {name: answered})
    answers = [asked.outcomes[number].answer for number in range(n_questions)]
    metric = "acc,none" if asked.task.method == "choose" else "exact_match,none"
    if answered:
        logged = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
        if [sample["doc_id"] for sample in logged] != answered:
            raise RuntimeError(f"lm-eval counted {len(logged)} answers, {len(answered)} were given")
        for number, sample in zip(answered, logged, strict=True):
            _check_sample(asked, number, sample)
    facts = {
        "benchmark": asked.task.benchmark,
        "split": asked.task.split,
        "n": len(answers),
        "n_unanswered": len(answers) - len(answered),
        "exact_match": float(results["results"][name][metric]) if answered else None,
        "max_gen_toks": limit,
        "n_truncated_prompts": sum(answer.prompt_truncated for answer in answers),
        "seconds": round(time.monotonic() - started, 3),
    }
    return answers, facts, results if answered else None


def _model(asked: Asked) -> Any:
    build: Any = ChatModel if asked.target.protocol == "chat" else CompletionsModel
    lm = build(
        model=asked.target.model,
        base_url=asked.target.base_url.rstrip("/") + PATHS[asked.target.protocol],
        tokenizer_backend=None,  # its own loader asks the server or the hub; ours is in `tok_encode`
        tokenized_requests=False,
        num_concurrent=asked.target.concurrency,
        seed=asked.request.seed,
    )
    lm.asked = asked
    return lm


def _evaluate(lm: Any, config: dict[str, Any], samples: dict[str, list[int]] | None) -> Any:
    loaded: Any = TaskManager(include_defaults=False).load([config])
    results = evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0, log_samples=True, samples=samples)
    if results is None:
        raise RuntimeError("lm-eval returned no results")
    return results


def _check_sample(asked: Asked, number: int, sample: dict[str, Any]) -> None:
    """Hold what lm-eval sent and counted against what is recorded."""
    item, _ = asked.question(number)
    sent = sample["arguments"][0][0]
    answer = asked.outcomes[number].answer
    if asked.task.method == "choose":
        texts = [argument[1] for argument in sample["arguments"]]
        agrees = sent == item.prompt and texts == list(item.choices)
    else:
        agrees = sent == _prompt_text(asked, item) and sample["resps"][0][0] == answer.prediction
    if not agrees:
        raise RuntimeError(f"item {item.item_id} was asked or counted as something else")


def _generate(lm: Any, requests: list[Any], wrap: Callable[[str], Any]) -> list[str]:
    asked: Asked = lm.asked
    exchanges = [
        _generating(lm, request, wrap) for request in requests if not asked.known(request.doc["number"])
    ]
    ask_all(exchanges, asked.target, asked.request.retry, asked.key)
    return [asked.outcomes[request.doc["number"]].answer.prediction for request in requests]


def _generating(lm: Any, request: Any, wrap: Callable[[str], Any]) -> Exchange:
    asked: Asked = lm.asked
    prompt, options = request.args
    number = request.doc["number"]
    item, repeat = asked.question(number)
    payload = lm._create_payload(
        lm.create_message([wrap(prompt)]),
        generate=True,
        gen_kwargs=json.loads(json.dumps(options)),  # it takes keys out of what it is given
        seed=asked.seed(item.item_id, repeat),
    )
    if not payload["stop"]:
        del payload["stop"]

    def settle(found: Reply | Refused) -> None:
        if isinstance(found, Refused):
            asked.refused(number, found)
            return
        said = read_generated(found.body, asked.target.protocol)
        text = "" if said.unanswered else lm.parse_generations(outputs=found.body)[0]
        facts = {"prediction": text, **said._asdict(), "latency_s": round(found.latency_s, 4)}
        asked.note(number, facts)

    return Exchange({**payload, **_extra(asked)}, settle)


def _choosing(lm: Any, number: int, requests: list[Any]) -> Exchange:
    asked: Asked = lm.asked
    item, _ = asked.question(number)
    pairs = [request.args for request in requests]
    ids = [lm.tok_encode(context + choice) for context, choice in pairs]
    # Blanks at the end of a prompt belong to the choice, as lm-eval's _encode_pair has it.
    ctxlens = [len(lm._encode_pair(context, choice)[0]) for context, choice in pairs]
    payload = lm._create_payload(
        [context + choice for context, choice in pairs], generate=False, seed=asked.request.seed
    )

    def settle(found: Reply | Refused) -> None:
        if isinstance(found, Refused):
            asked.refused(number, found)
            return
        if any(ctxlen >= len(own) for ctxlen, own in zip(ctxlens, ids, strict=True)):
            asked.refused(number, Refused("a choice has no token of its own after this prompt"))
            return
        reason = check_echo(found.body, ids, ctxlens)
        if reason is not None:
            asked.refused(number, Refused(reason))
            return
        scored = lm.parse_logprobs(outputs=found.body, tokens=ids, ctxlens=ctxlens)
        logprobs = tuple((float(value), bool(is_greedy)) for value, is_greedy in scored)
        values = [value for value, _ in logprobs]
        per_character = [value / len(text) for value, text in zip(values, item.choices, strict=True)]
        facts = {
            "prediction": item.choices[values.index(max(values))],
            "normalised_prediction": item.choices[per_character.index(max(per_character))],
            "latency_s": round(found.latency_s, 4),
        }
        asked.note(number, facts, logprobs)

    return Exchange({**payload, "return_token_ids": True, **_extra(asked)}, settle)


def _extra(asked: Asked) -> dict[str, Any]:
    """Return what the body gets beside lm-eval's keys; the target's own keys come last."""
    if asked.target.protocol == "chat":
        return asked.target.extra_body
    return {"add_special_tokens": asked.request.prompt_format == "plain", **asked.target.extra_body}


def _generation_limit(asked: Asked, lm: Any) -> int:
    """Return the tokens an answer may have: what was asked, as far as the longest prompt leaves room.

    The rule of `lm_eval_model.generation_limit`. It needs the tokenizer and the server's word on its
    context; without them the server refuses what does not fit, and those items are unanswered.
    """
    wanted = asked.task.max_new_tokens
    if asked.tokenizer is None or asked.max_model_len is None or asked.target.protocol == "chat":
        return wanted
    longest = max(len(lm.tok_encode(item.prompt)) for item in asked.items)
    room = max(asked.max_model_len - longest, asked.max_model_len // 2)
    return max(1, min(wanted, room))


def _prompt_text(asked: Asked, item: EvalItem) -> str:
    if asked.target.protocol == "chat" and asked.task.method == "generate":
        return json.dumps([turn.model_dump() for turn in item.messages], ensure_ascii=False)
    return item.prompt


def _task_config(name: str, asked: Asked, limit: int) -> dict[str, Any]:
    """Return the task as lm-eval takes it; its metric is plain equality after strip, or accuracy."""
    is_choice = asked.task.method == "choose"
    records = []
    for number in range(len(asked.items) * asked.task.repeats):
        item, _ = asked.question(number)
        record = {"number": number, "prompt": _prompt_text(asked, item), "gold": item.gold}
        if is_choice:
            record |= {"choices": list(item.choices), "golds": gold_indexes(item)}
        records.append(record)

    def dataset(**_: Any):
        # Built in memory: the JSON loader of datasets turns text that looks like a date into one.
        return datasets.DatasetDict({"test": datasets.Dataset.from_list(records)})

    base = {
        "task": name,
        "custom_dataset": dataset,
        "test_split": "test",
        "doc_to_text": "prompt",
        "num_fewshot": 0,
        "metadata": {"version": 1.0},
    }
    if is_choice:
        metrics = [
            {"metric": found, "aggregation": "mean", "higher_is_better": True}
            for found in ("acc", "acc_norm")
        ]
        return base | {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "golds",
            "target_delimiter": "",
            "metric_list": metrics,
        }
    return base | {
        "output_type": "generate_until",
        "doc_to_target": "gold",
        "generation_kwargs": {
            "until": [],
            "do_sample": asked.task.temperature > 0,
            "temperature": asked.task.temperature,
            "max_gen_toks": limit,
        },
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "regexes_to_ignore": [r"\A\s+", r"\s+\Z"],
            }
        ],
    }
