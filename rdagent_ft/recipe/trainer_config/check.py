"""All rules of a flat trainer config in one call. Cheap: no trainer, no model, no data needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdagent_ft.recipe.catalogue import Catalogue, Method
from rdagent_ft.recipe.edits import Finding, apply_to_values
from rdagent_ft.recipe.protected import check_protected
from rdagent_ft.recipe.trainer_config.adapters import check_adapters
from rdagent_ft.recipe.trainer_config.config import TrainerConfig
from rdagent_ft.recipe.trainer_config.dataset import check_dataset
from rdagent_ft.recipe.trainer_config.key_types import check_keys
from rdagent_ft.recipe.trainer_config.online import check_online
from rdagent_ft.recipe.trainer_config.packing import check_packing
from rdagent_ft.recipe.trainer_config.preference import check_preference
from rdagent_ft.recipe.trainer_config.ranges import check_ranges
from rdagent_ft.recipe.trainer_config.training import check_training


def check_trainer_config(
    values: Mapping[str, Any], method: Method, catalogue: Catalogue, folder: Path | None = None
) -> list[Finding]:
    """Return every finding, in the order of the file's keys; one key can have several.

    Args:
        values: the file's top-level keys.
        method: what the config trains.
        catalogue: keys of the trainer's version.
        folder: folder of the file; local paths in it are looked up there.
    """
    config = TrainerConfig(method=method, values=values, keys=catalogue.keys(method), folder=folder)
    found: list[Finding] = list(check_keys(config, catalogue))
    wrong_type = {item.problem.key for item in found if item.problem.problem_class == "config.bad_value"}
    # Rules read today's names and values, so that one old name does not cause a second problem.
    mended = apply_to_values(dict(values), tuple(edit for item in found for edit in item.edits))
    config = TrainerConfig(method=method, values=mended, keys=config.keys, folder=folder)
    later = [
        *check_protected(values),
        *check_ranges(config),
        *check_training(config),
        *check_packing(config),
        *check_adapters(config),
        *check_preference(config),
        *check_online(config),
        *check_dataset(config, catalogue),
    ]
    found += [item for item in later if item.problem.key not in wrong_type]
    order = {key: place for place, key in enumerate(values)}
    return sorted(found, key=lambda item: order.get(item.problem.key.split(".")[0], len(order)))
