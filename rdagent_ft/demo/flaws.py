"""The flaws that the demo plants in its dataset, so that hypotheses have something to find.

Splits are drawn from all rows by hash, so wrong labels reach val and test too. That is how real
data is, and it sets the ceiling: nobody can score more than about `1 - wrong share` (about 96 %).
Nothing here is marked in the written file except by `source`.
"""

from __future__ import annotations

import random
from typing import Literal

from rdagent_ft.demo.router_phrases import LOG_PARTS
from rdagent_ft.demo.router_task import RouterItem, fill
from rdagent_ft.values import Frozen

Source = Literal["traces", "support", "scraped"]
SOURCE_SHARES: dict[Source, float] = {"traces": 0.58, "support": 0.28, "scraped": 0.14}
NOISY_SOURCE: Source = "scraped"
NOISE_SHARE = 0.28  # of the noisy source's distinct rows: about 4 % of all distinct rows
# Under 1 %: a trainer that sizes its rows by the 99th percentile leaves them out by itself.
LONG_SHARE = 0.007  # of all distinct rows
LONG_ROW_LOG_LINES = (18, 26)
CRAWL_REPEATS = (2, 4)  # extra copies of a crawled row
REPEATED_SHARE = 0.20  # of the noisy source's distinct rows
STRAY_COPY_SHARE = 0.02  # of the other rows, one extra copy each


class DemoRow(Frozen):
    """One row of the written file. `wrong` and `long` are known to the generator only."""

    prompt: str
    completion: str
    source: Source
    wrong: bool = False
    long: bool = False

    def as_columns(self) -> dict[str, str]:
        """Return what the file shows: prompt, completion, source."""
        return {"prompt": self.prompt, "completion": self.completion, "source": self.source}


def with_flaws(items: list[RouterItem], seed: int) -> list[DemoRow]:
    """Return the rows of a dataset: sources given, noise, log tails and copies added, shuffled.

    Shares: see the constants. Wrong labels come from the noisy source only and are the plan of
    another action, a plan in an old form, or a cut plan.
    """
    rng = random.Random(f"flaws-{seed}")
    plans = [item.plan for item in items]
    rows = [_flawed(item, plans, rng) for item in items]
    rows += _copies(rows, rng)
    rng.shuffle(rows)
    return rows


def shuffled_labels(items: list[RouterItem], seed: int) -> list[RouterItem]:
    """Return the items with their plans permuted: the control in which nothing can be learned."""
    plans = [item.plan for item in items]
    random.Random(f"shuffled-{seed}").shuffle(plans)
    return [item.model_copy(update={"plan": plan}) for item, plan in zip(items, plans, strict=True)]


def _flawed(item: RouterItem, plans: list[str], rng: random.Random) -> DemoRow:
    """Return the row of one item with a source and, by chance, a wrong label or a pasted log."""
    source = rng.choices(list(SOURCE_SHARES), weights=list(SOURCE_SHARES.values()))[0]
    wrong = source == NOISY_SOURCE and rng.random() < NOISE_SHARE
    long = rng.random() < LONG_SHARE
    return DemoRow(
        prompt=item.request + ("\n" + _pasted_log(rng) if long else ""),
        completion=_wrong_plan(item.plan, plans, rng) if wrong else item.plan,
        source=source,
        wrong=wrong,
        long=long,
    )


def _wrong_plan(plan: str, plans: list[str], rng: random.Random) -> str:
    """Return a label that is not `plan`: mostly of another item, else an old form or a cut one."""
    draw = rng.random()
    if draw < 0.7:
        return next(other for other in iter(lambda: rng.choice(plans), None) if other != plan)
    if draw < 0.95:
        return plan.replace('"route"', '"agent"')
    return plan[: -len("se}")]


def _pasted_log(rng: random.Random) -> str:
    """Return log lines as somebody pastes them below a request."""
    lines = (fill(rng.choice(LOG_PARTS), rng) for _ in range(rng.randint(*LONG_ROW_LOG_LINES)))
    return "\n".join(lines)


def _copies(rows: list[DemoRow], rng: random.Random) -> list[DemoRow]:
    """Return exact copies: the crawler visited some pages several times, and a few strays."""
    copies: list[DemoRow] = []
    for row in rows:
        if row.source == NOISY_SOURCE:
            if rng.random() < REPEATED_SHARE:
                copies += [row] * rng.randint(*CRAWL_REPEATS)
        elif rng.random() < STRAY_COPY_SHARE:
            copies.append(row)
    return copies
