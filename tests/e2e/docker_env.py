"""Settings of runs whose jobs go to the real engine, in the images that were built for the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_labels import RUN_DIR, labels_of, own_labels
from rdagent_ft.execution.images import newest_image


def docker_environment() -> dict[str, str]:
    """Return the FT_ variables that send jobs into containers."""
    engine = connect()
    image = newest_image(engine.client, "train")
    engine.close()
    assert image is not None, "build it first: scripts/docker-ci.sh"
    return {
        "FT_EXECUTOR": "docker",
        "FT_DOCKER_BASE_IMAGE": image.base_image,
        "FT_DOCKER_MEMORY_GIB": "6",
        "FT_DOCKER_ENGINE_WAIT": "60",
    }


def containers_below(engine: Engine, folder: str) -> list[str]:
    """Return the names of our containers whose run lies below a folder, running or not."""
    return [
        entry["Names"][0]
        for entry in engine.containers(own_labels())
        if labels_of(entry).get(RUN_DIR, "").startswith(folder)
    ]


class PrivateEngine:
    """A second Docker engine with its own folders, which a test may stop and start (needs root)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.url = f"unix://{root}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        folders = [f"--data-root={self._root}/data", f"--exec-root={self._root}/exec"]
        own = ["--containerd-namespace=ft-test", "--containerd-plugins-namespace=ft-test-plugins"]
        quiet = ["--bridge=none", "--iptables=false", f"--pidfile={self._root}/pid", "-H", self.url]
        log = (self._root / "dockerd.log").open("ab")
        # A network of its own: with --bridge=none it would remove the other engine's bridge.
        command = ["unshare", "--net", "dockerd", *folders, *own, *quiet]
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        give_up_at = time.monotonic() + 60
        while self._docker("version").returncode:
            assert time.monotonic() < give_up_at, (self._root / "dockerd.log").read_text()[-2000:]
            time.sleep(0.2)

    def copy_images(self) -> None:
        """Bring the images for jobs over from the engine of the environment."""
        engine = connect()
        images = [newest_image(engine.client, name) for name in ("train", "lm-eval")]
        engine.close()
        tags = [image.tag for image in images if image is not None]
        load = ["docker", "-H", self.url, "load"]
        with subprocess.Popen(["docker", "save", *tags], stdout=subprocess.PIPE) as save:
            subprocess.run(load, stdin=save.stdout, check=True, capture_output=True)
        assert save.returncode == 0

    def stop(self) -> None:
        """End it as a service manager would; its containers end with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=60)
            self._process = None

    def remove(self) -> None:
        """Unmount and delete what it kept."""
        for line in Path("/proc/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(str(self._root)):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(self._root, ignore_errors=True)

    def _docker(self, *argv: str) -> subprocess.CompletedProcess[bytes]:
        environment = {k: v for k, v in os.environ.items() if k != "DOCKER_HOST"}
        command = ["docker", "-H", self.url, *argv]
        return subprocess.run(command, capture_output=True, env=environment, check=False)
