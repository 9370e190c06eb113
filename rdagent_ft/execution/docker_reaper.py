"""Finding and removing what dead controllers left in the engine, by our labels and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rdagent_ft.execution import docker_labels as labels
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.values import Frozen


class Held(Frozen):
    """A container of ours that the engine holds. `run_dir` is where its run lies."""

    name: str
    attempt_id: str
    run_dir: Path
    out_dir: Path
    is_running: bool
    owner_lives: bool


def held_containers(engine: Engine) -> list[Held]:
    """Return this user's containers that were started from this machine, running or not."""
    found: list[Held] = []
    for entry in engine.containers(labels.own_labels()):
        own = labels.labels_of(entry)
        if labels.ATTEMPT not in own or labels.OUT_DIR not in own:
            continue
        out_dir = Path(own[labels.OUT_DIR])
        found.append(
            Held(
                name=labels.container_name(own[labels.ATTEMPT]),
                attempt_id=own[labels.ATTEMPT],
                run_dir=Path(own.get(labels.RUN_DIR, str(out_dir))),
                out_dir=out_dir,
                is_running=entry.get("State") in {"running", "paused", "restarting"},
                owner_lives=labels.owner_lives(own),
            )
        )
    return found


def abandoned_runs(engine: Engine) -> list[Path]:
    """Return the run folders of containers whose controller is gone, each once."""
    return sorted({held.run_dir for held in held_containers(engine) if not held.owner_lives})


def remove_below(engine: Engine, folder: Path, record: Callable[[Held], None]) -> list[str]:
    """Remove our containers whose run or output lies at or below `folder`; return their attempt ids.

    Containers of a controller that still lives are left: it waits for them. `record` is called before
    one is removed.
    """
    removed: list[str] = []
    for held in held_containers(engine):
        below = held.run_dir.is_relative_to(folder) or held.out_dir.is_relative_to(folder)
        if below and not held.owner_lives:
            record(held)
            engine.remove(held.name)
            removed.append(held.attempt_id)
    return removed
