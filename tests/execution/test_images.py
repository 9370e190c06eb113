"""Image pins, contexts, hashes and the build command, without an engine."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tiny_wheels import make_wheel, tiny_pins, use_pins

from rdagent_ft.errors import PreflightError, UserError
from rdagent_ft.execution import image_releases
from rdagent_ft.execution.image_build import BuildOptions, build_command, run_build
from rdagent_ft.execution.image_context import ImageRequest, plan_image, write_context
from rdagent_ft.execution.image_labels import labels_of, read_image
from rdagent_ft.execution.image_pins import IMAGE_NAMES, VARIANTS, read_pins, shipped_pins
from rdagent_ft.execution.image_releases import image_request, newest_release
from rdagent_ft.settings import Settings
from rdagent_ft.shipped import shipped_folder

TRAIN = ImageRequest(name="train", variant="cpu")


def dockerfile(name: str) -> str:
    return (shipped_folder("templates") / "docker" / f"{name}.Dockerfile").read_text()


class TestPins:
    def test_train_and_lm_eval_agree_with_what_was_tested(self, repository: Path) -> None:
        lines = (repository / "constraints.txt").read_text().splitlines()
        tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
        tested = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in tested.items()}
        for name in ("train", "lm-eval"):
            image = shipped_pins().images[name]
            pins = image.packages | image.constraints
            # constraints.txt lists no setuptools: the venv brings it.
            assert {k: v for k, v in pins.items() if k != "setuptools" and tested.get(k) != v} == {}

    def test_every_image_has_a_dockerfile_and_asks_for_packages_in_both_variants(self) -> None:
        for name in IMAGE_NAMES:
            assert dockerfile(name)
            for variant in VARIANTS:
                assert shipped_pins().images[name].packages_of(variant), (name, variant)

    @pytest.mark.parametrize("version", ["<21", "", ">=1.0", "latest", "1.0; rm -rf /", "1.0 --pre"])
    def test_a_pin_that_is_no_exact_version_is_refused(self, tmp_path: Path, version: str) -> None:
        path = tmp_path / "images.toml"
        text = (Path(shipped_folder("templates")).parent / "images.toml").read_text()
        path.write_text(text.replace('trl = "1.16.0"', f"trl = {json.dumps(version)}"))
        with pytest.raises(UserError, match="not an exact version"):
            read_pins(path)

    def test_an_unknown_key_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "images.toml"
        path.write_text('base_image = "x"\npakages = 1\n')
        with pytest.raises(UserError, match="pakages"):
            read_pins(path)

    def test_the_wheel_carries_the_pins(self, repository: Path) -> None:
        project = tomllib.loads((repository / "pyproject.toml").read_text())
        included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
        assert included["images.toml"] == "rdagent_ft/_shipped/images.toml"


class TestDockerfiles:
    @pytest.mark.parametrize("name", IMAGE_NAMES)
    def test_the_legacy_builder_can_read_them(self, name: str) -> None:
        text = dockerfile(name)
        assert "--mount" not in text
        assert "<<" not in text
        assert not re.search(r"^#\s*syntax", text, flags=re.M)

    @pytest.mark.parametrize("name", IMAGE_NAMES)
    def test_the_final_stage_holds_no_wheels_and_sets_no_user(self, name: str) -> None:
        text = dockerfile(name)
        first, final = re.split(r"^FROM ", text, flags=re.M)[1:]
        assert f"LABEL io.rdagent-ft.build-stage={name}\n" in first
        assert not re.search(r"^COPY (?!--from=build /opt/)", final, flags=re.M)
        assert not re.search(r"^(USER|ENTRYPOINT|CMD|LABEL)\b", final, flags=re.M)
        assert "==" not in re.sub(r'"[^"]*"|\'[^\']*\'', "", text), "pins belong into images.toml"


class TestContext:
    def test_the_hash_is_the_same_for_the_same_things_elsewhere(self, tmp_path: Path) -> None:
        hashes = set[str]()
        for folder in (tmp_path / "a", tmp_path / "b"):
            make_wheel(folder, "tiny", "1.0")
            hashes.add(plan_image(TRAIN.model_copy(update={"wheels": folder})).context_hash)
        assert len(hashes) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"variant": "cuda"},
            {"base_image": "other:1"},
            {"versions": {"trl": "1.15.0"}},
            {"name": "lm-eval"},
        ],
    )
    def test_what_changes_the_image_changes_both_hashes(self, change: dict[str, Any]) -> None:
        before, after = plan_image(TRAIN), plan_image(TRAIN.model_copy(update=change))
        assert before.recipe_hash != after.recipe_hash
        assert before.tag != after.tag

    def test_a_changed_dockerfile_changes_the_image_and_its_child(self, tmp_path: Path) -> None:
        folder = tmp_path / "docker"
        folder.mkdir()
        for name in ("train", "lm-eval"):
            (folder / f"{name}.Dockerfile").write_text(dockerfile(name))
        child = ImageRequest(name="lm-eval", variant="cpu")
        same = plan_image(child, templates=tmp_path)
        assert same == plan_image(child)
        (folder / "train.Dockerfile").write_text(dockerfile("train") + "# more\n")
        assert plan_image(child, templates=tmp_path).recipe_hash != same.recipe_hash

    def test_wheels_change_the_context_and_not_the_recipe(self, tmp_path: Path) -> None:
        make_wheel(tmp_path, "tiny", "1.0")
        with_wheels = TRAIN.model_copy(update={"wheels": tmp_path})
        first = plan_image(with_wheels)
        make_wheel(tmp_path, "tiny", "1.1")
        second = plan_image(with_wheels)
        assert len({plan_image(TRAIN).recipe_hash, first.recipe_hash, second.recipe_hash}) == 1
        assert len({plan_image(TRAIN).context_hash, first.context_hash, second.context_hash}) == 3

    def test_wheels_replace_every_index(self, tmp_path: Path) -> None:
        make_wheel(tmp_path, "tiny", "1.0")
        lines = plan_image(TRAIN.model_copy(update={"wheels": tmp_path})).requirements.splitlines()
        assert lines[:2] == ["--no-index", "--find-links /wheels"]
        assert not [line for line in lines if "index-url" in line]

    def test_only_the_cpu_variant_looks_at_the_index_of_cpu_builds(self) -> None:
        assert "--extra-index-url" in plan_image(TRAIN).requirements
        cuda = plan_image(TRAIN.model_copy(update={"variant": "cuda"}))
        assert "index" not in cuda.requirements

    def test_a_child_may_not_move_what_its_parent_holds(self) -> None:
        child = plan_image(ImageRequest(name="lm-eval", variant="cpu"))
        assert f"torch=={shipped_pins().images['train'].packages['torch']}\n" in child.constraints
        assert child.versions["torch"] == shipped_pins().images["train"].packages["torch"]
        assert "torch==" not in child.requirements

    def test_another_version_is_not_bound_by_what_the_pinned_one_needed(self) -> None:
        request = ImageRequest(name="llamafactory", variant="cpu")
        assert "peft==" in plan_image(request).constraints
        moved = plan_image(request.with_version("llamafactory", "99.0"))
        assert "llamafactory==99.0\n" in moved.requirements
        assert moved.constraints == ""
        assert request.with_version("llamafactory", moved.request.versions["llamafactory"]) == moved.request

    def test_an_empty_folder_of_wheels_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="holds no wheel"):
            plan_image(TRAIN.model_copy(update={"wheels": tmp_path}))

    def test_what_is_sent_to_the_engine(self, tmp_path: Path) -> None:
        wheel = make_wheel(tmp_path / "wheels", "tiny", "1.0")
        (tmp_path / "wheels" / "notes.txt").write_text("not a wheel")
        target = tmp_path / "context"
        target.mkdir()
        write_context(plan_image(TRAIN.model_copy(update={"wheels": tmp_path / "wheels"})), target)
        sent = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
        wheels = {"wheels/.keep", f"wheels/{wheel.name}"}
        assert sent == {"Dockerfile", "requirements.txt", "constraints.txt", *wheels}


class TestBuild:
    def test_the_command(self, tmp_path: Path) -> None:
        plan = plan_image(TRAIN)
        options = BuildOptions(network="host", no_cache=True)
        argv = build_command(plan, "base:1", {"k": "v w"}, tmp_path, options)
        assert argv[:5] == ["docker", "build", "--force-rm", "--tag", plan.tag]
        assert argv[-1] == str(tmp_path)
        for pair in (
            ["--build-arg", "BASE_IMAGE=base:1"],
            ["--build-arg", "VARIANT=cpu"],
            ["--label", "k=v w"],
            ["--network", "host"],
        ):
            assert any(argv[i : i + 2] == pair for i in range(len(argv))), pair
        assert "--no-cache" in argv

    @pytest.mark.parametrize(("variant", "needs_network"), [("cpu", False), ("cuda", True)])
    def test_steps_that_need_no_network_get_none(
        self, tmp_path: Path, variant: str, needs_network: bool
    ) -> None:
        make_wheel(tmp_path / "wheels", "tiny", "1.0")
        request = TRAIN.model_copy(update={"variant": variant})
        from_index = build_command(plan_image(request), "b", {}, tmp_path, BuildOptions())
        assert "--network" not in from_index
        from_wheels = plan_image(request.model_copy(update={"wheels": tmp_path / "wheels"}))
        argv = build_command(from_wheels, "b", {}, tmp_path, BuildOptions())
        assert ("none" in argv) is not needs_network

    def test_a_failure_shows_the_last_lines_and_names_the_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_docker(
            tmp_path,
            monkeypatch,
            "for i in $(seq 99); do echo line $i; done; printf '\\033[31mbad pin\\n' >&2; exit 7",
        )
        seen: list[str] = []
        log = tmp_path / "logs" / "train.log"
        with pytest.raises(PreflightError) as caught:
            run_build(plan_image(TRAIN), "base:1", {}, log, seen.append, BuildOptions())
        assert caught.value.exit_code == 3
        assert "ended with 7" in caught.value.message
        assert caught.value.message.endswith("| line 99\n  | bad pin")
        assert "line 10\n" not in caught.value.message
        assert str(log) in str(caught.value.hint)
        assert len(seen) == 100
        assert log.read_text().startswith("$ docker build --force-rm --tag rdagent-ft/train:")
        assert log.read_text().endswith("line 99\nbad pin\n")

    def test_without_the_docker_command(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(PreflightError, match="not installed") as caught:
            run_build(plan_image(TRAIN), "b", {}, tmp_path / "log", lambda _: None, BuildOptions())
        assert "docker.io" in str(caught.value.hint)


class TestLabels:
    def test_an_image_is_read_back_as_it_was_labelled(self) -> None:
        plan = plan_image(ImageRequest(name="lm-eval", variant="cuda", base_image="base:1"))
        found = read_image(engine_image(labels_of(plan), [plan.tag]))
        assert found is not None
        assert (found.name, found.tag, found.context_hash) == ("lm-eval", plan.tag, plan.context_hash)
        assert (found.variant, found.base_image, found.recipe_hash) == ("cuda", "base:1", plan.recipe_hash)
        assert found.versions == plan.versions
        assert found.image_id == "sha256:1"
        assert found.size_bytes == 5

    def test_an_image_that_somebody_built_on_ours_is_not_ours(self) -> None:
        plan = plan_image(TRAIN)
        assert read_image(engine_image(labels_of(plan), ["somebody/train:latest"])) is None
        assert read_image(engine_image(labels_of(plan), [])) is None

    @pytest.mark.parametrize(
        ("label", "value"),
        [
            ("versions", None),
            ("versions", "{"),
            ("versions", "[1]"),
            ("variant", None),
            ("variant", "rocm"),
            ("recipe", None),
            ("base", None),
        ],
    )
    def test_damaged_labels_make_no_image(self, label: str, value: str | None) -> None:
        plan = plan_image(TRAIN)
        labels: dict[str, Any] = labels_of(plan)
        labels[f"io.rdagent-ft.{label}"] = value
        if value is None:
            del labels[f"io.rdagent-ft.{label}"]
        assert read_image(engine_image(labels, [plan.tag])) is None


class TestNewestRelease:
    def test_the_newest_of_a_folder_of_wheels(self, tmp_path: Path) -> None:
        for version in ("1.9.0", "1.10.0", "2.0.0rc1"):
            make_wheel(tmp_path, "llamafactory", version)
        assert newest_release("llamafactory", tmp_path) == "1.10.0"

    def test_what_cannot_be_learnt_is_an_error_that_names_the_setting(self, tmp_path: Path) -> None:
        make_wheel(tmp_path, "other", "1.0")
        with pytest.raises(PreflightError, match="cannot be learnt") as caught:
            newest_release("llamafactory", tmp_path)
        assert "FT_UPDATE_LLAMA_FACTORY=False" in str(caught.value.hint)

    def test_a_python_without_pip(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script = tmp_path / "python"
        script.write_text("#!/bin/sh\necho 'python: No module named pip' >&2; exit 1\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        with pytest.raises(PreflightError, match="No module named pip"):
            newest_release("llamafactory")

    def test_the_setting_decides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(image_releases, "newest_release", lambda *_: "99.1")
        moved = image_request("llamafactory", "cpu", Settings(update_llama_factory=True))
        kept = image_request("llamafactory", "cpu", Settings(update_llama_factory=False))
        pinned = shipped_pins().images["llamafactory"].packages["llamafactory"]
        assert plan_image(moved).versions["llamafactory"] == "99.1"
        assert plan_image(kept).versions["llamafactory"] == pinned
        assert image_request("train", "cpu", Settings(update_llama_factory=True)).versions == {}

    def test_a_newest_release_that_is_the_pinned_one_is_the_pinned_image(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use_pins(monkeypatch, tiny_pins("llamafactory", {"llamafactory": "1.0"}))
        monkeypatch.setattr(image_releases, "newest_release", lambda *_: "1.0")
        moved = image_request("llamafactory", "cpu", Settings(update_llama_factory=True))
        kept = image_request("llamafactory", "cpu", Settings(update_llama_factory=False))
        assert plan_image(moved).tag == plan_image(kept).tag


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    command = folder / "bin" / "docker"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")


def engine_image(labels: dict[str, str], tags: list[str]) -> Any:
    attributes = {"Size": 5, "Created": "2026-11-21T10:00:00Z"}
    return cast("Any", SimpleNamespace(labels=labels, tags=tags, id="sha256:1", attrs=attributes))
