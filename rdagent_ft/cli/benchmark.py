"""`rdagent-ft benchmark`: score a model on a suite, beside its base; or `benchmark summarize DIR`.

Reads the options, asks for what is missing on a terminal, checks everything before anything starts,
and shows the comparison. Scoring itself is `engine.benchmark`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rdagent_ft.cli.options import AsJson, EnvFile

if TYPE_CHECKING:
    from rdagent_ft.cli.benchmark_plan import Asked
    from rdagent_ft.evaluation.results.plan import BenchmarkPlan
    from rdagent_ft.evaluation.results.summary import Summary

SUMMARIZE = "summarize"
INCOMPLETE_EXIT_CODE = 1
"""The tuned model's result is not `ok`: it was cut by the time limit, or items are missing."""


Model = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="Folder of a model or an adapter; or the word `summarize`."),
]
Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="With `summarize`: the model's or its benchmarks folder."),
]
SuiteOption = Annotated[str, typer.Option("--suite", help="test, quick, core or full.")]
Base = Annotated[Path | None, typer.Option("--base", help="Folder of the base model to compare with.")]
NoBase = Annotated[bool, typer.Option("--no-base", help="Do not score the base model.")]
EndpointUrl = Annotated[
    str | None, typer.Option("--endpoint", help="URL of a server that serves the model, ending in /v1.")
]
ModelName = Annotated[str | None, typer.Option("--model-name", help="Name of the tuned model at --endpoint.")]
BaseModelName = Annotated[
    str | None, typer.Option("--base-model-name", help="Name of the base model at --endpoint.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Items a benchmark: a try-out that decides nothing.")
]
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", help="Time for all of it: 30min, 10m, 600s or 600. No limit without."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the results instead of MODEL/benchmarks.")]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend", help="hf and vllm load the model in a job (vllm on FT_SERVE_PYTHON), server asks one."
    ),
]
Harness = Annotated[str, typer.Option("--harness", help="lm-eval, or opencompass to ask a server.")]
ProtocolOption = Annotated[
    str,
    typer.Option(
        "--protocol", help="own asks our prompts; opencompass those of its dataset configs (its harness)."
    ),
]
Benchmarks = Annotated[
    str | None,
    typer.Option("--benchmarks", help="Benchmarks to ask whole instead of a suite, e.g. gsm8k,aime25."),
]
TokenizerFolder = Annotated[
    Path | None, typer.Option("--tokenizer", help="Folder with the endpoint's tokenizer.json (opencompass).")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, max=4096, help="Less needs less memory.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Use what an interrupted call with the same options left.")
]
Target = Annotated[
    str | None, typer.Option("--target", help="Benchmark that should improve; by default the suite's.")
]
Ascii = Annotated[bool, typer.Option("--ascii", help="Print ASCII signs only.")]


