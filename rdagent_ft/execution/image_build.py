"""Running `docker build` for one planned image: a bounded message on failure, the whole log in a file.

Works with the legacy builder and with BuildKit; which one runs is the engine's and the user's choice.
The command inherits the environment, so DOCKER_HOST and the docker context hold here too.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from rdagent_ft.errors import PreflightError
from rdagent_ft.execution.image_context import ImagePlan, write_context
from rdagent_ft.execution.outputs import clean_text
from rdagent_ft.values import Frozen

Progress = Callable[[str], None]
_LINES_SHOWN = 15
_LINE_CHARS = 400


class BuildOptions(Frozen):
    """How to build, as far as it changes nothing in the image.

    `network` is that of the build's own steps, e.g. `host`; None means none where the steps need none,
    else the engine's default.
    `no_cache` runs every step again.
    """

    network: str | None = None
    no_cache: bool = False


def build_command(
    plan: ImagePlan, base: str, labels: Mapping[str, str], context: Path, options: BuildOptions
) -> list[str]:
    """Return the argument list of the build. `base` is what the Dockerfile's BASE_IMAGE is."""
    # The legacy builder would keep the container of a step that failed.
    argv = ["docker", "build", "--force-rm", "--tag", plan.tag]
    argv += ["--build-arg", f"BASE_IMAGE={base}"]
    argv += ["--build-arg", f"VARIANT={plan.request.variant}"]
    for key, value in sorted(labels.items()):
        argv += ["--label", f"{key}={value}"]
    network = options.network or _least_network(plan)
    if network is not None:
        argv += ["--network", network]
    if options.no_cache:
        argv.append("--no-cache")
    return [*argv, str(context)]


def _least_network(plan: ImagePlan) -> str | None:
    """Return `none` where the steps need no network: wheels are given, and no compiler is installed."""
    from_wheels = plan.request.wheels is not None
    return "none" if from_wheels and plan.request.variant == "cpu" else None


def run_build(
    plan: ImagePlan,
    base: str,
    labels: Mapping[str, str],
    log_path: Path,
    progress: Progress,
    options: BuildOptions,
) -> None:
    """Build the image; every line of output goes to `log_path` and to `progress`.

    Raises `PreflightError` with the last lines and the log's path.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rdagent-ft-image-") as name:
        context = Path(name)
        write_context(plan, context)
        argv = build_command(plan, base, labels, context, options)
        last_lines: deque[str] = deque(maxlen=_LINES_SHOWN)
        with log_path.open("w", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(argv)}\n")

            def take(line: str) -> None:
                log.write(line + "\n")
                log.flush()
                last_lines.append(line[:_LINE_CHARS])
                progress(line[:_LINE_CHARS])

            exit_code = _stream(argv, take)
    if exit_code != 0:
        shown = "\n".join(f"  | {line}" for line in last_lines)
        raise PreflightError(
            f"image {plan.tag} could not be built: `docker build` ended with {exit_code}\n{shown}",
            hint=f"the whole log is in {log_path}",
        )


def _stream(argv: list[str], take: Progress) -> int:
    """Run the command, hand on its merged output line by line, return its exit code."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        raise PreflightError(
            "the `docker` command is not installed here; images are built with it",
            hint="install Docker's command line (Debian: apt-get install docker.io)",
        ) from None
    with process:
        try:
            assert process.stdout is not None
            for raw in process.stdout:
                for line in clean_text(raw).splitlines():
                    if line.strip():
                        take(line.rstrip())
            return process.wait()
        finally:
            # Interrupted: the engine drops a build whose client is gone.
            if process.poll() is None:
                process.terminate()
