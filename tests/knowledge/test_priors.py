"""Priors are well formed, unique, and found by scope."""

from __future__ import annotations

import re
from pathlib import Path

from rdagent_ft.knowledge.store import load_priors, matching_priors, prior_ids
from rdagent_ft.recipe.diff import known_paths
from rdagent_ft.recipe.schema import Recipe


def test_every_id_is_unique_and_every_path_is_a_recipe_path() -> None:
    priors = load_priors()
    assert len(priors) == len(prior_ids()) >= 45
    paths = {prior.path for prior in priors if prior.path}
    assert paths <= set(known_paths(Recipe()))


def test_every_id_cited_in_the_package_resolves(repository: Path) -> None:
    folder = repository / "rdagent_ft" / "recipe"
    cited: set[str] = set()
    for path in folder.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        cited |= set(re.findall(r"\b((?:sft|lora|qlora|dpo|grpo|data)-[a-z0-9]+(?:-[a-z0-9]+)*)\b", text))
    cited -= {"data-path", "data-scripts"}  # a rule of the template and a page, no ids
    assert len(cited) > 15
    assert cited <= prior_ids()


def test_matching_puts_the_most_specific_first_and_stops_at_the_limit() -> None:
    tiny = matching_priors(method="sft", adapter="full", n_params=2_000_000, n_rows=3000)
    assert tiny[0].id == "sft-tiny-full-lr"
    assert "sft-full-lr" not in {prior.id for prior in tiny}
    real = matching_priors(method="sft", adapter="lora", n_params=8_000_000_000, n_rows=3000)
    ids = {prior.id for prior in real}
    assert "sft-lora-lr-large-model" in ids
    assert "lora-rank-small-data" in ids
    assert "lora-rank-large-data" not in ids
    assert not {"sft-full-lr", "dpo-beta", "grpo-full-lr"} & ids
    assert len(matching_priors(method="sft", adapter=None, n_params=None, n_rows=None, limit=4)) == 4
    assert {
        prior.id for prior in matching_priors(method="dpo", adapter="full", n_params=None, n_rows=None)
    } >= {
        "dpo-full-lr",
        "dpo-beta",
    }


def test_a_prior_reads_as_one_line_with_id_and_source() -> None:
    for prior in load_priors():
        line = prior.render()
        assert line.startswith(f"[{prior.id}]")
        assert "\n" not in line
        assert prior.source in line