def benchmark(
    model: Model = None,
    folder: Folder = None,
    suite: SuiteOption = "quick",
    base: Base = None,
    no_base: NoBase = False,
    endpoint: EndpointUrl = None,
    model_name: ModelName = None,
    base_model_name: BaseModelName = None,
    limit: Limit = None,
    timeout: Timeout = None,
    out: Out = None,
    backend: BackendOption = None,
    harness: Harness = "lm-eval",
    protocol: ProtocolOption = "own",
    benchmarks: Benchmarks = None,
    tokenizer: TokenizerFolder = None,
    batch_size: BatchSize = 8,
    resume: Resume = False,
    target: Target = None,
    ascii_only: Ascii = False,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a suite and compare it with its base model.

    Without a model, on a terminal, it asks. `benchmark summarize DIR` writes benchmark.json and
    comparison.json again from results that are there, without scoring.
    """
    from rdagent_ft.cli.benchmark_plan import Asked, plan_of
    from rdagent_ft.errors import UserError
    from rdagent_ft.evaluation.results.summary import summarise_folder

    if model == SUMMARIZE:
        if folder is None:
            raise UserError(
                "`benchmark summarize` needs the folder", hint="rdagent-ft benchmark summarize DIR"
            )
        _finish(summarise_folder(folder, target=target), ascii_only=ascii_only, as_json=as_json)
    if folder is not None:
        raise UserError(
            f"{str(folder)!r} is one argument too many", hint="rdagent-ft benchmark MODEL --base DIR"
        )
    asked = Asked(
        model=None if model is None else Path(model),
        suite=suite,
        base=base,
        no_base=no_base,
        endpoint=endpoint,
        model_name=model_name,
        base_model_name=base_model_name,
        limit=limit,
        timeout=timeout,
        out=out,
        backend=backend,
        harness=harness,
        protocol=protocol,
        benchmarks=benchmarks,
        tokenizer=tokenizer,
        batch_size=batch_size,
        resume=resume,
        env_file=env_file,
    )
    if asked.model is None and asked.endpoint is None:
        asked = _ask(asked)
    done = _run(plan_of(asked), env_file)
    _finish(summarise_folder(done, target=target), ascii_only=ascii_only, as_json=as_json)


def _run(plan: BenchmarkPlan, env_file: Path | None) -> Path:
    """Run the call. SIGINT and SIGTERM end it with its jobs; exit codes 130 and 143."""
    import signal
    import sys

    from rdagent_ft.engine.benchmark.asked import RESUME
    from rdagent_ft.engine.benchmark.run import run_benchmark
    from rdagent_ft.settings_sources import load_settings

    codes: list[int] = []

    def stop(number: int, _frame: object) -> None:
        codes.append(128 + number)
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)  # the second one ends it at once
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        return run_benchmark(plan, load_settings(env_file=env_file).settings, _notice)
    except KeyboardInterrupt:
        print(f"interrupted; {RESUME}", file=sys.stderr)
        raise SystemExit(codes[0] if codes else 130) from None


def _ask(asked: Asked) -> Asked:
    import sys

    from rdagent_ft.cli.benchmark_questions import ask_for_all
    from rdagent_ft.errors import UserError

    if not sys.stdin.isatty():
        raise UserError(
            "no model is named, and there is no terminal to ask on",
            hint="rdagent-ft benchmark MODEL [--suite test|quick|core|full] [--base DIR | --no-base] "
            "[--backend hf|vllm|server] [--batch-size N] [--timeout 30min] [--out DIR], "
            "or --endpoint URL --model-name NAME --out DIR",
        )
    try:
        return ask_for_all(asked)
    except (KeyboardInterrupt, EOFError):
        print("\nnothing was started", file=sys.stderr)
        raise SystemExit(130) from None


def _notice(line: str) -> None:
    import sys

    from rdagent_ft.execution.outputs import clean_text

    print(clean_text(line), file=sys.stderr, flush=True)


def _finish(summary: Summary, *, ascii_only: bool, as_json: bool) -> NoReturn:
    """Print the summary and end the process: 1 when the tuned result is not complete."""
    import json

    from rdagent_ft.cli.compare import show_comparison
    from rdagent_ft.execution.outputs import clean_text

    tuned = summary.document["models"][-1]
    if as_json:
        print(json.dumps(summary.document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        if summary.comparison is not None:
            show_comparison(summary.comparison, ascii_only=ascii_only)
        else:
            for key, entry in tuned["benchmarks"].items():
                value = "not scored" if entry["value"] is None else f"{100 * entry['value']:.1f}"
                print(
                    clean_text(f"{key}  {entry['metric']}  {value}  ({entry['n']} of {entry['n_expected']})")
                )
            print("no base result: a score alone does not show that training helped")
        print(f"status: {tuned['status']}")
        print(f"written: {summary.folder / 'benchmark.json'}")
    raise SystemExit(0 if tuned["status"] == "ok" else INCOMPLETE_EXIT_CODE)
