"""Which keys a trainer knows: names, types, defaults and choices, as introspected from its code.

The data lies in `catalogues/<trainer>-<version>.json` and is made by `scripts/make_trl_catalogue.py`
in the training environment, so that a config is judged without importing the trainer. Limits that
the trainer keeps only in its code (ranges, cross-field rules) are in `trainer_config/`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from rdagent_ft.errors import PreflightError
from rdagent_ft.values import Frozen

TrainerName = Literal["trl"]
Method = Literal["sft", "dpo", "kto", "reward", "grpo", "rloo", "distillation"]
METHODS: tuple[Method, ...] = ("sft", "dpo", "kto", "reward", "grpo", "rloo", "distillation")
_FOLDER = Path(__file__).resolve().parent / "catalogues"


def trl_method(kind: Literal["sft", "dpo", "kto", "reward", "grpo", "distill"]) -> Method:
    """Return TRL's name of a recipe's stage kind."""
    return "distillation" if kind == "distill" else kind


class TrainerKey(Frozen):
    """One key of a trainer's config.

    Attributes:
        types: JSON type names that the parser takes: bool, int, float, str, dict, list, list[str]…
        default: value when the key is absent, as JSON.
        nullable: whether null is a value.
        choices: allowed strings; None when any string is taken.
    """

    types: tuple[str, ...]
    default: Any = None
    nullable: bool = False
    choices: tuple[str, ...] | None = None


class Catalogue(Frozen):
    """All keys of one trainer version.

    Attributes:
        trainer, version: whose keys these are, e.g. `trl` and `1.16.0`.
        transformers: version of transformers that it was introspected with.
        dataset_keys: keys of one entry of `datasets`.
        launch_keys: keys that the trainer's command hands on to `accelerate launch`.
        common: keys that are the same for every method.
        methods: further keys by method.
    """

    trainer: str
    version: str
    transformers: str
    dataset_keys: tuple[str, ...]
    launch_keys: tuple[str, ...]
    common: dict[str, TrainerKey]
    methods: dict[Method, dict[str, TrainerKey]]

    def keys(self, method: Method) -> dict[str, TrainerKey]:
        """Return every key that `method` knows, sorted by name."""
        return dict(sorted({**self.common, **self.methods[method]}.items()))

    def methods_with(self, key: str) -> tuple[Method, ...]:
        """Return the methods that know `key`, in the order of `METHODS`."""
        return tuple(m for m in METHODS if key in self.common or key in self.methods.get(m, {}))


def known_versions(trainer: TrainerName = "trl") -> tuple[str, ...]:
    """Return the versions that ship a catalogue, oldest first."""
    names = [path.stem.removeprefix(f"{trainer}-") for path in _FOLDER.glob(f"{trainer}-*.json")]
    return tuple(sorted(names, key=_version_order))


@lru_cache(maxsize=4)
def load_catalogue(trainer: TrainerName = "trl", version: str | None = None) -> Catalogue:
    """Return the catalogue of `version`; None means the newest that ships.

    Raises `PreflightError` when that version has none: its key set is then unknown.
    """
    versions = known_versions(trainer)
    wanted = version or (versions[-1] if versions else "")
    if wanted not in versions:
        raise PreflightError(
            f"no key catalogue for {trainer} {wanted!r}; there is one for: {', '.join(versions) or 'none'}",
            hint="run scripts/make_trl_catalogue.py in the training environment, or install a known version",
        )
    text = (_FOLDER / f"{trainer}-{wanted}.json").read_text(encoding="utf-8")
    return Catalogue.model_validate(cast("dict[str, Any]", json.loads(text)))


def _version_order(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
