"""The checks of `doctor`, one function each. They look; they change nothing but a probe file."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable

from rdagent_ft.cli.check import Check
from rdagent_ft.cli.docker_side import DockerSide
from rdagent_ft.cli.doctor_docker import docker_checks
from rdagent_ft.errors import RdagentFtError, UserError
from rdagent_ft.execution.machine import machine_facts, read_gpus, read_machine
from rdagent_ft.settings_sources import LoadedSettings, unknown_variable_notes

TRAIN_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "lm_eval")
MIN_DISK_GIB = 5.0
PROBE_TIMEOUT_S = 30.0


def run_checks(loaded: LoadedSettings, wanted: set[str] | None, *, online: bool) -> list[Check]:
    """Run the checks named in `wanted` (None: all). Raises `UserError` for an unknown id."""
    side = DockerSide(loaded.settings)
    checks: dict[str, Callable[[], list[Check]]] = {
        "python": lambda: [_python()],
        "packages": lambda: [_packages(loaded)],
        "paths": lambda: [_paths(loaded)],
        "disk": lambda: [_disk(loaded)],
        **docker_checks(side, wanted),
        "device": lambda: [_device(loaded, side)],
        "llm": lambda: [_llm(loaded, online=online)],
        "settings": lambda: _unknown(loaded),
    }
    unknown = (wanted or set()) - set(checks)
    if unknown:
        raise UserError(f"no check is called {sorted(unknown)[0]!r}", hint="known: " + ", ".join(checks))
    try:
        return [check for name, run in checks.items() if wanted is None or name in wanted for check in run()]
    finally:
        side.close()


def _python() -> Check:
    # An older Python fails while it imports this package; there is nothing to check for here.
    return Check(id="python", status="ok", found=f"{platform.python_version()} at {sys.executable}")


def _packages(loaded: LoadedSettings) -> Check:
    if loaded.settings.executor == "docker":
        return Check(id="packages", status="ok", found="not needed here: jobs bring theirs in their images")
    python = str(loaded.settings.python or sys.executable)
    script = (
        "import importlib.util as u, importlib.metadata as m, sys\n"
        "for n in sys.argv[1:]:\n"
        "    print(n, m.version(n.replace('_', '-')) if u.find_spec(n) else '-')\n"
    )
    try:
        done = subprocess.run(
            [python, "-c", script, *TRAIN_PACKAGES],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(id="packages", status="fail", found=f"{python}: {error}", fix="set FT_PYTHON")
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    missing = [name for name in TRAIN_PACKAGES if found.get(name, "-") == "-"]
    if missing:
        fix = "run `make install`, or pip install 'rdagent-ft[train,lm-eval]' there, or set FT_PYTHON"
        return Check(
            id="packages", status="fail", found=f"missing in {python}: {', '.join(missing)}", fix=fix
        )
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    return Check(id="packages", status="ok", found=versions)


def _paths(loaded: LoadedSettings) -> Check:
    root = loaded.settings.file_path
    existing = root
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        return Check(
            id="paths", status="fail", found=f"{root} cannot be written", fix="set FT_FILE_PATH elsewhere"
        )
    made = "exists" if root.is_dir() else "will be created"
    return Check(id="paths", status="ok", found=f"FT_FILE_PATH {root} {made}, writable")


def _disk(loaded: LoadedSettings) -> Check:
    root = loaded.settings.file_path
    while not root.exists():
        root = root.parent
    free_gib = shutil.disk_usage(root).free / 2**30
    if free_gib < MIN_DISK_GIB:
        return Check(
            id="disk",
            status="warn",
            found=f"{free_gib:.1f} GiB free",
            fix="free some space or move FT_FILE_PATH",
        )
    return Check(id="disk", status="ok", found=f"{free_gib:.0f} GiB free for FT_FILE_PATH")


def _device(loaded: LoadedSettings, side: DockerSide) -> Check:
    """Say what jobs train on: with the docker executor that is what its containers are given."""
    try:
        gpus = read_gpus() if loaded.settings.executor == "local" else side.gpus
    except RdagentFtError:  # the checks of Docker say why
        return Check(id="device", status="warn", found="not known: see the checks of Docker above")
    machine = read_machine(loaded.settings.file_path, gpus)
    found = " ".join(machine_facts(machine))
    if machine.device == "cuda":
        return Check(id="device", status="ok", found=found)
    if not loaded.settings.allow_cpu:
        return Check(id="device", status="fail", found=found, fix="set FT_ALLOW_CPU=1 to train on the CPU")
    return Check(id="device", status="warn", found=found, fix="fine for tiny models; real ones need a GPU")


def _llm(loaded: LoadedSettings, *, online: bool) -> Check:
    settings = loaded.settings
    if settings.planner_model is None:
        return Check(
            id="llm", status="ok", found="none configured: the planner is tpe with knowledge-base priors"
        )
    from rdagent_ft.llm.build import check_reachable
    from rdagent_ft.llm.prices import price_of

    if settings.llm_api_key is None and not os.environ.get("OPENAI_API_KEY") and not settings.llm_api_base:
        return Check(id="llm", status="fail", found="no key", fix="set FT_LLM_API_KEY or OPENAI_API_KEY")
    price = price_of(settings, settings.planner_model, settings.llm_api_base)
    if price is None and settings.llm_price_unknown == "refuse":
        return Check(
            id="llm", status="fail", found=f"the price of {settings.planner_model} is unknown",
            fix="set FT_LLM_PRICE_INPUT and FT_LLM_PRICE_OUTPUT, or FT_LLM_PRICE_UNKNOWN=ok",
        )  # fmt: skip
    problem = check_reachable(settings) if online else None
    if problem is not None:
        return Check(id="llm", status="fail", found=problem, fix="check FT_LLM_API_BASE and the key")
    asked = "reachable" if online else "not asked (use --online)"
    return Check(id="llm", status="ok", found=f"{settings.planner_model}: {asked}")


def _unknown(loaded: LoadedSettings) -> list[Check]:
    notes = unknown_variable_notes(loaded.unknown)
    if not notes:
        return [Check(id="settings", status="ok", found="every FT_ variable is known")]
    return [
        Check(id="settings", status="warn", found=note, fix="see docs/settings.md for all names")
        for note in notes
    ]
