"""The keys and templates that LLaMA-Factory knows, as introspected from its code.

The data is `catalogues/llamafactory-<version>.json`, made by `scripts/make_llamafactory_catalogue.py`
in its own environment. All training stages share one key set; an export knows a part of it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rdagent_ft.errors import PreflightError
from rdagent_ft.recipe.catalogue import TrainerKey
from rdagent_ft.values import Frozen

LlamaFactoryStage = Literal["sft", "dpo", "kto", "rm", "pt", "ppo", "export"]
STAGES: tuple[LlamaFactoryStage, ...] = ("sft", "dpo", "kto", "rm", "pt", "ppo", "export")
VERSION = "0.9.5"
_FOLDER = Path(__file__).resolve().parent.parent / "catalogues"


class LlamaFactoryKeys(Frozen):
    """All keys of one version.

    Attributes:
        trainer, version: whose keys these are.
        transformers: version of transformers that they were introspected with.
        templates: names that the key `template` takes.
        export_keys: names of the keys that an export takes.
        keys: every key of a training, by name.
    """

    trainer: Literal["llamafactory"]
    version: str
    transformers: str
    templates: tuple[str, ...]
    export_keys: tuple[str, ...]
    keys: dict[str, TrainerKey]

    def of_stage(self, stage: LlamaFactoryStage) -> dict[str, TrainerKey]:
        """Return the keys that a config of this stage may have."""
        if stage != "export":
            return self.keys
        return {name: self.keys[name] for name in self.export_keys}


@lru_cache(maxsize=2)
def load_keys(version: str = VERSION) -> LlamaFactoryKeys:
    """Return the catalogue of `version`. Raises `PreflightError` when that version has none."""
    path = _FOLDER / f"llamafactory-{version}.json"
    if not path.is_file():
        known = ", ".join(
            sorted(p.stem.removeprefix("llamafactory-") for p in _FOLDER.glob("llamafactory-*"))
        )
        raise PreflightError(
            f"no key catalogue for LLaMA-Factory {version!r}; there is one for: {known}",
            hint="run scripts/make_llamafactory_catalogue.py in its environment, or install a known version",
        )
    return LlamaFactoryKeys.model_validate(json.loads(path.read_text(encoding="utf-8")))
