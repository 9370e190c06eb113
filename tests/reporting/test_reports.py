"""The HTML and Markdown reports, the card and their promises about hostile text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from make_run import HOSTILE, MACHINE_FOLDER, make_run

from rdagent_ft.reporting.card import model_card
from rdagent_ft.reporting.curves import loss_curve, thinned
from rdagent_ft.reporting.facts import claim_facts
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.report_html import report_html
from rdagent_ft.reporting.report_md import report_markdown
from rdagent_ft.reporting.text import clean_text, display_name, markdown_text, one_line, without_folders
from rdagent_ft.reporting.write import write_reports

VOID = {"meta", "br", "img", "input", "hr", "link", "source", "area", "base", "col", "embed", "track", "wbr"}
REPORT_NAMES = ("results.tsv", "report.md", "report.html", "benchmark.json", "comparison.json")


class Page(HTMLParser):
    """Collects tags, attributes, ids and text; fails on a tag that is closed wrongly."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_html(open_run(make_run(tmp_path_factory.mktemp("run"))))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"verdict": "inconclusive", "accept": False},
        {"verdict": "equivalent", "with_llm": False},
        {"verdict": "regressed", "kind": "full", "hub": True},
        {"verdict": None, "n_loops": 3, "ended": False},
        {"verdict": None, "n_loops": 0},
    ],
)
def test_every_kind_of_run_renders_well_formed_and_inert(tmp_path: Path, options: dict) -> None:
    page = Page(report_html(open_run(make_run(tmp_path, **options))))
    assert not {"script", "img", "iframe", "object", "embed", "link", "form", "base"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("style", "src")]
    targets = [value for _, name, value in page.attributes if name in ("href", "xlink:href", "action")]
    inside = [target for target in targets if target and not target.startswith("#")]
    assert None not in targets
    assert all(re.fullmatch(r"(baseline|loops/\d{3})/[^:]+/samples\.jsonl", target) for target in inside)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in targets if target and target not in inside} <= set(ids)
    assert page.tags.count("main") == 1
    assert all(name in ("col", "row") for tag, key, name in page.attributes if (tag, key) == ("th", "scope"))


def test_hostile_text_is_shown_as_text(html: str) -> None:
    assert "<script" not in html
    assert "</svg></style>" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "{{ 7*7 }}" in Page(html).text
    assert "<script>alert('x')</script>" in Page(html).text
    assert html.count("</style>") == 1
    assert len(html) < 200_000  # a log of 1 MB was cut


