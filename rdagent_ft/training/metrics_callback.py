# pyright: basic
"""The trainer callback of all training jobs: one metrics line a log, and the divergence guard.

A trainer that diverged ends with exit code 0 and may even print loss 0; so the guard looks at loss
and gradient norm at every log, stops the training and leaves the verdict in `failure`.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

BLOW_UP_FACTOR = 3.0
BLOW_UP_OFFSET = 5.0
BLOW_UP_LOGS = 3
FP16_BAD_NORMS = 5
DEAD_LOGS = 3
DEAD_LOSS_SHARE = 0.9


class MetricsCallback(TrainerCallback):
    """Appends to `path`: step, max_steps, epoch, loss, grad_norm, learning_rate, n_tokens, elapsed_s, eta_s.

    Non-finite numbers are written as the strings "nan", "inf", "-inf", so that every line is JSON.
    A resumed training appends; a reader keeps the last line of a step.

    Stops on a non-finite loss or gradient norm, on a loss above 3 times the first one + 5 for 3
    logs, and on gradients that became exactly 0 without the loss having fallen (an enormous step
    can drive all activations to 0: no NaN is ever seen, as a run with lr 1e6 showed).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: tuple[str, dict[str, Any]] | None = None
        self.n_tokens: int | None = None
        self.first_step: int | None = None
        self._started = time.monotonic()
        self._first_loss: float | None = None
        self._n_high = 0
        self._n_bad_norms = 0
        self._n_dead = 0
        self._moved = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the clock at the first step of this attempt; drop a line that a kill cut off."""
        if self.path.is_file():
            content = self.path.read_bytes()
            if content and not content.endswith(b"\n"):
                self.path.write_bytes(content[: content.rfind(b"\n") + 1])
        self._started = time.monotonic()
        self.first_step = state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Write the line and look for divergence."""
        if not logs or "loss" not in logs:
            return
        loss, grad_norm = _number(logs["loss"]), _number(logs.get("grad_norm"))
        if logs.get("num_tokens") is not None:
            self.n_tokens = int(float(logs["num_tokens"]))
        elapsed_s = time.monotonic() - self._started
        done = state.global_step - (self.first_step or 0)
        line = {
            "step": state.global_step,
            "max_steps": state.max_steps,
            "epoch": round(float(state.epoch or 0.0), 4),
            "loss": _json_number(loss),
            "grad_norm": _json_number(grad_norm),
            "learning_rate": _json_number(_number(logs.get("learning_rate"))),
            "n_tokens": self.n_tokens,
            "elapsed_s": round(elapsed_s, 3),
            "eta_s": round(elapsed_s / done * (state.max_steps - state.global_step), 1) if done else None,
        }
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
        message = self._divergence(loss, grad_norm, fp16=bool(args.fp16))
        if message is not None:
            self.failure = (message, {key: line[key] for key in ("step", "loss", "grad_norm")})
            control.should_training_stop = True

    def _divergence(self, loss: float | None, grad_norm: float | None, *, fp16: bool) -> str | None:
        if loss is not None and not math.isfinite(loss):
            return f"the loss became {loss}"
        if grad_norm is not None and not math.isfinite(grad_norm):
            # Under fp16 the loss scaler finds its scale through a few infinite norms.
            self._n_bad_norms += 1
            if not fp16 or self._n_bad_norms >= FP16_BAD_NORMS:
                return f"the gradient norm became {grad_norm} (loss shown as {loss})"
        else:
            self._n_bad_norms = 0
        if loss is None:
            return None
        if self._first_loss is None:
            self._first_loss = loss
        self._moved = self._moved or bool(grad_norm)
        dead = self._moved and grad_norm == 0.0 and loss > DEAD_LOSS_SHARE * self._first_loss
        self._n_dead = self._n_dead + 1 if dead else 0
        if self._n_dead >= DEAD_LOGS:
            return f"gradients vanished with the loss at {loss:.3g} (first {self._first_loss:.3g})"
        high = loss > BLOW_UP_FACTOR * self._first_loss + BLOW_UP_OFFSET
        self._n_high = self._n_high + 1 if high else 0
        if self._n_high >= BLOW_UP_LOGS:
            return f"the loss rose from {self._first_loss:.3g} to {loss:.3g} and stayed there"
        return None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _json_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
