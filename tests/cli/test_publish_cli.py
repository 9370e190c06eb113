"""`rdagent-ft publish` against a hub on loopback that takes uploads.

huggingface_hub reads its endpoint once, at import: one test runs a process of its own, the others set it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exported_run import bind_run, change, plain_weights, read
from fake_hub import TOKEN, Hub, running_hub
from huggingface_hub import constants

from rdagent_ft.cli.main import main
from rdagent_ft.reporting.card_forms import MARKER

REPO = "acme/router-adapter"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        yield found


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    base = tmp_path / "private models" / "tiny-qwen3"
    base.mkdir(parents=True)
    adapter, merged = plain_weights(tmp_path / "weights", base)
    return bind_run(tmp_path / "output", base, adapter, merged)


@pytest.fixture
def call(
    hub: Hub, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Publish in this process; every call is checked for tracebacks and tokens in what it prints."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def publish(*options: str, token: str | None = TOKEN, address: str | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(constants, "ENDPOINT", address or hub.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(SystemExit) as ended:
            main(["publish", str(run_dir), "--repo", REPO, *options])
        shown = capsys.readouterr()
        assert (token or "no token") not in shown.out + shown.err
        return int(ended.value.code or 0), shown.out, shown.err

    return publish


def test_a_process_of_its_own_publishes(hub: Hub, run_dir: Path) -> None:
    own = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-m", "rdagent_ft.cli.main", "publish", str(run_dir), "--repo", REPO],
        capture_output=True,
        text=True,
        env={**os.environ, **own, "HF_HOME": str(run_dir.parent / "hf")},
        timeout=120,
        check=False,
    )
    sending = "sending 4 files to acme/router-adapter\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{hub.address}/{REPO}\n", sending)
    assert not [path for path in (run_dir.parent / "hf").rglob("*") if path.is_file()]


def test_weights_come_first_the_card_last_and_the_repository_is_private(
    call: Call, hub: Hub, run_dir: Path
) -> None:
    code, out, err = call()
    assert code == 0, err
    assert out.strip() == f"{hub.address}/{REPO}"
    assert hub.private == {REPO: True}
    (first, weights), (second, card) = hub.commits
    assert (first, second) == ("rdagent-ft adapter: weights", "rdagent-ft adapter: card")
    assert set(weights) == {
        "adapter_config.json", "adapter_model.safetensors", "export_manifest.json", "tokenizer_config.json",
    }  # fmt: skip
    assert card == ["README.md"]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    files = hub.repos[REPO]
    exported = run_dir / "formats" / "adapter"
    assert files["adapter_model.safetensors"] == (exported / "adapter_model.safetensors").read_bytes()
    assert MARKER in files["README.md"].decode()
    assert f'PeftModel.from_pretrained(base, "{REPO}")' in files["README.md"].decode()
    everything = b"".join(files.values())
    for private in (str(run_dir), "private models", TOKEN, "/home/someone", "None"):
        assert private.encode() not in everything, private
    # Again: nothing is in the way, the same files are written.
    assert call()[0] == 0
    assert len(hub.commits) == 4


def test_what_the_hub_shows_equals_the_dry_run(call: Call, hub: Hub, run_dir: Path) -> None:
    code, out, err = call("--dry-run", "--json", token=None)
    assert code == 0, err
    assert hub.asked == []
    plan = json.loads(out)
    assert (plan["private"], plan["sent"], plan["form"]) == (True, False, "adapter")
    assert call()[0] == 0
    for file in (*plan["files"], plan["card_file"]):
        content = hub.repos[REPO][file["path"]]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["n_bytes"], file["sha256"])
    assert hub.repos[REPO]["README.md"].decode() == plan["card"]


def test_a_dry_run_lists_files_and_the_card(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["publish", str(run_dir), "--repo", REPO, "--dry-run", "--public"])
    out = capsys.readouterr().out
    assert not ended.value.code
    assert out.startswith(f"dry run: nothing is sent. Public repository {REPO}\n")
    assert "adapter_model.safetensors" in out
    assert "**Improved by 41.2 points" in out


def test_a_foreign_readme_is_not_overwritten(call: Call, hub: Hub, run_dir: Path) -> None:
    hub.add(REPO, {"README.md": b"# somebody's model", ".gitattributes": b""})
    code, _, err = call()
    assert code == 2
    assert "has a README.md that this program did not write" in err
    assert hub.commits == []
    assert hub.repos[REPO]["README.md"] == b"# somebody's model"


def test_a_repository_with_somebody_elses_files_is_left_alone(call: Call, hub: Hub, run_dir: Path) -> None:
    hub.add(REPO, {"pytorch_model.bin": b"x"})
    code, _, err = call()
    assert code == 2
    assert "somebody else's files" in err
    assert hub.commits == []


def test_a_public_repository_is_no_place_for_a_private_publication(
    call: Call, hub: Hub, run_dir: Path
) -> None:
    hub.add(REPO, {}, private=False)
    code, _, err = call()
    assert (code, hub.commits) == (2, [])
    assert "is public" in err
    assert call("--public")[0] == 0


@pytest.mark.parametrize(
    ("place", "status", "exit_code", "words"),
    [
        (f"/api/models/{REPO}", 401, 2, "does not accept HF_TOKEN (401)"),
        ("/api/repos/create", 403, 2, f"may not write to '{REPO}' (403)"),
        ("/api/repos/create", 500, 3, "failed (500) while looking at the repository"),
        (f"/api/models/{REPO}/commit", 500, 3, "failed (500) while sending the weights"),
        (f"/api/models/{REPO}/commit", 412, 2, "changed while it was written to"),
        (f"/{REPO}.git/info/lfs", 403, 2, "(403)"),
        ("/lfs/", 403, 2, "(403)"),
    ],
)
def test_each_refusal_is_one_message(
    call: Call, hub: Hub, run_dir: Path, place: str, status: int, exit_code: int, words: str
) -> None:
    hub.fail[place] = status
    code, out, err = call()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(lines)) == (exit_code, "", 1), err
    assert words in lines[0]
    assert "README.md" not in hub.repos.get(REPO, {})


def test_a_wrong_token_is_named_as_such_and_not_shown(call: Call, hub: Hub, run_dir: Path) -> None:
    code, _, err = call(token="hf_wrongTokenThatIsNotKnown")
    assert code == 2
    assert "does not accept HF_TOKEN (401)" in err


def test_a_hub_that_does_not_answer_is_one_message(call: Call) -> None:
    code, _, err = call(address="http://127.0.0.1:9")
    assert code == 3
    assert "the hub cannot be reached" in err


@pytest.mark.parametrize(
    ("argv", "token", "words"),
    [
        (["--repo", "no-org"], TOKEN, "is no name of a repository"),
        (["--repo", "a/b/c"], TOKEN, "is no name of a repository"),
        (["--repo", REPO], None, "publishing needs a token"),
        (["--repo", REPO, "--format", "merged_4bit", "--dry-run"], None, "4-bit weights need"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    run_dir: Path, argv: list[str], token: str | None, words: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemExit) as ended:
        main(["publish", str(run_dir), *argv])
    assert ended.value.code in (2, 3)
    assert words in capsys.readouterr().err
    assert not [path for path in (run_dir / "formats").glob("*") if path.name != ".gitignore"]


def test_a_token_over_plain_http_is_not_sent(call: Call) -> None:
    code, _, err = call(address="http://hub.example.org")
    assert code == 2
    assert "would travel unencrypted" in err


def test_a_changed_export_is_not_published(call: Call, hub: Hub, run_dir: Path) -> None:
    assert call("--dry-run")[0] == 0
    (run_dir / "formats/adapter/adapter_config.json").write_text("{}")
    code, _, err = call()
    assert code == 8
    assert "was changed since the export" in err
    assert hub.asked == []


@pytest.mark.parametrize("fault", ["row", "key", "folder"])
def test_private_things_end_the_publication(call: Call, hub: Hub, run_dir: Path, fault: str) -> None:
    words: dict[str, Any] = {
        "row": "a row of the data",
        "key": "a secret",
        "folder": "a folder of this machine",
    }
    if fault == "row":
        row = {"messages": [{"role": "user", "content": "Safety, bias, tone and speed of answering"}]}
        (run_dir / "data").mkdir()
        (run_dir / "data" / "train.jsonl").write_text(json.dumps(row) + "\n")
    else:
        leaked = {"key": TOKEN, "folder": str(run_dir / "data")}[fault]
        (run_dir / "export/adapter/tokenizer_config.json").write_text(json.dumps({"extra": leaked}))
    code, _, err = call()
    assert code == 1
    assert words[fault] in err
    assert hub.asked == []
    assert not (run_dir / "formats" / "adapter").exists()


def test_a_run_without_a_model_cannot_be_published(tmp_path: Path, call: Call, run_dir: Path) -> None:
    change(run_dir, 6, "feedback", {"new_parent": False})
    change(run_dir, 2, "feedback", {"new_parent": False})
    change(run_dir, 0, "feedback", {"new_parent": False})
    assert read(run_dir, 6, "feedback")["new_parent"] is False
    code, _, err = call()
    assert code == 2
    assert "has handed over no model: no candidate was accepted" in err
