"""The clean subset of a claim: test items without a near copy in what the claimed loop really trained on.

`data/contamination.json` speaks of the train split. A loop may train on less of it, and on texts that the
split never had: rows of a data script or a teacher, given preference pairs, samples of the model itself.
All of them lie in the loop's `data` folder or are the run's pairs, and are compared here. Copies were left
out before; what is left is near: the same question with a word or a number changed. Paraphrases and
translations are not found, as in every check of wording (`data/contamination.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rdagent_ft.data.contamination import document_of, find_overlaps, item_of
from rdagent_ft.data.eval_files import texts_in
from rdagent_ft.data.eval_items import EvalItem
from rdagent_ft.data.near_duplicates import normalise
from rdagent_ft.data.preference_store import read_preference_rows
from rdagent_ft.data.rows import Row
from rdagent_ft.data.whole_overlap import Document
from rdagent_ft.data.write import read_row_file
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.steps.stage_data import MIX_NAME, PREFERENCES_NAME
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.score import Samples
from rdagent_ft.evaluation.statistics import compare
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import AnyPreferenceStage
from rdagent_ft.reporting.records import CleanSubset

_OF_THE_MIX = frozenset({MIX_NAME, "train.jsonl", "turns.jsonl", "prompts.jsonl"})
"""The mix, and the same rows as the trainers read them."""
_OF_GIVEN_PAIRS = frozenset({"pairs.jsonl", "labelled.jsonl"})
"""The run's preference rows as the trainers read them."""


def clean_subset(ctx: RunContext, loop: int, recipe: Recipe, samples: Samples, task: EvalTask) -> CleanSubset:
    """Return the target's comparison without items that have a near copy in what `loop` trained on."""
    data = ctx.run_dir / "data"
    train = read_row_file(data / "train.jsonl")
    asked = {normalise(row.prompt_text) for row in train}
    # As when leaks were looked for: an instruction common to the dataset may stand in two splits.
    items = [
        item_of(row, task.split)
        for row in read_row_file(data / f"{task.split}.jsonl")
        if normalise(row.prompt_text) not in asked
    ]
    mix, made = trained_texts(data, ctx.loop_dir(loop) / "data", recipe)
    named = near_items(train, mix, made, items)
    base, tuned = (samples[role, task.benchmark, task.split] for role in ("base", "tuned"))
    near = {row.item_id for row in base} & named
    clean = [[row for row in rows if row.item_id not in near] for rows in (base, tuned)]
    if not near or not clean[0]:
        return CleanSubset(n_near=len(near))
    comparison = compare(clean[0], clean[1], margin=ctx.settings.equivalence_margin)
    return CleanSubset(n_near=len(near), comparison=comparison)


def near_items(
    train: Sequence[Row], mix: Sequence[Row], made: Sequence[Document], items: Sequence[EvalItem]
) -> set[str]:
    """Return the ids of items that share wording with something that was trained.

    In the split, wording of more than five prompts is a template (as in `leaks`). For texts made later
    that rule would hide an item that was written down ten times, so there only wording of clean rows of
    the split is no evidence.

    Args:
        train: the train split; leaks are out.
        mix: rows of the loop's data mix: rows of the split, and rows that were made.
        made: further texts that were trained.
        items: what scores rest on.
    """
    own = [document_of(row) for row in train]
    split_finds = find_overlaps(own, items, max_template_share=0.0)
    trained = {row.item_id for row in mix}
    found = {
        items[overlap.item].item_id for overlap in split_finds if train[overlap.document].item_id in trained
    }
    near_rows = {overlap.document for overlap in split_finds}
    known = [document for number, document in enumerate(own) if number not in near_rows]
    split_ids = {row.item_id for row in train}
    new = [document_of(row) for row in mix if row.item_id not in split_ids]
    texts = list(dict.fromkeys([*new, *made]))
    overlaps = find_overlaps(texts, items, known=known, max_template_share=1.0)
    return found | {items[overlap.item].item_id for overlap in overlaps}


def trained_texts(run_data: Path, loop_data: Path, recipe: Recipe) -> tuple[list[Row], list[Document]]:
    """Return the loop's mix, and every other text that a stage of the recipe was trained on.

    The mix is empty where every stage trains on given pairs. Raises `DataError` for a file of the loop
    that cannot be read.
    """
    made: list[Document] = []
    given = [
        isinstance(stage, AnyPreferenceStage) and stage.pairs == "given" for _, stage in recipe.trained_stages
    ]
    if any(given):
        for row in read_preference_rows(run_data / PREFERENCES_NAME):
            prompt = tuple(turn.content for turn in row.prompt)
            made += [Document(prompt, answer) for answer in (row.chosen, row.rejected) if answer is not None]
    for path in sorted(loop_data.glob("*.jsonl")):
        if path.name not in _OF_THE_MIX | _OF_GIVEN_PAIRS:
            made += [Document(tuple(texts_in(value)), "") for value in _lines(path)]
    return [] if all(given) else read_row_file(loop_data / MIX_NAME), made


def _lines(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}") from None
