"""Models that several files of tests train from; made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage_trainings import make_merged_model, make_random_model


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights."""
    return make_random_model(tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="session")
def merged_model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a supervised stage and a merge left: it answers ` <any animal> is <colour>` and stops."""
    return make_merged_model(tmp_path_factory.mktemp("merged"), random_model)
