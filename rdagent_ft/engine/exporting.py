"""`rdagent-ft export`: a finished run's model in the forms that people load, each in a folder of its own.

The source is the run's own `export/`, checked against the journal. A folder appears whole or not at all,
holds no path of the machine, and carries a manifest and a card. What a form needs and the machine lacks
is one `PreflightError`. Uploading is not here (`publishing.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rdagent_ft.engine.executors import open_executor
from rdagent_ft.engine.export_forms import FormRequest, Made, make_form
from rdagent_ft.engine.export_source import Source, source_of
from rdagent_ft.engine.single_job import work_folder
from rdagent_ft.errors import PreflightError, UserError
from rdagent_ft.execution.port import Executor
from rdagent_ft.reporting.card import hub_model, model_card
from rdagent_ft.reporting.card_forms import FORMS, CardPlace, Form
from rdagent_ft.reporting.export_manifest import (
    README,
    ExportManifest,
    check_files,
    list_files,
    read_manifest,
    write_manifest,
)
from rdagent_ft.reporting.handover import check_card, check_private, clean_configs
from rdagent_ft.reporting.public import private_of, public_name
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.view import RunView
from rdagent_ft.settings import Settings
from rdagent_ft.training.export_plan import GgufType
from rdagent_ft.values import write_atomic

FORMS_FOLDER = "formats"
"""Where a run's exported forms lie when no other folder is named."""
Notice = Callable[[str], None]


class Exported(NamedTuple):
    """One exported form; `is_new` is False when an equal one was there already."""

    form: Form
    folder: Path
    manifest: ExportManifest
    is_new: bool


class LeftOut(NamedTuple):
    """A form that `all` could not make, and why."""

    form: Form
    reason: PreflightError


class Exporter:
    """Makes forms of one run's model. The executor is opened when the first form needs a job.

    Args:
        run_dir: the run.
        parent: folder that the forms' folders go into; None is `RUN/formats`.
        settings: names the executor and its limits.
    """

    def __init__(
        self, run_dir: Path, parent: Path | None, settings: Settings, gguf_type: GgufType, notice: Notice
    ) -> None:
        self.view: RunView = open_run(run_dir.resolve())
        self.parent = self.view.run_dir / FORMS_FOLDER if parent is None else parent.absolute()
        self.source = source_of(self.view)
        self._settings, self._notice = settings, notice
        self._gguf_type: GgufType = gguf_type
        self._executor: Executor | None = None

    def export(self, form: Form) -> Exported:
        """Make one form, or return the equal one that is there.

        Raises `UserError` when the run has no such form or the folder is taken, `PreflightError` when the
        machine lacks something, `JobError` when the work went wrong.
        """
        if form == "adapter" and self.source.adapter is None:
            raise UserError(
                "this run trained all weights: there is no adapter", hint="use --format merged_16bit"
            )
        folder = self.parent / form
        there = read_manifest(folder)
        if there is not None and there.source_sha256 == self._source_sha256(form) and self._same(there):
            check_files(folder, there)
            return Exported(form, folder, there, False)
        if folder.exists() or folder.is_symlink():
            raise UserError(
                f"{str(folder)!r} exists and is not this export", hint="remove it, or name another --out"
            )
        return Exported(form, folder, self._build(form, folder), True)

    def export_all(self) -> list[Exported | LeftOut]:
        """Make every form that the run and the machine allow; the others are returned with their reason."""
        found: list[Exported | LeftOut] = []
        for form in FORMS:
            if form == "adapter" and self.source.adapter is None:
                continue
            try:
                found.append(self.export(form))
            except PreflightError as error:
                found.append(LeftOut(form, error))
        return found

    def executor(self) -> Executor:
        """Return the executor that jobs of this export run with."""
        if self._executor is None:
            opened = open_executor(self._settings, self._notice)
            opened.make_ready()
            self._executor = opened.executor
        return self._executor

    def _same(self, there: ExportManifest) -> bool:
        return there.form != "gguf" or there.dtype == self._gguf_type

    def _source_sha256(self, form: Form) -> dict[str, str]:
        return self.source.adapter_sha256 if form == "adapter" else self.source.merged_sha256

    def _build(self, form: Form, folder: Path) -> ExportManifest:
        with work_folder(self.parent, form) as work:
            place = work / form
            request = FormRequest(
                self.view, self.source, self.executor, self._settings, self._gguf_type, place, work
            )
            made = make_form(form, request)
            manifest = finish_folder(self.view, self.source, form, place, made, self._source_sha256(form))
            place.rename(folder)
        return manifest


def finish_folder(
    view: RunView, source: Source, form: Form, place: Path, made: Made, source_sha256: dict[str, str]
) -> ExportManifest:
    """Clean the configs, look for what is private, write card and manifest; return the manifest."""
    prepare, loop = view.prepare, view.loop(source.loop)
    assert prepare is not None
    assert loop is not None
    private = private_of(view)
    hub_id = hub_model(prepare)
    base = hub_id or public_name(prepare.model.name, is_hub=False)
    clean_configs(place, base=base, revision=prepare.model.revision if hub_id else None)
    check_private(place, private)
    manifest = ExportManifest(
        form=form,
        run_id=view.run_id,
        loop=source.loop,
        recipe_hash=loop.propose.recipe_hash,
        base=base,
        base_revision=prepare.model.revision,
        source_sha256=source_sha256,
        dtype=made.dtype,
        notes=made.notes,
        files=list_files(place),
    )
    card = model_card(view, CardPlace(form=form, notes=made.notes, weights=manifest.weights))
    check_card(card, private)
    write_atomic(place / README, card)
    write_manifest(place, manifest)
    return manifest
