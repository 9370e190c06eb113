# pyright: basic
"""One model's answers to one task through lm-eval's evaluator: text, or the likeliest of the choices.

Only the evaluation job imports this. Tasks are built in memory from rendered items; lm-eval's metric is
plain equality and serves as a cross-check. Scores are computed elsewhere, from the answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import datasets
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager


class Answered(NamedTuple):
    """What one model answered to one task, in item order, and lm-eval's own summary of it.

    `results` is what lm-eval's evaluator returned, samples included; repeats are further documents.
    """

    answers: list[dict[str, Any]]
    facts: dict[str, Any]
    results: dict[str, Any]


def answer(lm: Any, task: dict, items: list[dict], on_progress: Callable[..., None]) -> Answered:
    """Answer all items of one task, each as often as the task says.

    `lm` is the model of one backend (`lm_eval_model`, `lm_eval_vllm`). A sampled answer depends on the
    repeat, its batch and nothing else that changes: the generator is seeded before each repeat.
    """
    started = time.monotonic()
    lengths = [len(lm.encode(item["prompt"])) for item in items]
    limit = generation_limit(task["max_new_tokens"], max(lengths), lm.max_length)
    lm.temperature, lm.repetition_penalty = task["temperature"], task["repetition_penalty"]
    lm.on_batch = on_progress
    answers, means, evaluated = [], [], []
    for repeat in range(task["repeats"]):
        lm.start_repeat(repeat)
        if task["method"] == "choose":
            texts, mean, results = _chosen(lm, task, items)
            on_progress(len(items))
        else:
            texts, mean, results = _generated(lm, task, items, limit)
        means.append(mean)
        evaluated.append(results)
        for item, n_prompt, (prompt, prediction) in zip(items, lengths, texts, strict=True):
            finish_reason, n_tokens = lm.endings.get(prompt, (None, None))
            answers.append(
                {
                    "item_id": item["item_id"],
                    "repeat": repeat,
                    "prompt": prompt,
                    "prediction": prediction,
                    "finish_reason": finish_reason,
                    "n_tokens": n_tokens,
                    "prompt_truncated": n_prompt > lm.max_length - limit,
                }
            )
    on_progress(0, last=True)
    facts = {
        "benchmark": task["benchmark"],
        "split": task["split"],
        "n": len(answers),
        "exact_match": sum(means) / len(means),
        "max_gen_toks": limit,
        "n_truncated_prompts": sum(entry["prompt_truncated"] for entry in answers),
        "seconds": round(time.monotonic() - started, 3),
    }
    return Answered(answers, facts, _as_one(_name(task), evaluated))


def generation_limit(max_new_tokens: int, longest_prompt: int, max_positions: int) -> int:
    """Return the tokens an answer may have: what was asked, as far as the longest prompt leaves room.

    Half of the context is always for the answer; a prompt over the rest is cut and marked.
    """
    room = max(max_positions - longest_prompt, max_positions // 2)
    return max(1, min(max_new_tokens, room))


def _generated(lm: Any, task: dict, items: list[dict], limit: int) -> tuple[list, float, dict]:
    """Return [(prompt that lm-eval really sent, text)], lm-eval's mean of exact matches, its results."""
    name = _name(task)
    logged, results = _evaluated(lm, name, _generation_task(name, items, limit, lm))
    texts = [(sample["arguments"][0][0], sample["resps"][0][0]) for sample in logged]
    return texts, float(results["results"][name]["exact_match,none"]), results


def _chosen(lm: Any, task: dict, items: list[dict]) -> tuple[list, float, dict]:
    """Return [(prompt, likeliest choice)], lm-eval's own share of right choices, its results."""
    name = _name(task)
    unknown = [item["item_id"] for item in items if item["gold"] not in item["choices"]]
    if unknown:
        raise ValueError(f"{len(unknown)} items have a reference that is no choice: {unknown[:5]}")
    logged, results = _evaluated(lm, name, _choice_task(name, items))
    texts = []
    for item, sample in zip(items, logged, strict=True):
        likelihoods = [float(pair[0]) for pair in sample["filtered_resps"]]
        best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
        texts.append((sample["arguments"][0][0], item["choices"][best]))
    return texts, float(results["results"][name]["acc,none"]), results


def _evaluated(lm: Any, name: str, config: dict[str, Any]) -> tuple[list[dict], dict]:
    """Return lm-eval's samples in item order and all that it returned."""
    loaded: Any = TaskManager(include_defaults=False).load([config])
    results: Any = evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0, log_samples=True)
    if results is None:
        raise RuntimeError("lm-eval returned no results")
    logged = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    n_items = results["n-samples"][name]["original"]
    if len(logged) != n_items:
        raise RuntimeError(f"lm-eval answered {len(logged)} of {n_items} items")
    return logged, results


def _as_one(name: str, evaluated: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the results of all repeats as those of one task with as many times more documents."""
    first = evaluated[0]
    if len(evaluated) == 1:
        return first
    n_items = first["n-samples"][name]["original"]
    samples = [
        {**sample, "doc_id": sample["doc_id"] + repeat * n_items}
        for repeat, results in enumerate(evaluated)
        for sample in results["samples"][name]
    ]
    metrics = {
        # Standard errors of single repeats are not those of all of them.
        key: sum(results["results"][name][key] for results in evaluated) / len(evaluated)
        for key, value in first["results"][name].items()
        if isinstance(value, float) and "_stderr" not in key
    }
    counts = {key: n * len(evaluated) for key, n in first["n-samples"][name].items()}
    return {
        **first,
        "samples": {name: samples},
        "results": {name: {**first["results"][name], **metrics}},
        "n-samples": {name: counts},
    }


def _name(task: dict) -> str:
    return f"rdft_{task['benchmark']}_{task['split']}"


def _in_memory(records: list[dict]) -> Callable[..., Any]:
    def dataset(**_: Any):
        # Built in memory: the JSON loader of datasets turns text that looks like a date into one.
        return datasets.DatasetDict({"test": datasets.Dataset.from_list(records)})

    return dataset


def _generation_task(name: str, items: list[dict], limit: int, lm: Any) -> dict[str, Any]:
    """Return the task as lm-eval takes it; its metric is plain equality after strip."""
    return {
        "task": name,
        "custom_dataset": _in_memory([{"prompt": item["prompt"], "gold": item["gold"]} for item in items]),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "gold",
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": [lm.tokenizer.decode(lm.tokenizer.eos_token_id)],
            "do_sample": False,
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
        "metadata": {"version": 1.0},
    }


def _choice_task(name: str, items: list[dict]) -> dict[str, Any]:
    """Return the task as lm-eval takes it: continuations are scored right after the prompt."""
    records = [
        {
            "prompt": item["prompt"],
            "choices": list(item["choices"]),
            "gold": item["choices"].index(item["gold"]),
        }
        for item in items
    ]
    return {
        "task": name,
        "custom_dataset": _in_memory(records),
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
