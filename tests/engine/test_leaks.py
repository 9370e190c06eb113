"""Set-up leaves training rows out that repeat an item of a held-out split or of a reported benchmark."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from container_double import ContainerDouble
from script_world import at_code_step, write_model

from rdagent_ft.data.rows import Message, Row, SplitName, make_row
from rdagent_ft.engine.context import RunRequest
from rdagent_ft.engine.steps.leaks import drop_leaks
from rdagent_ft.engine.steps.prepare import gather, prepare
from rdagent_ft.errors import DataError
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, SftStage
from rdagent_ft.settings import Settings

WORDS = [f"word{n}" for n in range(500)]


def row(prompt: str, completion: str = "yes") -> Row:
    return make_row((Message(role="user", content=prompt), Message(role="assistant", content=completion)))


def item(number: int, n_words: int = 20) -> Row:
    return row(" ".join(random.Random(number).choices(WORDS, k=n_words)), f"answer {number}")


def splits(train: list[Row], **held_out: list[Row]) -> dict[SplitName, list[Row]]:
    parts: dict[SplitName, list[Row]] = {"train": train, "dev": [], "val": [], "test": []}
    for name in ("dev", "val", "test"):
        parts[name] = held_out.get(name, [item(900 + ord(name[0]))])
    return parts


def test_copies_inside_longer_rows_are_dropped_and_named() -> None:
    held, asked = item(500), item(600)
    leak = row(f"Two examples. {held.prompt_text} And then: {item(501).prompt_text}")
    copied = row(asked.prompt_text.upper())
    clean = [item(n) for n in range(40)]
    check = drop_leaks(splits([*clean, leak, copied], val=[held]), {"gsm8k": [asked]})
    assert check.train == clean
    assert check.n_dropped == 2
    assert {(pair["row"], pair["item"]) for pair in check.report["leaks"]} == {
        (leak.item_id, f"val {held.item_id}"),
        (copied.item_id, f"gsm8k {asked.item_id}"),
    }
    assert check.report["n_train_rows"] == 42
    assert [("gsm8k" in line, "contamination.json" in line) for line in check.notices] == [
        (False, True),
        (True, True),
    ]
    assert "val" in check.notices[0]


def test_near_copies_are_named_and_stay() -> None:
    asked = item(600)
    words = asked.prompt_text.split()
    near = row(" ".join([*words[:10], "changed", *words[11:]]))
    train = [*(item(n) for n in range(40)), near]
    check = drop_leaks(splits(train), {"gsm8k": [asked]})
    assert check.train == train
    assert check.notices == ()
    assert check.report["near_items"] == {"gsm8k": [asked.item_id]}
    assert [pair["reason"] for pair in check.report["near"]] == ["near"]


def test_an_instruction_common_to_the_dataset_is_no_leak() -> None:
    """Its answers tell the rows apart; the split puts such rows into all splits."""
    asked = "Write a short poem about the sea, and let it rhyme well, please, my friend of old."
    train = [row(asked, item(n).prompt_text) for n in range(40)]
    check = drop_leaks(splits(train, val=[row(asked, item(n).prompt_text) for n in range(50, 53)]), {})
    assert check.train == train


def test_a_template_of_few_rows_is_no_leak() -> None:
    rules = " ".join(f"rule{n}" for n in range(40))
    train = [*(item(n) for n in range(400)), *(row(f"{rules} item{n} colour{n}") for n in range(6))]
    check = drop_leaks(splits(train, test=[row(f"{rules} item99 colour99")]), {})
    assert check.train == train


def test_too_few_rows_left_end_the_set_up() -> None:
    items = [item(n) for n in range(30)]
    with pytest.raises(DataError, match="30 of 30 training rows repeat"):
        drop_leaks(splits([row(f"Solve: {i.prompt_text}") for i in items]), {"gsm8k": items})


def weights(path: Path) -> None:
    """Write one tensor of ten zeros as safetensors."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(40))


def test_a_runs_set_up_drops_names_and_tells(tmp_path: Path) -> None:
    asked = [item(n) for n in range(600, 610)]
    rows = [item(n) for n in range(200)]
    leaks = [row(f"Solve this: {each.prompt_text}", "1") for each in asked[:4]]
    lines = [{"prompt": r.prompt_text, "completion": r.completion} for r in (*rows, *leaks)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    bench = tmp_path / "benchmarks/gsm8k/test.jsonl"
    bench.parent.mkdir(parents=True)
    bench.write_text(
        "".join(
            json.dumps({"question": r.prompt_text, "answer": f"#### {n}"}) + "\n" for n, r in enumerate(asked)
        )
    )
    model = write_model(tmp_path / "base")
    weights(model / "model.safetensors")
    settings = Settings(file_path=tmp_path, allow_cpu=True, dev_items=20, val_items=20, test_items=20)
    request = RunRequest(dataset=str(data), model=str(model), benchmarks=("gsm8k",))
    found = gather(request, settings, ())
    trained = {each.prompt_text for each in found.splits["train"]}
    held = {each.prompt_text for name in ("dev", "val", "test") for each in found.splits[name]}
    in_train = [leak for leak in leaks if leak.prompt_text not in held]
    assert in_train
    assert trained.isdisjoint(leak.prompt_text for leak in leaks)
    assert found.n_contaminated == len(in_train)
    recipe = Recipe(data=DataMix(), stages=(SftStage(adapter=FullAdapter()),))
    ctx = at_code_step(tmp_path / "run", recipe, ContainerDouble())
    output = prepare(ctx, found)
    assert [line for line in output.notices if f"{len(in_train)} items of gsm8k" in line]
    assert f"{len(in_train)} rows were left out: they repeat evaluation items" in output.data_facts
    named = json.loads((ctx.run_dir / "data/contamination.json").read_text())
    assert {pair["row"] for pair in named["leaks"]} == {leak.item_id for leak in in_train}
