"""The Hugging Face Hub as a place to fetch files from: describe a repository, download chosen files.

Why here: datasets and models need the same three promises: pinned to a commit, written whole or not
at all, and one clear message when the hub cannot be asked. `huggingface_hub` is imported on first
use only, and reads its own variables (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE) at that time.
Does not decide which files are wanted.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from rdagent_ft.errors import PreflightError, RdagentFtError, UserError
from rdagent_ft.values import sha256_file, write_json

RepoKind = Literal["dataset", "model"]
MANIFEST = "manifest.json"
_HUB_NAME = re.compile(
    r"(?P<repo_id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?:@(?P<revision>[\w./-]+))?(?::(?P<subset>[\w. -]+))?"
)


class HubName(NamedTuple):
    """A name in the form `org/name[@revision][:subset]`."""

    repo_id: str
    revision: str | None
    subset: str | None

    @property
    def folder(self) -> str:
        """The folder below `datasets/` or `models/` that holds this name's files."""
        revision = f"@{self.revision.replace('/', '_')}" if self.revision else ""
        return self.repo_id + revision + (f"__{self.subset}" if self.subset else "")


class HubRepo(NamedTuple):
    """A repository at one commit. `files` is path -> size in bytes, `card` the README's front matter."""

    repo_id: str
    kind: RepoKind
    revision: str
    files: dict[str, int]
    card: dict[str, Any]


def parse_hub_name(name: str) -> HubName | None:
    """Return the parts of a hub name, or None when `name` has another form."""
    found = _HUB_NAME.fullmatch(name)
    return HubName(found["repo_id"], found["revision"], found["subset"]) if found else None


def describe_repo(name: HubName, kind: RepoKind) -> HubRepo:
    """Return the repository's commit and files. Raises `UserError` when it cannot be reached."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{kind} {name.repo_id!r} is not on this machine and the hub is switched off (HF_HUB_OFFLINE)",
            hint="unset HF_HUB_OFFLINE to download it",
        )
    try:
        info: Any = HfApi().repo_info(
            name.repo_id, repo_type=kind, revision=name.revision, files_metadata=True, timeout=20
        )
    except _hub_errors() as error:
        raise _as_user_error(name.repo_id, kind, error) from None
    card: Any = info.card_data.to_dict() if info.card_data is not None else {}
    files = {str(item.rfilename): int(item.size or 0) for item in info.siblings or ()}
    return HubRepo(name.repo_id, kind, str(info.sha), files, cast("dict[str, Any]", card))


def download_files(repo: HubRepo, paths: list[str], target: Path) -> None:
    """Download `paths` into the new folder `target`, with `manifest.json` that pins commit and hashes.

    A killed download leaves only the hidden `.<name>.download` folder, which the next call continues.
    Raises `UserError` when the hub cannot deliver and `PreflightError` when the disk is too small.
    """
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]

    partial = target.with_name(f".{target.name}.download")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PreflightError(f"cannot write {str(partial)!r}: {error.strerror}") from None
    n_bytes = sum(repo.files[path] for path in paths)
    free = shutil.disk_usage(partial).free
    if n_bytes > free:
        raise PreflightError(
            f"{repo.kind} {repo.repo_id!r} needs {n_bytes / 2**30:.1f} GiB, "
            f"but {str(target.parent)!r} has {free / 2**30:.1f} GiB free",
            hint="free some space or point FT_FILE_PATH at a larger disk",
        )
    try:
        snapshot_download(
            repo.repo_id,
            repo_type=repo.kind,
            revision=repo.revision,
            allow_patterns=[_literal_pattern(path) for path in paths],
            local_dir=partial,
        )
    except _hub_errors() as error:
        raise _as_user_error(repo.repo_id, repo.kind, error) from None
    missing = [path for path in paths if not (partial / path).is_file()]
    if missing:
        raise UserError(f"the hub did not deliver {missing[0]!r} of {repo.kind} {repo.repo_id!r}")
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    manifest = {
        "schema_version": 1,
        "repo_id": repo.repo_id,
        "kind": repo.kind,
        "revision": repo.revision,
        "files": {path: sha256_file(partial / path) for path in sorted(paths)},
    }
    write_json(partial / MANIFEST, manifest)
    try:
        partial.replace(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
        shutil.rmtree(partial)  # another process downloaded the same thing first


def _literal_pattern(path: str) -> str:
    """Return the fnmatch pattern that matches exactly `path`."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _hub_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions by which the hub client reports that it could not do its work."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError)


def _as_user_error(repo_id: str, kind: RepoKind, error: Exception) -> RdagentFtError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    place = f"{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    if isinstance(error, GatedRepoError):
        return UserError(
            f"{kind} {repo_id!r} is gated on the hub",
            hint=f"accept its licence at https://huggingface.co/{place}, then run `hf auth login`",
        )
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{kind} {repo_id!r} has no such revision on the hub")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            f"{kind} {repo_id!r} is neither on this machine nor on the hub",
            hint="if it is private, run `hf auth login` or set HF_TOKEN",
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UserError(
        f"{kind} {repo_id!r} is not on this machine and the hub cannot be reached: {reason}",
        hint="check the network (HF_ENDPOINT, HTTPS_PROXY), or name a local file or folder",
    )
