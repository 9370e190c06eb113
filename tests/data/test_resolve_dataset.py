"""Finding a dataset: paths first, then names under the file path, then the hub; clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdagent_ft.data.hub import HubName, HubRepo, parse_hub_name
from rdagent_ft.data.resolve import choose_hub_files, resolve_dataset
from rdagent_ft.errors import DataError, UserError

LINE = '{"prompt": "a", "completion": "b"}\n'


def write(path: Path, text: str = LINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_pinned_by_its_content(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl")
    source = resolve_dataset(str(path), tmp_path / "files")
    assert (source.kind, source.name, len(source.files)) == ("local", str(path), 1)
    assert source.files[0].n_bytes == len(LINE)
    assert resolve_dataset(str(path), tmp_path / "files") == source
    write(path, LINE * 2)
    assert resolve_dataset(str(path), tmp_path / "files").revision != source.revision


def test_a_relative_path_is_stored_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    source = resolve_dataset("rows.jsonl", Path("files"))
    assert Path(source.files[0].path).is_absolute()


def test_a_folder_gives_its_training_files_and_reports_the_rest(tmp_path: Path) -> None:
    for name in ("train-00000.jsonl", "extra.csv", "test.jsonl", "sub/validation-0.jsonl", ".hidden.jsonl"):
        write(tmp_path / "d" / name)
    write(tmp_path / "d" / "README.md", "x")
    write(tmp_path / "d" / "dataset_info.json", "{}")
    source = resolve_dataset(str(tmp_path / "d"), tmp_path)
    assert [Path(ref.path).name for ref in source.files] == ["extra.csv", "train-00000.jsonl"]
    assert source.notes == ("left out as test or validation data: sub/validation-0.jsonl, test.jsonl",)


@pytest.mark.parametrize("name", ["latest.jsonl", "contest.jsonl", "devices.jsonl", "evaluations.jsonl"])
def test_a_word_that_contains_test_is_no_test_file(tmp_path: Path, name: str) -> None:
    write(tmp_path / "d" / name)
    assert len(resolve_dataset(str(tmp_path / "d"), tmp_path).files) == 1


def test_a_folder_with_only_test_files_is_refused_but_the_file_itself_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "d" / "test.jsonl")
    with pytest.raises(UserError, match="only test or validation files"):
        resolve_dataset(str(tmp_path / "d"), tmp_path)
    assert resolve_dataset(str(path), tmp_path).files[0].path == str(path)


@pytest.mark.parametrize("name", ["acme/tickets", "solo", "single.jsonl", "single"])
def test_a_registered_name_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path / "datasets" / "acme" / "tickets" / "train.jsonl")
    write(tmp_path / "datasets" / "solo" / "train.jsonl")
    write(tmp_path / "datasets" / "single.jsonl")
    assert resolve_dataset(name, tmp_path).kind == "registered"


def test_a_subset_folder_of_a_registered_name_is_found(tmp_path: Path) -> None:
    write(tmp_path / "datasets" / "acme" / "tickets" / "main" / "train.jsonl")
    assert resolve_dataset("acme/tickets:main", tmp_path).kind == "registered"


def test_an_unknown_name_suggests_near_names(tmp_path: Path) -> None:
    write(tmp_path / "datasets" / "acme" / "tickets" / "train.jsonl")
    with pytest.raises(UserError) as caught:
        resolve_dataset("tikets", tmp_path)
    assert caught.value.exit_code == 2
    assert "acme/tickets" in caught.value.render()


def test_an_unknown_path_suggests_files_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    with pytest.raises(UserError) as caught:
        resolve_dataset(str(tmp_path / "trian.jsonl"), tmp_path)
    assert str(tmp_path / "train.jsonl") in caught.value.render()


def test_an_unknown_hub_name_offline_says_so_and_suggests(tmp_path: Path) -> None:
    write(tmp_path / "datasets" / "acme" / "tickets" / "train.jsonl")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE") as caught:
        resolve_dataset("acme/ticket", tmp_path)
    assert "acme/tickets" in caught.value.render()
    assert not list((tmp_path / "datasets" / "acme").glob(".*"))


@pytest.mark.parametrize("name", ["", " ", "x" * 5000, "a\0b", "../../no/such", "~nobody-here/x"])
def test_odd_names_are_user_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError):
        resolve_dataset(name, tmp_path / "files")


def test_names_cannot_leave_the_datasets_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "files" / "secret" / "train.jsonl")
    (tmp_path / "files" / "datasets").mkdir()
    monkeypatch.chdir("/")
    with pytest.raises(UserError):
        resolve_dataset("../secret", tmp_path / "files")


def test_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        resolve_dataset(str(write(tmp_path / "rows.jsonl", "")), tmp_path)
    with pytest.raises(UserError, match="not a data file"):
        resolve_dataset(str(write(tmp_path / "rows.txt")), tmp_path)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"holds no .*\.parquet"):
        resolve_dataset(str(tmp_path / "nothing"), tmp_path)


def test_a_downloaded_folder_is_pinned_to_its_commit_and_must_not_change(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "acme" / "tickets"
    path = write(folder / "train.jsonl")
    sha256 = resolve_dataset("acme/tickets", tmp_path).files[0].sha256
    manifest = {"revision": "c0ffee", "repo_id": "acme/tickets", "files": {"train.jsonl": sha256}}
    write(folder / "manifest.json", json.dumps(manifest))
    source = resolve_dataset("acme/tickets", tmp_path)
    assert (source.kind, source.revision) == ("hub", "c0ffee")
    write(path, LINE + LINE)
    with pytest.raises(DataError, match="differs from commit c0ffee"):
        resolve_dataset("acme/tickets", tmp_path)


def test_hub_names_are_parsed() -> None:
    assert parse_hub_name("a/b") == HubName("a/b", None, None)
    assert parse_hub_name("a/b@v1:main") == HubName("a/b", "v1", "main")
    assert parse_hub_name("a/b@v1:main").folder == "a/b@v1__main"  # type: ignore[union-attr]
    for name in ("b", "a/b/c", "/a/b", "a/", "a b/c", "a/..", "../a"):
        assert parse_hub_name(name) is None


CARD = {
    "configs": [
        {"config_name": "main", "data_files": [{"split": "train", "path": "main/train-*"}]},
        {
            "config_name": "hard",
            "data_files": [
                {"split": "train", "path": ["hard/a.csv"]},
                {"split": "test", "path": "hard/b.csv"},
            ],
        },
        {"config_name": "wild", "data_files": "wild/*.jsonl"},
        {"config_name": "dir", "data_dir": "wild"},
    ]
}
FILES = ("main/train-0.parquet", "main/test-0.parquet", "hard/a.csv", "hard/b.csv", "wild/x.jsonl")


def hub_repo(card: dict[str, object], *files: str) -> HubRepo:
    return HubRepo("a/b", "dataset", "c0ffee", dict.fromkeys(files or FILES, 1), card)


@pytest.mark.parametrize(
    ("subset", "paths"),
    [
        ("main", "main/train-0.parquet"),
        ("hard", "hard/a.csv"),
        ("wild", "wild/x.jsonl"),
        ("dir", "wild/x.jsonl"),
    ],
)
def test_a_subset_takes_its_training_files(subset: str, paths: str) -> None:
    assert choose_hub_files(hub_repo(CARD), subset).paths == (paths,)


def test_several_subsets_must_be_chosen_from() -> None:
    with pytest.raises(UserError, match="main, hard, wild, dir") as caught:
        choose_hub_files(hub_repo(CARD), None)
    assert "--dataset a/b:main" in caught.value.render()
    with pytest.raises(UserError, match="no subset 'soft'"):
        choose_hub_files(hub_repo(CARD), "soft")


def test_without_a_card_file_names_decide() -> None:
    chosen = choose_hub_files(hub_repo({}, "train.csv", "test.csv", "README.md"), None)
    assert chosen.paths == ("train.csv",)
    assert chosen.notes == ("left out as test or validation data: test.csv",)
    with pytest.raises(UserError, match="has no subset"):
        choose_hub_files(hub_repo({}, "train.csv"), "main")
    assert choose_hub_files(hub_repo({}, "main/a.csv", "b.csv"), "main").paths == ("main/a.csv",)


@pytest.mark.parametrize("card", [{"configs": 3}, {"configs": ["x"]}, {"configs": [{"data_files": 3}]}])
def test_an_odd_card_falls_back_to_file_names(card: dict[str, object]) -> None:
    assert choose_hub_files(hub_repo(card, "train.csv"), None).paths == ("train.csv",)
