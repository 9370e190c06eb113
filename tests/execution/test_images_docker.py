"""Images on a real engine: the real Dockerfiles, with tiny wheels where the content does not matter."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import ImageNotFound
from tiny_wheels import make_wheel, tiny_pins, use_pins
from typer.testing import CliRunner

from rdagent_ft.cli.main import app
from rdagent_ft.errors import PreflightError
from rdagent_ft.execution.image_build import BuildOptions
from rdagent_ft.execution.image_context import ImageRequest
from rdagent_ft.execution.image_labels import LABEL_BASE, LABEL_BUILD_STAGE, ImageRef, created
from rdagent_ft.execution.image_pins import ImageName, shipped_pins
from rdagent_ft.execution.images import (
    ensure_image,
    find_image,
    list_images,
    newest_image,
    remove_superseded,
)

NAME = "opencompass"
"""Whose real image no test uses."""


@pytest.fixture
def client(docker_engine: None) -> Iterator[DockerClient]:
    import docker

    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def base(client: DockerClient, tmp_path: Path) -> Iterator[str]:
    """A name of the base image that only this test uses; what was built on it is removed."""
    started = datetime.now(UTC).isoformat()
    real = built(client, "train").base_image
    name = f"rdagent-ft-base:{tmp_path.parent.name}-{tmp_path.name}".lower()
    assert client.images.get(real).tag(name)
    yield name
    for image in client.images.list(filters={"label": f"{LABEL_BASE}={name}"}):
        client.images.remove(image.id, force=True)
    for stage in client.images.list(filters={"label": LABEL_BUILD_STAGE, "dangling": True}):
        if created(stage) >= started:
            client.images.remove(stage.id)
    client.images.remove(name)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wheels of two versions of a tiny package; version 1.0 is pinned for `opencompass`."""
    for version in ("1.0", "2.0"):
        make_wheel(tmp_path / "wheels", "tiny", version)
    use_pins(monkeypatch, tiny_pins(NAME, {"tiny": "1.0"}))
    return tmp_path / "wheels"


class Builds:
    """Asks for the tiny image and says whether it was built."""

    def __init__(self, client: DockerClient, request: ImageRequest, log_folder: Path) -> None:
        self.client = client
        self.request = request
        self.log_folder = log_folder

    def ensure(self, *, no_cache: bool = False, **change: object) -> tuple[ImageRef, bool]:
        lines: list[str] = []
        request = self.request.model_copy(update=change)
        options = BuildOptions(no_cache=no_cache)
        image = ensure_image(self.client, request, self.log_folder, lines.append, options)
        return image, bool(lines)


@pytest.fixture
def builds(client: DockerClient, base: str, wheels: Path, tmp_path: Path) -> Builds:
    request = ImageRequest(name=NAME, variant="cpu", base_image=base, wheels=wheels)
    return Builds(client, request, tmp_path / "logs")


def test_an_image_is_built_once_and_again_only_when_its_context_changes(builds: Builds) -> None:
    first, first_was_built = builds.ensure()
    again, again_was_built = builds.ensure()
    assert (first_was_built, again_was_built) == (True, False)
    assert again == first
    assert first.versions == {"tiny": "1.0"}
    assert output(builds.client, first, "import tiny; print(tiny.VERSION)") == "1.0"
    moved, moved_was_built = builds.ensure(versions={"tiny": "2.0"})
    assert moved_was_built
    assert moved.image_id != first.image_id
    assert output(builds.client, moved, "import tiny; print(tiny.VERSION)") == "2.0"


def test_wheels_are_needed_only_for_the_build(builds: Builds, wheels: Path) -> None:
    image, _ = builds.ensure()
    without = builds.request.model_copy(update={"wheels": None})
    assert find_image(builds.client, without) == image
    make_wheel(wheels, "tiny", "3.0")
    assert find_image(builds.client, builds.request) is None, "other wheels are another context"
    assert find_image(builds.client, without) == image


def test_superseded_images_go_and_others_stay(builds: Builds) -> None:
    client = builds.client
    old, _ = builds.ensure()
    used, _ = builds.ensure(versions={"tiny": "2.0"})
    theirs = client.images.get(old.tag)
    dockerfile = f"FROM {old.tag}\nLABEL somebody=else\n"
    subprocess.run(
        ["docker", "build", "--tag", "somebody/opencompass:latest", "-"],
        input=dockerfile.encode(),
        check=True,
    )
    make_wheel(builds.request.wheels or Path(), "unrelated", "1.0")
    keep, _ = builds.ensure()
    container = client.containers.create(used.image_id, ["true"])
    try:
        states = {entry.image.tag: entry.state for entry in list_images(client)}
        assert states[keep.tag] == "current"
        assert states[old.tag] == states[used.tag] == "superseded"
        assert "somebody/opencompass:latest" not in states
        removed = remove_superseded(client, keep)
        assert old.tag in removed
        assert used.tag not in removed, "a container uses it"
        assert exists(client, used.tag)
        assert exists(client, keep.tag)
        assert exists(client, "somebody/opencompass:latest")
        assert not client.images.list(filters={"label": f"{LABEL_BUILD_STAGE}={NAME}", "dangling": True})
    finally:
        container.remove()
        client.images.remove("somebody/opencompass:latest")
    assert theirs.id == old.image_id
    assert used.tag in remove_superseded(client, keep)


