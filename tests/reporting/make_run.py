"""Build realistic run directories without the engine: records straight into a journal.

`make_run(folder)` writes seven loops (kept, rejected, failed) with hostile text in every free field,
a claim on the sealed test and an export. Keyword arguments take things away or change the verdict.
"""

# ruff: noqa: E501  (tables of records read better as one line a record)
from __future__ import annotations

import json
import math
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rdagent_ft.data.rows import DatasetSource, FileRef, ModelSource, ReadReport
from rdagent_ft.evaluation.rows import Comparison, Score, Verdict
from rdagent_ft.execution.port import JobResult, JobSpec
from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import LoraAdapter, SftStage
from rdagent_ft.reporting.records import (
    SETUP_LOOP,
    BaselineOutput,
    ClaimOutput,
    CodeOutput,
    EvaluateOutput,
    ExportOutput,
    FeedbackOutput,
    PrepareOutput,
    ProposeOutput,
    ReportedBenchmark,
    SplitInfo,
    TrainOutput,
)
from rdagent_ft.reporting.seal import LOOK_COLUMNS, SealedLook, first_hash, read_looks, sealed
from rdagent_ft.reporting.stage_records import Failure, TrainingHealth
from rdagent_ft.reporting.tables import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION
from rdagent_ft.values import Frozen

RUN_ID = "r-20261120-a1b2"
MACHINE_FOLDER = "/home/someone/secret-project"
HOSTILE = (
    "<script>alert('x')</script></svg></style><img src=http://evil.example/x onerror=alert(1)>"
    " \x1b[31mred\x1b[0m\t| `tick` ![i](http://evil.example/y) {{ 7*7 }} \u202egnp.exe\n=cmd|' /C calc'!A0"
)
BIG_LOG = "step 1 loss nan \x1b[1mbold\x1b[0m <b>&amp;</b>\n" * 20_000  # about 1 MB
START = datetime(2026, 11, 20, 21, 0, tzinfo=UTC)


def score(value: float, n: int, split: str, benchmark: str = "heldout") -> Score:
    """Return a binary score with its binomial error."""
    stderr = math.sqrt(value * (1 - value) / n)
    half = 1.96 * stderr
    return Score(
        benchmark=benchmark,
        split=split,
        scorer="json_match" if benchmark == "heldout" else "numeric_match",
        value=value,
        stderr=stderr,
        ci95=(max(0.0, value - half), min(1.0, value + half)),
        n=n,
        n_expected=n,
    )


def comparison(
    base: float,
    tuned: float,
    n: int,
    split: str,
    verdict: Verdict,
    benchmark: str = "heldout",
    se: float = 0.0217,
) -> Comparison:
    """Return a paired comparison with the given verdict."""
    delta = tuned - base
    return Comparison(
        benchmark=benchmark,
        split=split,
        n=n,
        base=base,
        tuned=tuned,
        delta=delta,
        se=se,
        ci95=(delta - 1.96 * se, delta + 1.96 * se),
        p_mcnemar=0.0004 if verdict == "improved" else 0.41,
        discordant=(262, 15) if verdict == "improved" else (21, 17),
        mde=2.8 * se,
        verdict=verdict,
    )


