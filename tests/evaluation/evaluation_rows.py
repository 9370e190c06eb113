"""Rows for tests of the statistics."""

from __future__ import annotations

from collections.abc import Sequence

from rdagent_ft.evaluation.rows import SampleRow


def rows_of(
    scores: Sequence[float | None], clusters: Sequence[str | None] | None = None, **changes: object
) -> list[SampleRow]:
    """Return one row a score, with ids i0, i1, …"""
    found = clusters or [None] * len(scores)
    return [
        SampleRow.model_validate(
            {
                "benchmark": "heldout",
                "split": "val",
                "item_id": f"i{number}",
                "cluster": cluster,
                "prompt_hash": f"p{number}",
                "prediction": "x",
                "gold": "y",
                "score": score,
                "unscored_reason": "no reference" if score is None else None,
                **changes,
            }
        )
        for number, (score, cluster) in enumerate(zip(scores, found, strict=True))
    ]
