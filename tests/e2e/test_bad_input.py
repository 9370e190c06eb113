"""Bad input: one clear message, exit 2 or 3, no traceback, nothing left half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from world import World


def refused(world: World, name: str, *argv: str, code: int, says: tuple[str, ...], **extra: str) -> None:
    done = world.run(name, *argv, **extra)
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    for text in says:
        assert text in done.err, done.err
    output = world.files(name) / "output"
    assert not output.is_dir() or not any(output.iterdir()), "nothing may be left behind"


def test_an_unknown_dataset_is_answered_with_near_ones(world: World) -> None:
    near = world.files("near") / "datasets" / "org" / "colours"
    near.mkdir(parents=True)
    (near / "train.jsonl").write_bytes(world.data.read_bytes())
    refused(
        world, "near", "--dataset", "org/colors", "--model", str(world.model), code=2, says=("org/colours",)
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ("empty",)),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n', ("bad.jsonl", "line 2")),
        ('{"x": "a", "y": "b"}\n' * 30, ("x, y", "--columns")),
    ],
    ids=["empty", "malformed", "no columns"],
)
def test_a_file_that_is_no_dataset(world: World, tmp_path: Path, content: str, says: tuple[str, ...]) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    argv = ("--dataset", str(path), "--model", str(world.model))
    done = world.run("bad", *argv)
    assert done.code == 2
    assert "Traceback" not in done.err
    for text in says:
        assert text in done.err, done.err


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("--dataset", "DATA", "--model", "no/such-model"), 2, ("no/such-model",)),
        (("--dataset", "DATA", "--model", "MODEL", "--timeout", "foo"), 2, ("--timeout", "foo")),
        (("--dataset", "DATA", "--model", "MODEL", "--benchmark", "gsm9k"), 2, ("gsm9k", "gsm8k")),
        (("--dataset", "DATA", "--model", "MODEL", "--benchmark", "gsm8k"), 2, ("gsm8k",)),
        (("--dataset", "DATA", "--model", "MODEL", "--columns", "prompt"), 2, ("--columns",)),
        (("--dataset", "DATA", "--model", "MODEL", "--planner", "llm"), 2, ("FT_PLANNER_MODEL",)),
        (("--dataset", "DATA", "--model", "MODEL", "--planner", "magic"), 2, ("FT_PLANNER", "magic")),
        (("--dataset", "DATA", "--model", "MODEL", "--loop_n", "x"), 2, ("loop",)),
        (("--model", "MODEL"), 2, ("--dataset",)),
        (("--no-such-option",), 2, ("--no-such-option",)),
        (("--resume", "latest"), 2, ("no run",)),
    ],
)
def test_a_bad_command_line(world: World, argv: tuple[str, ...], code: int, says: tuple[str, ...]) -> None:
    places = {"DATA": str(world.data), "MODEL": str(world.model)}
    refused(world, "badargs", *(places.get(word, word) for word in argv), code=code, says=says)


def test_all_bad_settings_are_named_together(world: World) -> None:
    refused(
        world,
        "badset",
        *world.new(),
        code=2,
        says=("FT_BENCHMARK_LIMIT", "FT_BENCHMARK_DATASETS"),
        FT_BENCHMARK_LIMIT="many",
        FT_BENCHMARK_DATASETS='["aime25",',
    )


def test_a_recipe_with_problems_names_all_of_them(world: World) -> None:
    recipe = world.recipe("broken", learning_rate="fast", warmup_ratio=7, lora_rank=8)
    refused(
        world, "badrecipe", *world.new("--recipe", str(recipe)), code=3,
        says=("learning_rate", "warmup_ratio", "lora_rank"),
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_root(world: World) -> None:
    root = world.files("readonly")
    root.mkdir()
    root.chmod(0o555)
    refused(world, "readonly", *world.new(), code=3, says=("FT_FILE_PATH",))


def test_a_root_that_cannot_be_made(world: World) -> None:
    done = world.run("unused", *world.new(), FT_FILE_PATH="/proc/finetune")
    assert done.code == 3
    assert "/proc/finetune" in done.err
    assert "Traceback" not in done.err


def test_a_root_that_is_a_file(world: World) -> None:
    world.files("file").write_text("")
    done = world.run("file", *world.new())
    assert done.code == 3
    assert "FT_FILE_PATH" in done.err
    assert "Traceback" not in done.err


def test_a_run_of_another_version_is_refused(world: World) -> None:
    import sqlite3

    run_dir = world.files("version") / "output" / "20200101-000000-abcd"
    run_dir.mkdir(parents=True)
    connection = sqlite3.connect(run_dir / "run.db")
    connection.execute("PRAGMA application_id = 1380206164")
    connection.execute("PRAGMA user_version = 99")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    done = world.run("version", "--resume", "latest")
    assert done.code == 8
    assert "99" in done.err
    assert "Traceback" not in done.err


def test_unknown_settings_are_warned_about(world: World) -> None:
    done = world.run("warn", "--dataset", "nope", FT_PLANER_MODEL="x")
    assert "FT_PLANNER_MODEL" in done.err


def test_errors_leave_json_callers_with_an_empty_stdout(world: World) -> None:
    done = world.run("jsonerr", "--dataset", "nope", "--json")
    assert done.out == ""
    assert done.code == 2
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.out)
