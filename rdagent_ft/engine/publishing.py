"""`rdagent-ft publish`: an exported form and its card, planned in full before anything is sent.

The plan is what `--dry-run` shows: every file with size and hash, and the card. It needs no network.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rdagent_ft.data.hub_upload import CARD, Upload, hub_token, publish_folder
from rdagent_ft.engine.exporting import Exported, Exporter
from rdagent_ft.errors import UserError
from rdagent_ft.reporting.card import model_card
from rdagent_ft.reporting.card_forms import MARKER, CardPlace, Form
from rdagent_ft.reporting.export_manifest import MANIFEST_NAME, ExportFile
from rdagent_ft.reporting.handover import check_card, check_private
from rdagent_ft.reporting.public import private_of
from rdagent_ft.values import Frozen, sha256_file, sha256_text

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)


class PublishPlan(Frozen):
    """What a publication would send, in this order; the card is last.

    Attributes:
        files: everything but the card.
        card: text of the repository's README.md.
        card_file: the card as a file.
    """

    schema_version: Literal[1] = 1
    repo_id: str
    private: bool
    form: Form
    folder: Path
    files: tuple[ExportFile, ...]
    card: str
    card_file: ExportFile


def check_repo(repo_id: str) -> None:
    """Raise `UserError` when the name is not `ORG/NAME`."""
    if not _REPO.match(repo_id) or ".." in repo_id or "--" in repo_id or repo_id.endswith((".git", "-", ".")):
        raise UserError(f"--repo {repo_id!r} is no name of a repository", hint="give it as ORG/NAME")


def plan_publication(exporter: Exporter, exported: Exported, repo_id: str, *, private: bool) -> PublishPlan:
    """Return what publishing an exported form would send. Raises `JobError` when something is private."""
    check_repo(repo_id)
    folder, manifest, view = exported.folder, exported.manifest, exporter.view
    place = CardPlace(form=exported.form, reference=repo_id, notes=manifest.notes, weights=manifest.weights)
    card, never = model_card(view, place), private_of(view)
    check_card(card, never)
    check_private(folder, never)
    own = folder / MANIFEST_NAME
    listed = ExportFile(path=MANIFEST_NAME, n_bytes=own.stat().st_size, sha256=sha256_file(own))
    return PublishPlan(
        repo_id=repo_id,
        private=private,
        form=exported.form,
        folder=folder,
        files=(*manifest.files, listed),
        card=card,
        card_file=ExportFile(path=CARD, n_bytes=len(card.encode()), sha256=sha256_text(card)),
    )


def publish(plan: PublishPlan, notice: Callable[[str], None]) -> str:
    """Send the plan and return the repository's address. Raises as `hub_upload.publish_folder` does."""
    upload = Upload(
        repo_id=plan.repo_id,
        private=plan.private,
        folder=plan.folder,
        files=tuple(file.path for file in plan.files),
        card=plan.card,
        marker=MARKER,
        message=f"rdagent-ft {plan.form}",
    )
    return publish_folder(upload, hub_token(), notice)
