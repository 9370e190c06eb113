# pyright: basic
"""The trainer callback of all training jobs: one metrics line a log, and the guard that ends bad runs.

A trainer that diverged ends with exit code 0 and may even print loss 0; so the guard looks at every
log, stops the training and leaves the verdict in `failure`. What only some kinds have (missing or equal
rewards, cut completions) is judged by `stage_health`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rdagent_ft.training.stage_health import LOSS_KINDS, Finding, PaceWatch, SignalWatch, TrainedKind

BLOW_UP_FACTOR = 3.0
BLOW_UP_OFFSET = 5.0
BLOW_UP_LOGS = 3
FP16_BAD_NORMS = 5
DEAD_LOGS = 3
DEAD_LOSS_SHARE = 0.9
MAX_METRICS = 48
HELD_OUT, MAX_HELD_OUT = "eval_", 12
"""How the trainer names what it measures on held-out rows, and how many such measures are kept."""
NOT_MEASURED = ("_runtime", "_per_second", "_num_tokens", "_preparation_time")
OWN_NAMES = frozenset({"step", "max_steps", "epoch", "loss", "grad_norm", "learning_rate", "num_tokens"})


class MetricsCallback(TrainerCallback):
    """Appends to `path`: step, max_steps, epoch, loss, grad_norm, learning_rate, n_tokens, elapsed_s, eta_s.

    Behind them come the trainer's own metrics under their names, at most 48. A measurement on held-out
    rows is a line of its own: step, max_steps, epoch and `eval_…`; it has no `loss`. Non-finite numbers are
    written as the strings "nan", "inf", "-inf", so that every line is JSON. A resumed training
    appends; a reader keeps the last line of a step.

    Stops on a non-finite loss or gradient norm; where the loss shows progress, on a loss above 3 times
    the first one + 5 for 3 logs; except for `grpo`, on gradients that became exactly 0 without the loss
    having fallen (an enormous step can drive all activations to 0: no NaN is ever seen, as a run with
    lr 1e6 showed); and on the findings of `stage_health`.

    Attributes:
        failure: why the guard stopped the training.
        ends: metric name -> its first and last finite value, a resumed training's earlier lines included.
    """

    def __init__(self, path: Path, kind: TrainedKind = "sft") -> None:
        self.path = path
        self.kind: TrainedKind = kind
        self.failure: Finding | None = None
        self.ends: dict[str, tuple[float, float]] = {}
        self.n_tokens: int | None = None
        self.first_step: int | None = None
        self._started = time.monotonic()
        self._signal = SignalWatch() if kind == "grpo" else None
        self._pace = PaceWatch()
        self._first_loss: float | None = None
        self._n_high = 0
        self._n_bad_norms = 0
        self._n_dead = 0
        self._moved = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the clock at the first step of this attempt; drop a line that a kill cut off."""
        if self.path.is_file() and state.is_world_process_zero:
            content = self.path.read_bytes()
            if content and not content.endswith(b"\n"):
                self.path.write_bytes(content[: content.rfind(b"\n") + 1])
        if state.global_step:
            self._recall(state.global_step)
        self._started = time.monotonic()
        self.first_step = state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Write the line and look for a reason to stop."""
        if logs and any(name.startswith(HELD_OUT) for name in logs):
            self._held_out(state, logs)
        if not logs or "loss" not in logs:
            return
        loss, grad_norm = _number(logs["loss"]), _number(logs.get("grad_norm"))
        if logs.get("num_tokens") is not None:
            self.n_tokens = int(float(logs["num_tokens"]))
        elapsed_s = time.monotonic() - self._started
        done = state.global_step - (self.first_step or 0)
        values = _method_metrics(logs)
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
            **{name: _json_number(value) for name, value in values.items()},
        }
        self._write(state, line)
        self._remember({"loss": loss, "grad_norm": grad_norm, **values})
        message = self._divergence(loss, grad_norm, fp16=bool(args.fp16))
        if message is not None:
            shown = {key: line[key] for key in ("step", "loss", "grad_norm")}
            self.failure = Finding("train.diverged", message, shown)
        elif self.failure is None:
            self.failure = self._finding(values, line, alone=args.world_size == 1)
        if self.failure is not None:
            control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        """Look for what only a whole training shows."""
        if self.failure is None and self._signal is not None:
            found = self._signal.end()
            if found is not None:
                self.failure = found._replace(evidence={"step": state.global_step, **found.evidence})

    def _held_out(self, state: Any, logs: Mapping[str, Any]) -> None:
        """Write what was measured on held-out rows; the guard looks at trained rows only."""
        found = {
            name: value
            for name, value in _method_metrics(logs).items()
            if name.startswith(HELD_OUT) and not name.endswith(NOT_MEASURED)
        }
        values = dict(list(found.items())[:MAX_HELD_OUT])
        line = {"step": state.global_step, "max_steps": state.max_steps}
        line["epoch"] = round(float(state.epoch or 0.0), 4)
        self._write(state, line | {name: _json_number(value) for name, value in values.items()})
        self._remember(values)

    def _write(self, state: Any, line: dict[str, Any]) -> None:
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, allow_nan=False) + "\n")

    def _finding(self, values: Mapping[str, float], line: dict[str, Any], *, alone: bool) -> Finding | None:
        found = None if self._signal is None else self._signal.see(values)
        if found is None and alone:  # clocks differ between processes, and all must stop at the same step
            work = line["step"] if self.n_tokens is None else self.n_tokens
            found = self._pace.see(work, line["elapsed_s"])
        return None if found is None else found._replace(evidence={"step": line["step"], **found.evidence})

    def _recall(self, last_step: int) -> None:
        """Let the lines of the attempts before, up to the checkpoint, count as seen."""
        if not self.path.is_file():
            return
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
                known = {name: _number(value) for name, value in line.items() if value is not None}
            except (ValueError, TypeError, AttributeError):
                continue  # not one of ours: a reader skips it too
            step = known.get("step")
            if step is not None and step <= last_step:
                values = _method_metrics(known)
                self._remember({"loss": known.get("loss"), "grad_norm": known.get("grad_norm"), **values})
                if self._signal is not None:
                    self._signal.see(values)

    def _remember(self, values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                self.ends[name] = (self.ends.get(name, (value, value))[0], value)

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
        if loss is None or self.kind == "grpo":
            return None
        if self._first_loss is None:
            self._first_loss = loss
        self._moved = self._moved or bool(grad_norm)
        dead = self._moved and grad_norm == 0.0 and loss > DEAD_LOSS_SHARE * self._first_loss
        self._n_dead = self._n_dead + 1 if dead else 0
        if self._n_dead >= DEAD_LOGS:
            return f"gradients vanished with the loss at {loss:.3g} (first {self._first_loss:.3g})"
        if self.kind not in LOSS_KINDS:
            return None
        high = loss > BLOW_UP_FACTOR * self._first_loss + BLOW_UP_OFFSET
        self._n_high = self._n_high + 1 if high else 0
        if self._n_high >= BLOW_UP_LOGS:
            return f"the loss rose from {self._first_loss:.3g} to {loss:.3g} and stayed there"
        return None


def _method_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the trainer's own metrics; names that the line has already are left out."""
    written = OWN_NAMES | {"n_tokens", "elapsed_s", "eta_s"}
    found: dict[str, float] = {}
    for name, value in logs.items():
        if name in written or len(name) > 100 or isinstance(value, bool) or len(found) >= MAX_METRICS:
            continue
        if isinstance(value, (int, float)):
            found[name] = float(value)
    return found


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _json_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
