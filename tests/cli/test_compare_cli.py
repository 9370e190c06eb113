"""`rdagent-ft compare` as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rdagent_ft.cli.main import main
from rdagent_ft.evaluation.rows import SampleRow


def write_eval(
    folder: Path, n_right: int, n: int = 200, benchmark: str = "heldout", split: str = "val"
) -> Path:
    """Write the eval folder of a loop with one benchmark split."""
    place = folder / f"{benchmark}-{split}"
    place.mkdir(parents=True)
    rows = [
        SampleRow(
            benchmark=benchmark,
            split=split,
            item_id=f"i{at}",
            prompt_hash=f"p{at}",
            prediction="x",
            gold="x",
            score=float(at < n_right),
        )
        for at in range(n)
    ]
    (place / "samples.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["compare", *argv])
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def test_a_table_for_people_and_one_document_for_programs(call: Any, tmp_path: Path) -> None:
    a, b = str(write_eval(tmp_path / "a", 100)), str(write_eval(tmp_path / "b", 140))
    code, out, err = call(a, b)
    assert (code, err) == (0, "")
    assert "heldout/val" in out
    assert "↑*" in out
    assert "decision: accept" in out
    assert "\x1b" not in out, "grey only on a terminal"
    code, out, _ = call(a, b, "--ascii")
    assert (code, out.isascii()) == (0, True)
    code, out, _ = call(a, b, "--json")
    document = json.loads(out)
    assert (code, document["schema_version"], document["decision"]) == (0, 1, "accept")
    assert document["pairs"]["heldout/val"]["mcnemar"] == {"b": 40, "c": 0, "p": pytest.approx(0, abs=1e-6)}


def test_a_rejected_candidate_can_fail_a_pipeline(call: Any, tmp_path: Path) -> None:
    a, b = str(write_eval(tmp_path / "a", 140)), str(write_eval(tmp_path / "b", 100))
    assert call(a, b)[0] == 0
    assert call(a, b, "--fail-on-reject")[0] == 10
    assert call(b, a, "--fail-on-reject")[0] == 0


def test_target_and_margin(call: Any, tmp_path: Path) -> None:
    for name, n_right in (("a", 500), ("b", 490)):
        write_eval(tmp_path / name, n_right, 1000)
        write_eval(tmp_path / name, 600 if name == "b" else 500, 1000, "gsm8k", "test")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert json.loads(call(a, b, "--json")[1])["decision"] == "inconclusive"
    strict = json.loads(call(a, b, "--json", "--target", "gsm8k", "--margin", "1.2")[1])
    assert (strict["margin"], strict["decision"]) == (0.012, "reject")
    loose = json.loads(call(a, b, "--json", "--target", "gsm8k", "--margin", "3")[1])
    assert loose["decision"] == "accept"
    assert list(loose["pairs"]) == ["gsm8k", "heldout/val"]
    for margin in ("0.03", "100", "nan"):
        code, _, err = call(a, b, "--margin", margin)
        assert code == 2
        assert "margin" in err
    code, _, err = call(a, b, "--target", "mmlu")
    assert (code, "gsm8k" in err) == (2, True)


def test_mistakes_and_damage(call: Any, tmp_path: Path) -> None:
    a = write_eval(tmp_path / "a", 10, 20)
    code, out, err = call(str(a), str(tmp_path / "none"), "--json")
    assert (code, out) == (2, "")
    assert "does not exist" in err
    b = write_eval(tmp_path / "b", 10, 21)
    code, _, err = call(str(a), str(b))
    assert code == 2
    assert "1 only in the candidate (i20)" in err
    path = b / "heldout-val" / "samples.jsonl"
    path.write_text(path.read_text()[:-30])
    code, _, err = call(str(a), str(b))
    assert code == 8
    assert "samples.jsonl:21" in err
