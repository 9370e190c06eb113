"""`rdagent-ft benchmark` up to the point where scoring starts, and `benchmark summarize`.

Scoring is replaced by a module that notes the plan and leaves result folders.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rdagent_ft.cli.main import main
from rdagent_ft.evaluation.results.document import GenerationUse, ModelIdentity, ResultDocument
from rdagent_ft.evaluation.results.folder import entry_of, write_result
from rdagent_ft.evaluation.results.plan import BenchmarkPlan
from rdagent_ft.evaluation.rows import SampleRow


def leave_result(folder: Path, role: str, n_right: int, n: int = 200, n_expected: int = 200) -> None:
    """Write a result folder on one benchmark."""
    rows = [
        SampleRow(
            benchmark="ifeval", split="test", item_id=f"i{at}", prompt_hash="p", prediction="x", gold="x",
            score=float(at < n_right),
        )
        for at in range(n)
    ]  # fmt: skip
    document = ResultDocument(
        run_id="r",
        created="2026-11-20T21:00:00Z",
        status="ok" if n == n_expected else "timeout",
        model=ModelIdentity.model_validate({"role": role, "id": role, "kind": "full"}),
        generation=GenerationUse(protocol="chat"),
        benchmarks={"ifeval": entry_of(rows, scorer="exact_match", n_expected=n_expected)},
    )
    write_result(folder, document, {"ifeval": rows})


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[BenchmarkPlan]:
    """The plans that were to be run."""
    seen: list[BenchmarkPlan] = []

    def run_benchmark(plan: BenchmarkPlan, _settings: Any, notice: Any) -> Path:
        notice("scoring \x1b[2J")
        seen.append(plan)
        if plan.has_base:
            leave_result(plan.base_folder, "base", 80)
        leave_result(plan.tuned_folder, "candidate", 120, n=150 if plan.timeout_s == 1 else 200)
        return plan.out

    module = ModuleType("rdagent_ft.engine.benchmark.run")
    module.run_benchmark = run_benchmark  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "rdagent_ft.engine.benchmark.run", module)
    monkeypatch.setattr("rdagent_ft.cli.benchmark_plan.check_suite", lambda *_: ())
    return seen


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["benchmark", *argv])
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """A tuned model as the guide lays it out, and its base."""
    tuned, base = tmp_path / "outputs" / "mine" / "merged_16bit", tmp_path / "base-model"
    for folder in (tuned, base):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    return tuned, base


def test_a_model_beside_its_base(call: Any, plans: list[BenchmarkPlan], models: tuple[Path, Path]) -> None:
    tuned, base = models
    code, out, err = call(str(tuned), "--suite", "standard", "--base", str(base), "--timeout", "30min")
    assert code == 0
    (plan,) = plans
    assert (plan.suite, plan.timeout_s, plan.backend, plan.batch_size) == ("core", 1800, "hf", 8)
    assert plan.out == tuned.parent / "benchmarks", "beside the weights, as the guide has it"
    assert "+20.0" in out
    assert "(+50.0%)" in out
    assert "\x1b" not in err
    assert (plan.out / "comparison.json").is_file()
    code, out, _ = call(str(tuned), "--base", str(base), "--json", "--out", "elsewhere")
    assert json.loads(out)["comparison"]["pairs"]["ifeval"]["delta"] == pytest.approx(0.2)
    assert plans[1].out == Path("elsewhere")


@pytest.mark.parametrize(("text", "seconds"), [("30min", 1800), ("10m", 600), ("600s", 600), ("600", 600)])
def test_timeouts_of_the_guide(
    call: Any, plans: list[BenchmarkPlan], models: tuple[Path, Path], text: str, seconds: int
) -> None:
    assert call(str(models[0]), "--no-base", "--timeout", text)[0] == 0
    assert (plans[0].timeout_s, plans[0].has_base) == (seconds, False)


def test_an_incomplete_result_is_no_success(
    call: Any, plans: list[BenchmarkPlan], models: tuple[Path, Path]
) -> None:
    code, out, _ = call(str(models[0]), "--base", str(models[1]), "--timeout", "1")
    assert code == 1
    assert "ifeval!" in out
    assert "status: timeout" in out
    assert "decision: inconclusive" in out


def test_an_adapter_knows_its_base(call: Any, plans: list[BenchmarkPlan], models: tuple[Path, Path]) -> None:
    adapter = models[0].parent / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(models[1])}))
    assert call(str(adapter))[0] == 0
    assert (plans[0].base, plans[0].has_base) == (models[1], True)
    assert call(str(adapter), "--no-base")[0] == 0
    assert (plans[1].base, plans[1].has_base) == (models[1], False), "still loaded on it"
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/not-here"}))
    code, _, err = call(str(adapter))
    assert (code, "name it: --base DIR" in err) == (2, True)


def test_an_endpoint(call: Any, plans: list[BenchmarkPlan]) -> None:
    argv = ["--endpoint", "http://127.0.0.1:1/v1", "--model-name", "tuned", "--out", "r"]
    assert call(*argv, "--base-model-name", "base")[0] == 0
    assert (plans[0].backend, plans[0].model, plans[0].has_base) == ("server", None, True)
    assert plans[0].endpoint is not None
    assert plans[0].endpoint.model_name == "tuned"


def test_a_harness_is_named(
    call: Any, plans: list[BenchmarkPlan], models: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "tokenizer.json").write_text("{}")
    argv = ["--endpoint", "http://127.0.0.1:1/v1", "--model-name", "tuned", "--out", "r"]
    assert call(*argv, "--harness", "opencompass", "--tokenizer", "tokens")[0] == 0
    assert plans[0].endpoint is not None
    assert (plans[0].harness, plans[0].endpoint.tokenizer) == ("opencompass", Path("tokens"))
    code, _, err = call(str(models[0]), "--no-base", "--harness", "opencompass", "--tokenizer", "tokens")
    assert code == 2
    assert "add --backend server or --endpoint" in err
    assert "`--tokenizer`" in err
    assert "use lm-eval or opencompass" in call(*argv, "--harness", "helm")[2]
    assert "holds no tokenizer.json" in call(*argv, "--tokenizer", "none")[2]
    assert len(plans) == 1


def test_all_mistakes_at_once(call: Any, plans: list[BenchmarkPlan], tmp_path: Path) -> None:
    code, _, err = call("none", "--suite", "huge", "--timeout", "soon", "--backend", "ollama", "--base", "b")
    assert code == 2
    for key in ("MODEL", "--suite", "--timeout", "--backend", "--base"):
        assert f"`{key}`" in err
    code, _, err = call("--endpoint", "ftp://x", "--backend", "hf")
    assert code == 2
    for key in ("--endpoint", "--model-name", "--backend", "--out"):
        assert f"`{key}`" in err
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    code, _, err = call("m")
    assert (code, "or say --no-base" in err) == (2, True)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in call("m", "--no-base", "--out", "file/inside")[2]
    assert not plans


def test_missing_items_stop_it_before_it_starts(call: Any, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    code, _, err = call("m", "--no-base", "--suite", "quick")
    assert code == 2
    assert all(name in err for name in ("ifeval", "gsm8k", "mmlu"))


def test_summarize(call: Any, tmp_path: Path) -> None:
    leave_result(tmp_path / "benchmarks" / "base", "base", 80)
    leave_result(tmp_path / "benchmarks" / "fine-tuned" / "2025-11-23T10-30-15", "candidate", 120)
    code, out, _ = call("summarize", str(tmp_path))
    assert (code, "+20.0" in out) == (0, True)
    assert json.loads((tmp_path / "benchmarks" / "benchmark.json").read_text())["schema_version"] == 1
    assert json.loads(call("summarize", str(tmp_path), "--json")[1])["models"]
    assert call("summarize")[0] == 2
    assert call("summarize", str(tmp_path / "none"))[0] == 2
    assert call("some", "thing")[0] == 2


def on_terminal(folder: Path, typed: bytes) -> tuple[int, str]:
    """Call the bare verb on a real terminal, type, and return exit code and screen.

    The planned call is printed instead of run.
    """
    script = (
        "import sys, types\n"
        "module = types.ModuleType('rdagent_ft.engine.benchmark.run')\n"
        "def run_benchmark(plan, settings, notice):\n"
        "    print('PLAN', plan.model, plan.base, plan.compare_base, end=' ')\n"
        "    print(plan.backend, plan.suite, plan.batch_size)\n"
        "    raise SystemExit(77)\n"
        "module.run_benchmark = run_benchmark\n"
        "sys.modules[module.__name__] = module\n"
        "import rdagent_ft.cli.benchmark_plan as plan\n"
        "plan.check_suite = lambda *_: ()\n"
        "from rdagent_ft.cli.main import main\n"
        "main(['benchmark'])\n"
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True, preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(slave)
    screen = b""
    while b"number or folder" not in screen:
        screen += os.read(master, 4096)
    os.write(master, typed)
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        screen += piece
    os.close(master)
    return process.wait(timeout=60), screen.decode()


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_the_questions_of_the_guide(models: tuple[Path, Path], tmp_path: Path) -> None:
    typed = f"7\n1\n\n{models[1]}\n1\n9\n1\n4\n".encode()
    code, screen = on_terminal(tmp_path, typed)
    assert code == 77
    assert "1  " in screen
    assert "merged_16bit (model)" in screen
    assert "Test mode: 10 answers" in screen
    assert f"PLAN {models[0]} {models[1]} True hf test 16" in screen


def test_leaving_by_ctrl_c_and_by_the_end_of_input(models: tuple[Path, Path], tmp_path: Path) -> None:
    for key in (b"\x03", b"1\n\x04"):
        code, screen = on_terminal(tmp_path, key)
        assert code == 130
        assert "nothing was started" in screen
        assert "Traceback" not in screen


def test_without_a_terminal_it_says_what_to_type(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rdagent_ft.cli.main", "benchmark"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--suite test|quick|core|full" in done.stderr
