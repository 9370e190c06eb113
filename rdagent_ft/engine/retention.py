"""Freeing disk: weights that no later step reads go, those of the best models never do.

After each loop the checkpoints of its trainings go, and the weights of all loops but the best
FT_KEEP_MODELS. What leads, what was or would be claimed, and what scored best on val always stays. A loop
whose weights are gone keeps its recipe, samples, logs and manifests: it is reported and compared as before,
and its recipe trains it again. Before a training, `make_room` asks for the disk that it needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.run_files import WeightsFolder, disk_bytes, remove_folder, weight_folders
from rdagent_ft.engine.selection import best_candidate
from rdagent_ft.recipe.disk import chain_disk_bytes
from rdagent_ft.recipe.memory import read_model_shape
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.records import EvaluateOutput, TrainOutput
from rdagent_ft.reporting.stage_records import Failure

GIB = 1 << 30
EVENT = "retention"


class Standing(NamedTuple):
    """How a loop with weights stands: its val score, and whether all of val was scored."""

    loop: int
    val: float
    whole_val: bool


class Shortage(NamedTuple):
    """What a training needs, what it may take, and why no more: all in bytes but the words."""

    needed: int
    left: int
    words: str


def kept_loops(standings: Sequence[Standing], must_stay: Collection[int], n_keep: int) -> list[int]:
    """Return the loops whose weights stay, in order: `must_stay`, the best on val, and then the next best.

    A loop that was scored on a part of val ranks behind all that were scored on the whole of it: its score
    is of other items. On a tie the earlier loop stays.
    """
    ranked = sorted(standings, key=lambda one: (not one.whole_val, -one.val, one.loop))
    kept = set(must_stay) | {one.loop for one in ranked[:1]}
    for one in ranked:
        if len(kept) >= n_keep:
            break
        kept.add(one.loop)
    return sorted(kept)


def free_disk(ctx: RunContext, *, n_keep: int | None = None, for_room: bool = False) -> int:
    """Remove what no later step of the run reads; return the bytes freed. Safe to repeat at any time.

    `for_room`: of kept loops, too, only the weights that are scored and handed over stay; a chain's merges
    between its stages go. A folder that cannot be removed is told and left.
    """
    kept = kept_loops(
        _standings(ctx), _must_stay(ctx), ctx.settings.keep_models if n_keep is None else n_keep
    )
    doomed = list(_doomed(ctx, kept, for_room=for_room))
    if not doomed:
        return 0
    gone = sorted({loop for loop, folder in doomed if loop not in kept and folder.kind == "weights"})
    # Written down first: a crash must not leave weights missing without a word.
    ctx.journal.event(EVENT, {"phase": "begin", "kept": kept, "weights_of": gone, "n_folders": len(doomed)})
    freed = 0
    for _, folder in doomed:
        n_bytes = disk_bytes(folder.path)
        try:
            remove_folder(folder.path)
        except OSError as error:
            ctx.progress.notice(f"{ctx.relative(folder.path)} cannot be removed: {error.strerror or error}")
            continue
        freed += n_bytes
        ctx.faults.hit("while-freeing")
    ctx.journal.event(EVENT, {"phase": "end", "freed_bytes": freed})
    what = "checkpoints" if not gone else f"checkpoints, and the weights of loop {_listed(gone)}"
    ctx.progress.notice(f"disk: {_size(freed)} freed ({what}); kept: the weights of loop {_listed(kept)}")
    return freed


def make_room(ctx: RunContext, loop: int, recipe: Recipe) -> Failure | None:
    """See to it that the disk holds what training `recipe` writes; return why it cannot, or None.

    Frees all but the best model before it gives up. A training that has begun goes on: its files count
    among what is used already.
    """
    if (ctx.loop_dir(loop) / "stages").exists() or _shortage(ctx, recipe) is None:
        return None
    free_disk(ctx, n_keep=1, for_room=True)
    short = _shortage(ctx, recipe)
    if short is None:
        return None
    return Failure(
        failure_class="resource.disk_full",
        blame="environment",
        message=f"training this recipe writes about {_size(short.needed)}, and {_size(short.left)} are left "
        f"({short.words}) with all but the best models freed",
        fix="free disk space under FT_FILE_PATH, raise FT_DISK_BUDGET_GIB, or train an adapter",
    )


def _shortage(ctx: RunContext, recipe: Recipe) -> Shortage | None:
    shape = read_model_shape(Path(ctx.prepared.model.path))
    needed = chain_disk_bytes(recipe, shape, ctx.prepared.device)
    free = shutil.disk_usage(ctx.run_dir).free
    shortages = [Shortage(needed, free, "on the disk of the run")]
    if ctx.settings.disk_budget_gib is not None:
        budget = int(ctx.settings.disk_budget_gib * GIB)
        used = disk_bytes(ctx.run_dir)
        words = f"of FT_DISK_BUDGET_GIB {ctx.settings.disk_budget_gib:g}, {_size(used)} are used"
        shortages.append(Shortage(needed, max(0, budget - used), words))
    tightest = min(shortages, key=lambda one: one.left)
    return tightest if tightest.left < needed else None


def _standings(ctx: RunContext) -> list[Standing]:
    found: list[Standing] = []
    for loop in ctx.journal.finished_loops():
        evaluated = ctx.journal.output(loop, "evaluate", EvaluateOutput)
        if evaluated is not None and evaluated.val is not None and evaluated.failure is None:
            found.append(Standing(loop, evaluated.val.value, evaluated.share_scored == 1.0))
    return found


def _must_stay(ctx: RunContext) -> set[int]:
    """Return the loop that leads or would be claimed now, and every loop that was claimed.

    A loop that is neither never becomes one later: a leader is only replaced by a newer loop, and the
    expected gain that ranks the others is fixed when a loop ends.
    """
    stay = {loop for loop in ctx.journal.finished_loops() if ctx.journal.is_done(loop, "claim")}
    best = best_candidate(ctx)
    return stay if best is None else stay | {best}


def _doomed(ctx: RunContext, kept: Sequence[int], *, for_room: bool) -> Iterator[tuple[int, WeightsFolder]]:
    """Yield (loop, folder) of what may go. Loops that are not finished are not looked at."""
    for loop in ctx.journal.finished_loops():
        trained = ctx.journal.output(loop, "train", TrainOutput)
        final = None if trained is None or trained.weights is None else ctx.run_dir / trained.weights
        for folder in weight_folders(ctx.loop_dir(loop), with_claim=ctx.journal.is_done(loop, "claim")):
            spared = folder.kind == "weights" and loop in kept and (not for_room or folder.path == final)
            if not spared:
                yield loop, folder


def _listed(loops: Sequence[int]) -> str:
    return ", ".join(str(loop) for loop in loops) or "none"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / GIB:,.1f} GiB" if n_bytes >= GIB // 10 else f"{n_bytes / 2**20:,.1f} MiB"
