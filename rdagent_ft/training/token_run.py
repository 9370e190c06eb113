# pyright: basic
"""A supervised trainer that starts from tokens of an earlier training, or leaves its own for the next.

Tokenising, masking, cutting and packing stay TRL's: what is kept is what it made of the whole rows, before
it cut them to `max_length`. Only rows whose trained part is everything after the prompt are kept.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

from rdagent_ft.training.job_files import package_versions
from rdagent_ft.training.stage_run import ROW_NUMBER, Setup
from rdagent_ft.training.token_files import (
    CACHE_FOLDER,
    LEFT_NAME,
    MAX_TOKENS,
    DamagedTokensError,
    Tokens,
    read_tokens,
    write_tokens,
)

PACKAGES = ("trl", "transformers", "tokenizers")
"""What decides how a text is tokenised."""


def build_with_tokens(setup: Setup, entry: Path) -> Any:
    """Return the trainer; its `tokens_from` says `cached` or `made`.

    `entry` is the folder of a cache entry. What is missing or unfit there is named in the log and made
    anew; the job then leaves `tokens.safetensors` in its working directory.
    """
    from trl.trainer.sft_trainer import SFTTrainer

    tokens = None if setup.training_args.assistant_only_loss else _usable(setup, entry)
    if tokens is not None:
        arguments = setup.common()
        arguments["train_dataset"] = _dataset(tokens, setup.rows)
        if setup.held_out:
            arguments["eval_dataset"] = _dataset(tokens, setup.held_out)
        trainer: Any = SFTTrainer(**arguments)
        trainer.tokens_from = "cached"
        return trainer
    trainer = _keeping_trainer()(**setup.common())
    if trainer.is_world_process_zero():
        try:
            write_tokens(Path(LEFT_NAME), _whole_tokens(trainer.whole_parts, setup))
        except (DamagedTokensError, OSError) as error:  # they make a later training faster, no more
            print(f"the tokens are not kept: {error}", file=sys.stderr, flush=True)  # noqa: T201
    trainer.whole_parts = None
    trainer.tokens_from = "made"
    return trainer


def _usable(setup: Setup, entry: Path) -> Tokens | None:
    path = entry / CACHE_FOLDER / LEFT_NAME
    if not path.is_file():
        return None
    try:
        tokens = read_tokens(path, n_rows=len(setup.rows) + len(setup.held_out))
        own = _versions()
        if tokens.versions != own:
            raise DamagedTokensError(f"it was made by {tokens.versions}, this is {own}")
    except (DamagedTokensError, OSError) as error:
        print(f"the stored tokens are not used: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return None
    return tokens


def _keeping_trainer() -> type:
    from trl.trainer.sft_trainer import SFTTrainer

    class KeepingTrainer(SFTTrainer):
        """Prepares a dataset in two passes, tokens first, and keeps what the first one made."""

        whole_parts: list[Any] | None

        def __init__(self, **arguments: Any) -> None:
            self.whole_parts = []
            super().__init__(**arguments)

        def _prepare_dataset(self, dataset, processing_class, args, packing, formatting_func, dataset_name):
            rest = (formatting_func, dataset_name)
            if self.whole_parts is None:
                return super()._prepare_dataset(dataset, processing_class, args, packing, *rest)
            whole_args = copy.copy(args)
            whole_args.max_length = None
            whole_args.shuffle_dataset = False
            whole = super()._prepare_dataset(dataset, processing_class, whole_args, False, *rest)
            self.whole_parts.append(whole)
            return super()._prepare_dataset(whole, processing_class, args, packing, *rest)

    return KeepingTrainer


def _whole_tokens(parts: list[Any], setup: Setup) -> Tokens:
    """Return the tokens of all rows, trained and held out, in the order of the training file."""
    import numpy as np
    import pyarrow

    names = [ROW_NUMBER, "input_ids", "labels"]
    table = pyarrow.concat_tables(
        [part.select_columns(names).with_format("arrow")[:] for part in parts], promote_options="permissive"
    )
    if sum(len(chunk.flatten()) for chunk in table["input_ids"].chunks) > MAX_TOKENS:
        raise DamagedTokensError(f"they are more than {MAX_TOKENS}")
    if len(parts) > 1:
        table = table.sort_by(ROW_NUMBER)
    numbers, column = table[ROW_NUMBER].to_pylist(), table["input_ids"].combine_chunks()
    lengths = column.value_lengths().to_numpy()
    if numbers != list(range(len(setup.rows) + len(setup.held_out))) or (lengths == 0).any():
        raise DamagedTokensError("the trainer left out a row, or found nothing in one")
    ids, labels = column.flatten().to_numpy(), table["labels"].combine_chunks().flatten().to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    n_trained = np.add.reduceat(labels != -100, offsets[:-1], dtype=np.int64)
    tokens = Tokens(ids, offsets, lengths - n_trained, _versions())
    if not (_labels(tokens) == labels).all():
        raise DamagedTokensError("a row trains other tokens than those after its prompt")
    return tokens


def _labels(tokens: Tokens) -> Any:
    """Return the label of each token: itself, or -100 before the trained part."""
    import numpy as np

    lengths = np.diff(tokens.offsets)
    place = np.arange(tokens.ids.size) - np.repeat(tokens.offsets[:-1], lengths)
    return np.where(place < np.repeat(tokens.starts, lengths), np.int32(-100), tokens.ids)


def _dataset(tokens: Tokens, rows: list[dict[str, Any]]) -> Any:
    """Return some rows' tokens as a dataset in memory that TRL takes as tokenised."""
    import pyarrow
    from datasets import Dataset

    columns = {"input_ids": tokens.ids, "labels": _labels(tokens)}
    offsets = pyarrow.array(tokens.offsets)
    table = pyarrow.table({
        name: pyarrow.LargeListArray.from_arrays(offsets, pyarrow.array(values))
        for name, values in columns.items()
    })  # fmt: skip
    if len(rows) < tokens.n_rows:
        table = table.take([row[ROW_NUMBER] for row in rows])
    return Dataset(table)


def _versions() -> dict[str, str]:
    found = package_versions(*PACKAGES)
    return {name: found[name] for name in PACKAGES}