class Writer:
    """Inserts records with a clock that only moves forward."""

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True)
        self.run_dir = run_dir
        self.now = START
        self.db = sqlite3.connect(run_dir / "run.db", isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = OFF")
        for script in MIGRATIONS:
            self.db.executescript(script)
        self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def stamp(self) -> str:
        """Return the current time as the journal writes it."""
        return self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def facts(self, **facts: Any) -> None:
        """Write table `run`."""
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
        self.db.executemany("INSERT INTO run VALUES (?, ?)", list(texts.items()))

    def step(self, loop: int, step: str, output: Frozen, seconds: float) -> None:
        """Write a finished step that took `seconds`."""
        started = self.stamp()
        self.now += timedelta(seconds=seconds)
        row = (loop, step, output.model_dump_json(), started, self.stamp(), seconds)
        self.db.execute("INSERT INTO steps VALUES (?,?,?,?,?,?)", row)

    def attempt(
        self, loop: int, step: str, number: int, kind: str, result: JobResult | None, seconds: float
    ) -> None:
        """Write an attempt that starts now; without a result it still runs."""
        attempt_id = f"{RUN_ID}-{loop:03d}-{step}-{number}"
        spec = JobSpec(
            attempt_id=attempt_id,
            kind=kind,  # type: ignore[arg-type]
            argv=("python", f"{MACHINE_FOLDER}/train.py"),
            out_dir=self.run_dir / f"loops/{loop:03d}",
            deadline_unix=2e9,
        )
        ended = (
            (self.now + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
        self.db.execute(
            "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (attempt_id, loop, step, number, kind, spec.model_dump_json(), None,
             result.model_dump_json() if result else None, "done" if result else "running",
             self.stamp(), ended if result else None),
        )  # fmt: skip

    def call(self, role: str, usd: float, tokens: tuple[int, int]) -> None:
        """Write a settled LLM call that is made now."""
        self.db.execute(
            "INSERT INTO llm_calls (key, role, model, status, reserved_usd, input_tokens, output_tokens, usd, "
            "reply, created_utc) VALUES ('k', ?, 'gpt-5-mini', 'settled', 0.1, ?, ?, ?, '{}', ?)",
            (role, *tokens, usd, self.stamp()),
        )

    def look(self, split: str, loop: int, recipe_hash: str, purpose: str) -> None:
        """Write a look, linked to the one before it."""
        looks = read_looks(self.db)
        run_id = self.db.execute("SELECT value FROM run WHERE key = 'run_id'").fetchone()[0]
        link = SealedLook(
            number=len(looks) + 1, utc=self.stamp(), benchmark="heldout", split=split, loop=loop,
            recipe_hash=recipe_hash, purpose=purpose,
        )  # fmt: skip
        values = sealed(link, looks[-1].row_hash or "" if looks else first_hash(run_id)).model_dump()
        row = [values[name] for name in LOOK_COLUMNS.split(", ")]
        self.db.execute(f"INSERT INTO looks ({LOOK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", row)

    def invocation(self, started: str, status: str | None, stop_reason: str | None) -> None:
        """Write one process; with no status it has not ended."""
        active_s = (self.now - datetime.fromisoformat(started)).total_seconds()
        ended = self.stamp() if status else None
        self.db.execute(
            "INSERT INTO invocations (started_utc, ended_utc, owner, bounds, stop_reason, status, active_s) "
            "VALUES (?,?,?,?,?,?,?)",
            (
                started,
                ended,
                '{"pid": 1}',
                '{"loop_n": 7}',
                stop_reason,
                status,
                active_s if status else None,
            ),
        )

    def event(self, kind: str, payload: dict[str, Any]) -> None:
        """Write an event."""
        self.db.execute(
            "INSERT INTO events (utc, kind, payload) VALUES (?,?,?)",
            (self.stamp(), kind, json.dumps(payload)),
        )


def recipe(**changes: Any) -> Recipe:
    """Return the default recipe with changed SFT fields; `data` and `r` go where they belong."""
    data = DataMix(**changes.pop("data", {}))
    adapter = LoraAdapter(r=changes.pop("r", 16))
    return Recipe(data=data, stages=(SftStage(adapter=adapter, **changes),))


# loop: parent, recipe, hypothesis, val, status, gain over the parent
LOOPS: tuple[tuple[int | None, Recipe, str, float | None, str], ...] = (
    (None, recipe(), "The default recipe, so that every planner starts from the same trial.", 0.612, "accepted"),
    (0, recipe(learning_rate=1e-3), "A five times higher learning rate reaches the format sooner.", 0.604, "rejected"),
    (0, recipe(data={"dedupe": "near", "exclude_sources": ("noisy_import",)}),
     "Near-duplicates and the source noisy_import teach wrong routes; leaving them out helps.", 0.742, "accepted"),
    (2, recipe(learning_rate=1e6, data={"dedupe": "near", "exclude_sources": ("noisy_import",)}),
     "An extreme learning rate shows where training breaks.", None, "failed"),
    (2, recipe(r=64, data={"dedupe": "near", "exclude_sources": ("noisy_import",)}), HOSTILE, 0.736, "rejected"),
    (2, recipe(packing=True, data={"dedupe": "near", "exclude_sources": ("noisy_import",)}),
     "Packing fills every sequence, so that more rows fit into the time.", None, "failed"),
    (2, recipe(epochs=4.0, data={"dedupe": "near", "exclude_sources": ("noisy_import",)}),
     "Loss still falls at the end of the second epoch: four epochs finish the job.", 0.858, "accepted"),
)  # fmt: skip


def make_run(
    folder: Path,
    *,
    run_id: str = RUN_ID,
    n_loops: int = 7,
    verdict: Verdict | None = "improved",
    accept: bool = True,
    with_llm: bool = True,
    ended: bool = True,
    hub: bool = False,
    kind: str = "lora",
) -> Path:
    """Write a run under `folder` and return its directory.

    `verdict=None` leaves out claim and export; `accept=False` turns every kept loop into a rejected
    one; `ended=False` leaves the last process open, with a training under way.
    """
    writer = Writer(folder / run_id)
    started = writer.stamp()
    dataset = "acme/router" if hub else f"{MACHINE_FOLDER}/router.jsonl"
    model = "Qwen/Qwen3-0.6B" if hub else f"{MACHINE_FOLDER}/tiny-qwen3"
    writer.facts(
        run_id=run_id, created_utc=started, code_version="0.1.0",
        request={"dataset": dataset, "model": model, "columns": None, "benchmarks": ["gsm8k"]},
        settings={"seed": 42, "val_items": 500, "test_items": 600, "dev_items": 200, "equivalence_margin": 0.02,
                  "target_benchmark": "heldout", "file_path": f"{MACHINE_FOLDER}/finetune_files"},
    )  # fmt: skip
    versions = {
        "python": "3.11.7",
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "trl": "1.16.0",
        "peft": "0.21.2",
    }
    writer.event("environment", versions)
    writer.step(SETUP_LOOP, "prepare", _prepare(hub), 6.0)
    writer.look("val", SETUP_LOOP, "base", "select")
    writer.step(SETUP_LOOP, "baseline", _baseline(), 14.0)
    best: int | None = None
    for number in range(n_loops):
        status = _write_loop(writer, number, accept=accept, with_llm=with_llm, kind=kind)
        best = number if status == "accepted" else best
    if verdict is not None:
        _write_closing(writer, best if best is not None else 0, verdict, accepted=best is not None, kind=kind)
    if not ended:
        writer.attempt(n_loops, "train", 1, "train", None, 0.0)
    writer.invocation(started, "finished" if ended else None, "loop_n" if ended else None)
    writer.db.close()
    return writer.run_dir


def _prepare(hub: bool) -> PrepareOutput:
    return PrepareOutput(
        dataset=DatasetSource(
            name="acme/router" if hub else f"{MACHINE_FOLDER}/router.jsonl",
            kind="hub" if hub else "local",
            revision="c0ffee" * 6 + "1234" if hub else "9f" * 16,
            files=(FileRef(path=f"{MACHINE_FOLDER}/router.jsonl", n_bytes=1_834_220, sha256="ab" * 32),),
        ),
        read=ReadReport(
            format="prompt_completion", mapping={"prompt": "prompt", "completion": "completion"},
            columns=("prompt", "completion", "source"), n_read=4_412, n_rows=4_380,
            dropped={"empty completion": 21, "not a JSON object <script>": 11},
            examples={"empty completion": (f"{MACHINE_FOLDER}/router.jsonl:17",)},
        ),
        model=ModelSource(
            name="Qwen/Qwen3-0.6B" if hub else f"{MACHINE_FOLDER}/tiny-qwen3", path=f"{MACHINE_FOLDER}/tiny-qwen3",
            revision="d" * 40 if hub else "0123456789abcdef", fingerprint="0123456789abcdef",
            architecture="Qwen3ForCausalLM", n_params=1_612_288, max_positions=512, vocab_size=1_024,
            has_chat_template=False,
        ),
        splits={
            "train": SplitInfo(n_items=3_080, sha256="1" * 64), "dev": SplitInfo(n_items=200, sha256="2" * 64),
            "val": SplitInfo(n_items=500, sha256="3" * 64), "test": SplitInfo(n_items=600, sha256="4" * 64),
        },
        n_near_duplicate_groups=214, target_benchmark="heldout", reported_benchmarks=("gsm8k",), scorer="json_match",
        scorer_reason="every gold answer parses as a JSON object", prompt_format="plain", max_new_tokens=64,
        token_percentiles={"p50": 58, "p90": 81, "p99": 240, "max": 611},
        sources={"clean": 2_700, "noisy_import": 380},
        data_facts=("3,080 rows are left for training.",), model_facts=("1.6 M parameters, Qwen3.",),
        machine_facts=("2 CPU cores, no GPU", "24 GiB of memory"), device="cpu",
        notices=(f"no LLM configured; planner: tpe <b> {MACHINE_FOLDER}",), seconds=6.0,
    )  # fmt: skip


def _baseline() -> BaselineOutput:
    return BaselineOutput(
        val=score(0.446, 500, "val"), dev=score(0.43, 200, "dev"),
        dev_errors={"not JSON": 61, "wrong route": 53}, fingerprint="0123456789abcdef", from_cache=False, eval_s=13.2,
    )  # fmt: skip


def _write_loop(writer: Writer, number: int, *, accept: bool, with_llm: bool, kind: str) -> str:
    parent, wanted, hypothesis, val, status = LOOPS[number]
    if status == "accepted" and not accept:
        status = "rejected"
    parent = parent if accept else None
    if with_llm and number:
        writer.call("propose", 0.0123, (4_100, 380))
    writer.step(
        number,
        "propose",
        ProposeOutput(
            planner="llm" if with_llm else "tpe", parent=parent, recipe=wanted, recipe_hash=wanted.hash,
            hypothesis=hypothesis, prediction="val +2 to +5 pp because a third of the errors are not JSON",
            diff={"stages.0.learning_rate": 1e-3}, cites=("lora-lr-10x",),
        ),
        2.5,
    )  # fmt: skip
    if number == 5:
        failure = Failure(
            failure_class="recipe.packing_attention", blame="candidate",
            message=f"packing needs a variable-length attention kernel {HOSTILE}", fix="set packing to no",
        )  # fmt: skip
        writer.step(number, "code", CodeOutput(failure=failure), 0.4)
        feedback = FeedbackOutput(
            status="failed", reason="the recipe was rejected before training", failure=failure
        )
        writer.step(number, "feedback", feedback, 0.1)
        return "failed"
    code = CodeOutput(
        files={"sft.yaml": "5" * 64}, n_train_rows=3_080 if number < 2 else 2_511,
        dropped={} if number < 2 else {"near duplicate": 189, "source noisy_import": 380},
        notes=("warmup_ratio -> warmup_steps 0.05",), estimate_gib=0.4,
    )  # fmt: skip
    writer.step(number, "code", code, 1.2)
    _write_metrics(writer.run_dir, number, diverges=number == 3)
    if number == 3:
        return _write_diverged(writer, number)
    if number == 2:
        writer.attempt(number, "train", 1, "train", _result("infra", "lost", None), 3.0)
    n_attempts = 2 if number == 2 else 1
    writer.attempt(number, "train", n_attempts, "train", _result("ok", "exit", 0), 41.0)
    trained = TrainOutput(
        attempts=n_attempts, kind=kind,  # type: ignore[arg-type]
        weights=f"loops/{number:03d}/stages/1-sft/attempt-{n_attempts}/adapter", weights_sha256=f"{number}" * 64,
        health=TrainingHealth(verdict="ok", n_steps=96, first_loss=2.9, last_loss=0.31, min_loss=0.29, max_grad_norm=3.1),
        train_s=41.3, n_tokens=184_000,
    )  # fmt: skip
    writer.step(number, "train", trained, 43.0)
    _write_scored(writer, number, val, status, wanted, parent)
    return status


def _write_scored(
    writer: Writer, number: int, val: float | None, status: str, wanted: Recipe, parent: int | None
) -> None:  # fmt: skip
    assert val is not None
    before = LOOPS[parent][3] if parent is not None else 0.446
    assert before is not None
    paired = comparison(before, val, 500, "val", "improved" if val - before > 0.05 else "inconclusive")
    writer.look("val", number, wanted.hash, "select")
    evaluated = EvaluateOutput(
        val=score(val, 500, "val"), dev=score(val - 0.01, 200, "dev"), dev_errors={"wrong route": 40},
        vs_parent=paired, vs_base=comparison(0.446, val, 500, "val", "improved"), eval_s=12.5,
    )  # fmt: skip
    writer.step(number, "evaluate", evaluated, 13.0)
    accepted = status == "accepted"
    writer.step(
        number,
        "feedback",
        FeedbackOutput(
            status=status,  # type: ignore[arg-type]
            reason="the expected gain is above zero" if accepted else "the expected gain is not above zero",
            posterior_gain=paired.delta * 0.9, p_gain=0.99 if accepted else 0.31,
            facts=(f"val {val:.3f}", "loss fell from 2.9 to 0.31"), lesson=HOSTILE if number == 4 else None,
            new_parent=accepted,
        ),
        0.8,
    )  # fmt: skip


def _write_diverged(writer: Writer, number: int) -> str:
    failure = Failure(
        failure_class="train.diverged", blame="candidate",
        message=f"loss became NaN at step 3, log in {MACHINE_FOLDER}/train.log", fix="lower learning_rate below 1e-2",
    )  # fmt: skip
    writer.attempt(number, "train", 1, "train", _result("ok", "exit", 0, BIG_LOG), 9.0)
    health = TrainingHealth(
        verdict="diverged", n_steps=8, first_loss=2.9, last_loss=None, message="loss is NaN"
    )
    writer.step(number, "train", TrainOutput(attempts=1, health=health, train_s=8.8, failure=failure), 9.4)
    writer.step(
        number, "feedback", FeedbackOutput(status="failed", reason="training diverged", failure=failure), 0.1
    )
    return "failed"


def _write_metrics(run_dir: Path, number: int, *, diverges: bool) -> None:
    folder = run_dir / f"loops/{number:03d}/stages/1-sft/attempt-{2 if number == 2 else 1}"
    folder.mkdir(parents=True)
    rows: list[str] = []
    for step in range(1, 9 if diverges else 97):
        if diverges:
            loss: Any = 2.9 * 4**step if step < 3 else "nan"
        else:
            loss = 0.3 + 2.6 * math.exp(-step / (14 + 3 * number)) + 0.05 * math.sin(step * 1.7 + number)
        rows.append(json.dumps({"step": step, "loss": loss, "grad_norm": 1.0, "learning_rate": 2e-4}))
    rows[2:2] = ['{"step": "x", "loss": 1}', '{"step": 2, "eval_loss": 1.5}', '{"step": 3, "loss": NaN}']
    if number == 1:
        rows[2:2] = ["not json <script>"]
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")


def _write_closing(writer: Writer, loop: int, verdict: Verdict, *, accepted: bool, kind: str) -> None:
    base, tuned = (
        0.431,
        {"improved": 0.843, "inconclusive": 0.437, "equivalent": 0.433, "regressed": 0.37}[verdict],
    )
    se = 0.006 if verdict == "equivalent" else 0.0217
    paired = comparison(base, tuned, 600, "test", verdict, se=se)
    recipe_hash = LOOPS[loop][1].hash
    writer.look("test", loop, recipe_hash, "claim")
    beside = ReportedBenchmark(
        base=score(0.03, 200, "test", "gsm8k"), tuned=score(0.025, 200, "test", "gsm8k"),
        comparison=comparison(0.03, 0.025, 200, "test", "inconclusive", "gsm8k", se=0.012),
    )  # fmt: skip
    val_delta = {"improved": 0.412 + 0.018, "inconclusive": 0.02, "equivalent": 0.01, "regressed": 0.01}[
        verdict
    ]
    claim = ClaimOutput(
        loop=loop, recipe_hash=recipe_hash, accepted=accepted, base=score(base, 600, "test"),
        tuned=score(tuned, 600, "test"), comparison=paired, val_delta=val_delta, optimism=val_delta - paired.delta,
        opening=1, reported={"gsm8k": beside}, eval_s=31.0,
    )  # fmt: skip
    writer.step(loop, "claim", claim, 32.0)
    if accepted:
        export = ExportOutput(
            adapter="export/adapter" if kind == "lora" else None, merged="export/merged", max_logit_diff=3.1e-6,
            files={"adapter/adapter_model.safetensors": f"{loop}" * 64}, seconds=2.0,
        )  # fmt: skip
        writer.step(loop, "export", export, 2.4)


def _result(failure_class: str, reason: str, exit_code: int | None, log: str = "") -> JobResult:
    return JobResult(
        failure_class=failure_class,  # type: ignore[arg-type]
        reason=reason, exit_code=exit_code, started_unix=1.0, ended_unix=42.0, log_tail=log,
    )  # fmt: skip