def test_policy_names_the_style_sheet_and_nothing_else(html: str) -> None:
    css = html[html.index("<style>") + len("<style>") : html.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = next(
        v for t, n, v in Page(html).attributes if t == "meta" and n == "content" and "default-src" in str(v)
    )
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in css
    assert "@import" not in css


def test_the_report_says_what_happened(html: str) -> None:
    text = re.sub(r"\s+", " ", Page(html).text)
    for expected in (
        "Improved by 41.2 points [36.9, 45.5] on 600 sealed test items",
        "1.8 points more than on the test",
        "the sealed test was opened once",
        "stages.0.epochs",
        "train.diverged",
        "Near-duplicates and the source noisy_import",
        "empty completion",
        "214 groups",
        "What this report does not show",
        "it does not count against any recipe",
        "val +2 to +5 pp",
        "is not valid JSON",
    ):
        assert expected in text, expected
    assert MACHINE_FOLDER not in html
    assert html.count('class="plot"') >= 6


@pytest.mark.parametrize(
    ("verdict", "tone", "words"),
    [
        ("improved", "good", "Improved by 41.2 points [36.9, 45.5] on 600 sealed test items"),
        ("regressed", "bad", "Worse by 6.1 points [1.8, 10.4] on 600 sealed test items"),
        ("inconclusive", "neutral", "No demonstrated improvement on 600 sealed test items"),
        ("equivalent", "neutral", "No demonstrated improvement on 600 sealed test items"),
        (None, "open", "No claim yet"),
    ],
)
def test_headline(tmp_path: Path, verdict: str | None, tone: str, words: str) -> None:
    facts = claim_facts(open_run(make_run(tmp_path, verdict=verdict)))  # type: ignore[arg-type]
    assert (facts.tone, facts.headline) == (tone, words)


def test_improvement_without_acceptance_is_not_celebrated(tmp_path: Path) -> None:
    facts = claim_facts(open_run(make_run(tmp_path, accept=False, verdict="improved")))
    assert facts.tone == "neutral"
    assert "No candidate was accepted" in facts.kicker
    assert any("base model stays" in caution for caution in facts.cautions)


def test_second_opening_of_the_test_is_said(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    connection = sqlite3.connect(run_dir / "run.db", isolation_level=None)
    connection.execute("UPDATE steps SET output = json_set(output, '$.opening', 2) WHERE step = 'claim'")
    connection.close()
    cautions = " ".join(claim_facts(open_run(run_dir)).cautions)
    assert "opened twice" in cautions
    assert "weaker evidence" in cautions


def test_markdown_has_the_same_facts_and_no_markup_of_others(tmp_path: Path) -> None:
    text = report_markdown(open_run(make_run(tmp_path)))
    assert "## Improved by 41.2 points [36.9, 45.5] on 600 sealed test items" in text
    assert (
        "| heldout (target) | test | json match | 600 | 43.1% | 84.3% | +41.2 [+36.9, +45.5] ↑ | 6.1 |"
        in text
    )
    assert "<script" not in text.replace("\\<script", "")
    assert "![i]" not in text
    assert "\x1b" not in text
    assert MACHINE_FOLDER not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {10, 8, 3}


@pytest.mark.parametrize("hub", [False, True])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_card(tmp_path: Path, hub: bool, kind: str) -> None:
    card = model_card(open_run(make_run(tmp_path, hub=hub, kind=kind)))
    _, front, body = card.split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["library_name"] == ("peft" if kind == "lora" else "transformers")
    assert values.get("base_model") == ("Qwen/Qwen3-0.6B" if hub else None)
    assert values.get("datasets") == (["acme/router"] if hub else None)
    assert MACHINE_FOLDER not in card
    assert "None" not in card
    assert "\n\n\n" not in card
    assert "<script" not in card.replace("\\<script", "")
    assert HOSTILE[:20] not in card
    assert ("PeftModel" in body) == (kind == "lora")
    for expected in ("Improved by 41.2 points", "seed 42", "r-20261120-a1b2", "trl 1.16.0", "## Limitations"):
        assert expected in body, expected
    for block in re.findall(r"```python\n(.*?)```", body, flags=re.S):
        compile(block, "card", "exec")


def test_card_without_a_claim_makes_none(tmp_path: Path) -> None:
    card = model_card(open_run(make_run(tmp_path, n_loops=3, verdict=None)))
    assert "there is no claim about it" in card
    assert "improved" not in card.lower()


def test_reports_are_written_once_and_the_same_twice(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    write_reports(run_dir)
    first = {name: (run_dir / name).read_bytes() for name in REPORT_NAMES}
    write_reports(run_dir)
    assert first == {name: (run_dir / name).read_bytes() for name in REPORT_NAMES}
    assert json.loads(first["comparison.json"])["schema_version"] == 1
    assert not list(run_dir.glob(".*"))


def test_card_and_script_are_written_into_an_export_only(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path)
    write_reports(run_dir)
    assert not (run_dir / "export").exists()
    (run_dir / "export/merged").mkdir(parents=True)
    write_reports(run_dir)
    assert (run_dir / "export/README.md").read_text().startswith("---\n")
    assert (run_dir / "export/reproduce.sh").stat().st_mode & 0o777 == 0o755


def test_a_bad_metrics_file_does_not_stop_the_report(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, n_loops=3)
    metrics = run_dir / "loops/000/stages/1-sft/attempt-1/metrics.jsonl"
    metrics.unlink()
    metrics.symlink_to("/etc/passwd")
    (run_dir / "loops/002/stages/1-sft/attempt-2/metrics.jsonl").write_text(
        '{"step": 1, "loss": 1e999}\n{"step": true, "loss": 1}\n{"step": 1' + "0" * 400 + ', "loss": 1}\n'
    )
    assert loss_curve(run_dir, "loops/000/stages/1-sft/attempt-1")[0] == []
    assert loss_curve(run_dir, "loops/002/stages/1-sft/attempt-2") == ([], "no losses were logged")
    assert "root:" not in report_html(open_run(run_dir))


def test_the_last_line_of_a_repeated_step_counts(tmp_path: Path) -> None:
    folder = tmp_path / "loops/000/stages/1-sft/attempt-1"
    folder.mkdir(parents=True)
    lines = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 9.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": "nan"},
    ]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + '\n{"step": 4, "lo')
    assert loss_curve(tmp_path, "loops/000/stages/1-sft/attempt-1") == ([(1.0, 3.0), (2.0, 2.0)], None)


def test_a_run_that_ended_before_its_data_was_read(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, n_loops=0, verdict=None)
    connection = sqlite3.connect(run_dir / "run.db", isolation_level=None)
    connection.execute("DELETE FROM steps")
    connection.execute("UPDATE invocations SET status = 'failed', stop_reason = 'interrupted'")
    connection.close()
    write_reports(run_dir)
    assert "an error ended it" in (run_dir / "report.html").read_text()
    assert "No claim yet" in (run_dir / "report.md").read_text()
    assert model_card(open_run(run_dir)).startswith("# No model")


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 100)), min_size=1, max_size=800))
def test_thinning_keeps_ends_and_extremes(pairs: list[tuple[int, float]]) -> None:
    curve = [(float(step), loss) for step, loss in sorted(pairs)]
    thin = thinned(curve, 50)
    assert len(thin) <= 50
    assert thin[0] == curve[0]
    assert thin[-1] == curve[-1]
    assert max(loss for _, loss in thin) == max(loss for _, loss in curve)
    assert set(thin) <= set(curve)


@given(st.text(max_size=200))
def test_cleaned_text_has_no_control_characters(text: str) -> None:
    cleaned = clean_text(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", cleaned)
    assert "\n" not in one_line(text)
    assert "\t" not in one_line(text)


@given(st.text(max_size=100))
def test_markdown_text_leaves_no_active_character(text: str) -> None:
    shown = markdown_text(text)
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>|`*_\[\]]", re.sub(r"\\.", "", shown))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("org/name", "org/name"),
        ("org/name:subset", "org/name:subset"),
        ("/home/me/data.jsonl", "data.jsonl"),
        ("./data", "data"),
        ("data/train.csv", "train.csv"),
        ("a/b/c", "c"),
        ("~/x/y", "y"),
    ],
)
def test_display_name(name: str, shown: str) -> None:
    assert display_name(name) == shown


def test_without_folders() -> None:
    text = 'File "/usr/lib/python3/a.py", line 3; see https://example.org/a/b and train/loss 3/4 in ~/x/y.log'
    assert without_folders(text) == (
        'File "…/a.py", line 3; see https://example.org/a/b and train/loss 3/4 in …/y.log'
    )


def test_renders_in_a_real_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    run_dir = make_run(tmp_path)
    write_reports(run_dir)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
    ]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,3000", "--dump-dom"]
    result = subprocess.run(
        [browser, *flags, (run_dir / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert "Improved by 41.2 points" in result.stdout
    assert "<script" not in result.stdout
    assert "CONSOLE" not in result.stderr  # no policy violation, no error
