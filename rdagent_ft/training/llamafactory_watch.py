# pyright: basic
"""The callback through which a LLaMA-Factory training is seen: its state, its rows, its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

CLOCKS = ("train_runtime", "train_tokens_per_second")
"""Logged by the trainer at every step; the metrics have clocks of their own."""


class TrainingWatch(TrainerCallback):
    """Judges the tokenised rows before the first step and passes every log on to `metrics`.

    Attributes:
        metrics: writes the metrics and guards against divergence.
        checks: what `judge` said of the rows.
        state: the trainer's state; None when it never started.
        device: `cpu` or `cuda`.
        train_s: seconds in the training loop.
    """

    def __init__(self, metrics: Any, judge: Callable[[Any, set[int]], dict[str, Any]]) -> None:
        self.metrics = metrics
        self.checks: dict[str, Any] = {}
        self.state: Any = None
        self.device = "unknown"
        self.train_s = 0.0
        self._judge = judge
        self._started = time.monotonic()

    def on_train_begin(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        """Judge the rows; ends the job when they train nothing."""
        self.state, self.device = state, str(args.device.type)
        listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = {token for token in (listed if isinstance(listed, list) else [listed]) if token is not None}
        self.checks = self._judge(train_dataloader.dataset, ends)  # pyright: ignore[reportOptionalMemberAccess]
        self.metrics.on_train_begin(args, state, control)
        self._started = time.monotonic()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Give the count of tokens the name that it has with TRL, and pass the log on."""
        values = {name: value for name, value in (logs or {}).items() if name not in CLOCKS}
        n_tokens = values.pop("num_input_tokens_seen", None)
        if n_tokens is not None:
            values["num_tokens"] = n_tokens
        self.metrics.on_log(args, state, control, logs=values)

    def on_train_end(self, args, state, control, **kwargs):
        """Stop the clock."""
        self.state, self.train_s = state, time.monotonic() - self._started
