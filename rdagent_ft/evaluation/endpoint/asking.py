"""Asking many questions at once and noting each outcome the moment it is known.

A question that cannot be answered is an outcome like any other; only what concerns all of them
(`EndpointError`, a full disk) stops the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from rdagent_ft.evaluation.endpoint.request import EndpointTarget, RetryRules
from rdagent_ft.evaluation.endpoint.sender import Refused, Reply, Sender

PATHS = {"completions": "/completions", "chat": "/chat/completions"}


class Exchange(NamedTuple):
    """One question as it is sent.

    Attributes:
        payload: the request body.
        settle: called once with what came back; stores the outcome.
    """

    payload: dict[str, Any]
    settle: Callable[[Reply | Refused], None]


def ask_all(
    exchanges: Sequence[Exchange], target: EndpointTarget, rules: RetryRules, key: str | None
) -> None:
    """Send all exchanges, `target.concurrency` at a time. Raises what a `settle` or the sender raised."""
    asyncio.run(_ask_all(iter(exchanges), target, rules, key))


def describe_server(target: EndpointTarget, rules: RetryRules, key: str | None) -> dict[str, Any]:
    """Return the entry of the target's model in `/models`; {} where the server does not list it.

    Raises `EndpointError` when the server cannot be reached or refuses the key.
    """

    async def get() -> Reply | Refused:
        async with Sender(target, rules, key) as sender:
            return await sender.get("/models")

    found = asyncio.run(get())
    listed: Any = found.body.get("data") if isinstance(found, Reply) else None
    for entry in cast("list[Any]", listed) if isinstance(listed, list) else []:
        if isinstance(entry, dict) and cast("dict[str, Any]", entry).get("id") == target.model:
            return cast("dict[str, Any]", entry)
    return {}


async def _ask_all(
    exchanges: Iterator[Exchange], target: EndpointTarget, rules: RetryRules, key: str | None
) -> None:
    async with Sender(target, rules, key) as sender:
        workers = [
            asyncio.create_task(_work(exchanges, sender, PATHS[target.protocol]))
            for _ in range(target.concurrency)
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


async def _work(exchanges: Iterator[Exchange], sender: Sender, path: str) -> None:
    for exchange in exchanges:
        exchange.settle(await sender.post(path, exchange.payload))
