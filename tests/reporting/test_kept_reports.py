"""Which checkpoint a stage kept: shown for each stage of a loop, in both reports."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from make_run import make_run

from rdagent_ft.recipe.stages import StageKind
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.records import TrainOutput
from rdagent_ft.reporting.report_html import report_html
from rdagent_ft.reporting.report_md import report_markdown
from rdagent_ft.reporting.stage_records import KeptStep, StageOutput
from rdagent_ft.reporting.stages import kept_words

BEST = KeptStep(step=40, n_steps=60, best_step=40, metric="eval_loss", best_value=0.5123, n_held_out=32)
LAST = BEST.model_copy(update={"step": 60})
UNKNOWN = LAST.model_copy(update={"best_step": None, "best_value": None, "n_held_out": 1})


def stage(number: int, kind: StageKind, kept: KeptStep | None) -> StageOutput:
    folder = f"loops/002/stages/{number}-{kind}"
    return StageOutput(number=number, kind=kind, folder=folder, weights=f"{folder}/adapter", kept=kept)


def write_stages(run_dir: Path, loop: int, stages: tuple[StageOutput, ...]) -> None:
    """Give a loop that was trained these stages."""
    with sqlite3.connect(run_dir / "run.db") as db:
        key = "loop = ? AND step = 'train'"
        (text,) = db.execute(f"SELECT output FROM steps WHERE {key}", (loop,)).fetchone()
        output = TrainOutput.model_validate(json.loads(text)).model_copy(update={"stages": stages})
        db.execute(f"UPDATE steps SET output = ? WHERE {key}", (output.model_dump_json(), loop))
    db.close()


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (BEST, "kept step 40 of 60 (best eval_loss 0.512 on 32 held-out rows)"),
        (LAST, "kept step 60 of 60 (the last one; best eval_loss 0.512 on 32 held-out rows at step 40)"),
        (UNKNOWN, "kept step 60 of 60 (eval_loss on 1 held-out row was never a number)"),
        (None, ""),
    ],
)
def test_what_was_kept_in_words(kept: KeptStep | None, words: str) -> None:
    assert kept_words(stage(1, "sft", kept)) == words


def test_both_reports_say_it_for_each_stage(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    before = report_markdown(open_run(run_dir)), report_html(open_run(run_dir))
    assert not any("kept step" in text for text in before)
    write_stages(run_dir, 2, (stage(1, "sft", BEST), stage(2, "dpo", None), stage(3, "kto", LAST)))
    view = open_run(run_dir)
    markdown, page = report_markdown(view), report_html(view)
    assert "stage 1 (sft) kept step 40 of 60 (best eval_loss 0.512 on 32 held-out rows)" in page
    assert "stage 3 (kto) kept step 60 of 60 (the last one; best eval_loss 0.512 on" in page
    plain = markdown.replace("\\", "")
    assert "- Weights: stage 1 (sft) kept step 40 of 60 (best eval_loss 0.512 on 32 held-out rows)" in plain
    assert "- Weights: stage 3 (kto) kept step 60 of 60 (the last one; best eval_loss 0.512 on" in plain
    assert "stage 2 (dpo) kept" not in page + markdown
    assert "<td>the last ones</td>" in page  # of the second stage, in the table


def test_a_single_stage_with_held_out_rows_has_a_table(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    assert "Stages of loop 2" not in report_html(open_run(run_dir))
    write_stages(run_dir, 2, (stage(1, "sft", BEST),))
    page = report_html(open_run(run_dir))
    assert "Stages of loop 2" in page
    assert "<td>kept step 40 of 60 (best eval_loss 0.512 on 32 held-out rows)</td>" in page
