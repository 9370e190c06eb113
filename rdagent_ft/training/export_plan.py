"""Commands of the jobs that change a model's form for people, and what they report: without torch.

Merging and storing in fewer bits are jobs of ours; GGUF is made by llama.cpp's own converter, which the
person installed. Whether a machine can run them is asked in `engine/exporting.py`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.execution.outputs import open_inside, read_json_file
from rdagent_ft.training.plan import Count, Number, Versions, Word, merge_argv
from rdagent_ft.values import Frozen

Dtype = Literal["float32", "bfloat16", "float16"]
GgufType = Literal["f32", "f16", "bf16", "q8_0"]
CONVERTER = "convert_hf_to_gguf.py"
CONVERTER_VARIABLE = "FT_LLAMA_CPP"
_MODULE = "rdagent_ft.training.quantise_job"


class FormResult(Frozen):
    """What the export job reports of a model in fewer bits.

    Attributes:
        form, dtype: what was asked for and how weights are stored now.
        max_abs_diff, max_abs_logit: fp32 logits against those of the model it was made from.
        share_same_token: share of positions at which both find the same token most likely.
        n_bytes_before, n_bytes: size of all weight files.
    """

    form: Literal["16bit", "4bit"]
    dtype: Word
    max_abs_diff: Number
    max_abs_logit: Number
    share_same_token: Number
    n_prompts: Count
    n_bytes_before: Count
    n_bytes: Count
    seconds: Number
    versions: Versions


def dtype_merge_argv(base: Path, adapter: Path, out: Path, dtype: Dtype) -> tuple[str, ...]:
    """Return the merge job's command that stores the proven model in `dtype`."""
    return (*merge_argv(base, out, adapter=adapter), "--dtype", dtype)


def form_argv(model: Path, out: Path, form: Literal["16bit", "4bit"]) -> tuple[str, ...]:
    """Return the export job's command; it writes `result.json` into its working directory."""
    return ("python", "-m", _MODULE, "--model", str(model), "--out", str(out), "--form", form)


def gguf_argv(converter: Path, model: Path, out: Path, kind: GgufType) -> tuple[str, ...]:
    """Return the command of llama.cpp's converter."""
    return ("python", str(converter), str(model), "--outfile", str(out), "--outtype", kind)


def read_form_result(out_dir: Path) -> FormResult:
    """Read `result.json` of an export job. Raises `JobError`."""
    values: dict[str, Any] = read_json_file(out_dir, "result.json", 1 << 20)
    try:
        return FormResult.model_validate({name: values.get(name) for name in FormResult.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise JobError(f"`result.json` is not usable: {key}: {first['msg']}") from None


def find_converter(environ: dict[str, str]) -> Path:
    """Return llama.cpp's converter: in FT_LLAMA_CPP (its folder, or the script), else on PATH.

    Raises `PreflightError` that says what to install.
    """
    named = environ.get(CONVERTER_VARIABLE)
    if named:
        place = Path(named).expanduser().absolute()
        script = place / CONVERTER if place.is_dir() else place
        if not script.is_file():
            raise PreflightError(
                f"{CONVERTER_VARIABLE} is {named!r}, and there is no {CONVERTER}",
                hint="name the folder of a llama.cpp checkout",
            )
        return script
    found = shutil.which(CONVERTER, path=environ.get("PATH"))
    if found is None:
        raise PreflightError(
            f"GGUF needs llama.cpp's {CONVERTER}, which is not on PATH",
            hint=f"clone llama.cpp, install its requirements, and set {CONVERTER_VARIABLE} to its folder",
        )
    return Path(found).absolute()


def check_gguf(root: Path, name: str) -> None:
    """Raise `JobError` unless the file is GGUF with at least one tensor (header of version 2 or later).

    Source of the layout: llama.cpp's `docs/gguf.md`: magic, version, number of tensors, little-endian.
    """
    with os.fdopen(open_inside(root, name), "rb") as stream:
        head = stream.read(16)
    version, n_tensors = int.from_bytes(head[4:8], "little"), int.from_bytes(head[8:16], "little")
    if head[:4] != b"GGUF" or len(head) < 16 or not 2 <= version < 100 or n_tensors == 0:
        raise JobError(f"the converter left no GGUF model in `{name}`")