def test_building_without_cache_leaves_one_image(builds: Builds) -> None:
    first, _ = builds.ensure()
    second, was_built = builds.ensure(no_cache=True)
    assert was_built
    assert second.tag == first.tag
    assert second.image_id != first.image_id
    assert not exists(builds.client, first.image_id)


def test_a_failed_build_says_why_and_leaves_no_container(builds: Builds) -> None:
    with pytest.raises(PreflightError, match=r"(?s)could not be built.*tiny==9\.9") as caught:
        builds.ensure(versions={"tiny": "9.9"})
    assert caught.value.exit_code == 3
    assert "tiny==9.9" in (builds.log_folder / f"{NAME}.log").read_text()
    left = builds.client.containers.list(all=True, filters={"label": f"{LABEL_BUILD_STAGE}={NAME}"})
    assert left == []


def test_a_child_is_built_on_its_parent(
    client: DockerClient, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval adds to the train image: what is there is neither installed again nor moved."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tiny", "1.0")
    make_wheel(wheels, "added", "1.0")
    pins = tiny_pins("train", {"tiny": "1.0"})
    child = pins.images["lm-eval"].model_copy(update={"parent": "train", "packages": {"added": "1.0"}})
    use_pins(monkeypatch, pins.model_copy(update={"images": pins.images | {"lm-eval": child}}))
    request = ImageRequest(name="lm-eval", variant="cpu", base_image=base, wheels=wheels)
    image = ensure_image(client, request, tmp_path / "logs", lambda _: None)
    parent = find_image(client, request.model_copy(update={"name": "train"}))
    assert parent is not None
    below, above = layers(client, parent), layers(client, image)
    assert above[: len(below)] == below
    assert len(above) == len(below) + 1
    assert image.versions == {"tiny": "1.0", "added": "1.0"}
    assert (
        output(client, image, "import tiny, added; print(tiny.__file__, added.__file__)").count("/opt/venv")
        == 2
    )


@pytest.mark.parametrize("name", ["train", "lm-eval"])
def test_the_real_images_hold_what_is_pinned(client: DockerClient, name: ImageName) -> None:
    image = built(client, name)
    pins = shipped_pins().images[name]
    assert image.versions == shipped_pins().images["train"].packages | pins.packages
    script = (
        "import json, importlib.metadata as m\n"
        "import torch, transformers, trl, peft, datasets, accelerate\n"
        "from trl import SFTTrainer\n"
        "names = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps(names))"
    )
    installed = json.loads(output(client, image, script))
    wanted = pins.packages | pins.constraints
    found = {key: installed.get(key, "").split("+")[0] for key in wanted}
    assert found == wanted


def test_the_evaluation_image_can_evaluate(client: DockerClient) -> None:
    script = (
        "import lm_eval, datasets; from lm_eval.models.huggingface import HFLM; print(lm_eval.__version__)"
    )
    assert (
        output(client, built(client, "lm-eval"), script)
        == shipped_pins().images["lm-eval"].packages["lm-eval"]
    )


def test_the_evaluation_image_shares_the_layers_of_a_train_image(client: DockerClient) -> None:
    above = layers(client, built(client, "lm-eval"))
    parents = [e.image for e in list_images(client) if e.image.name == "train"]
    assert any(above[: len(below)] == below for below in (layers(client, parent) for parent in parents))


def test_no_file_is_hidden_from_the_caller_and_no_wheel_is_left(client: DockerClient) -> None:
    script = (
        "import os, stat\n"
        "closed = [os.path.join(d, f) for d, _, files in os.walk('/opt') for f in files\n"
        "          if not os.access(os.path.join(d, f), os.R_OK)]\n"
        "wheels = [f for d, _, files in os.walk('/') for f in files\n"
        "          if f.endswith('.whl') and not d.startswith(('/proc', '/usr/share'))]\n"
        "print(closed, wheels)"
    )
    assert output(client, built(client, "lm-eval"), script) == "[] []"


def test_the_list_as_json(client: DockerClient) -> None:
    done = CliRunner().invoke(app, ["images", "list", "--json"])
    assert done.exit_code == 0, done.output
    images = json.loads(done.stdout)["images"]
    train = next(image for image in images if image["name"] == "train" and image["state"] == "current")
    assert train["versions"] == shipped_pins().images["train"].packages
    assert train["image_id"].startswith("sha256:")
    assert train["size_bytes"] > 0


def built(client: DockerClient, name: ImageName) -> ImageRef:
    image = newest_image(client, name)
    assert image is not None, f"no {name} image of today's pins: run scripts/docker-ci.sh"
    return image


def output(client: DockerClient, image: ImageRef, script: str) -> str:
    """What Python prints in the image, run as jobs are: a stranger's uid, no network, nothing writable."""
    printed = client.containers.run(
        image.image_id,
        ["python", "-c", script],
        remove=True,
        network_mode="none",
        user="1234:1234",
        read_only=True,
        tmpfs={"/tmp": "exec"},
        cap_drop=["ALL"],
        environment={"HOME": "/tmp", "USER": "ft", "LOGNAME": "ft"},
    )
    return printed.decode().strip()


def layers(client: DockerClient, image: ImageRef) -> list[str]:
    return client.images.get(image.image_id).attrs["RootFS"]["Layers"]


def exists(client: DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True
