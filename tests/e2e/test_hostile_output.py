"""A job that poisons what it leaves: the attempt is classed, nothing is followed, the run goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from world import World, journal

pytestmark = [pytest.mark.train]
POISONS = {
    "a config that imports code": """
config = json.loads((weights / "config.json").read_text())
(weights / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "evil.Config"}}))
""",
    "a folder that is a link": """
weights.rename("elsewhere")
weights.symlink_to("elsewhere")
""",
}


@pytest.mark.parametrize("poison", POISONS)
def test_poisoned_weights_are_the_candidates_failure(world: World, poison: str) -> None:
    name = f"poison-{len(poison)}"
    folder = world.files(name)
    folder.mkdir()
    python = folder / "python"
    script = folder / "poison.py"
    script.write_text(f"import json\nfrom pathlib import Path\nweights = Path('model')\n{POISONS[poison]}")
    python.write_text(
        f'#!/bin/sh\n"{sys.executable}" "$@" || exit $?\n'
        f'case "$*" in *stage_job*) exec "{sys.executable}" "{script}";; esac\n'
    )
    python.chmod(0o755)
    finished = world.run(name, *world.new("--loop_n", "1"), FT_PYTHON=str(python))
    assert finished.code == 0, finished.err
    (loop,) = finished.document["loops"]
    assert loop["status"] == "failed"
    train = journal(world.run_dir(name))["steps"]["0 train"]
    assert train["failure"]["failure_class"] == "output.hostile"
    assert train["failure"]["blame"] == "candidate"
    assert "model" in train["failure"]["message"]
    assert train["weights_sha256"] is None
    assert not (world.run_dir(name) / "export").exists()
    assert json.loads(finished.out)["claim"] is None
    assert not list(Path(world.run_dir(name)).glob("loops/*/eval/job/*")), "nothing loaded the weights"
