# pyright: basic
"""Runs a recipe's data script: `python -m rdagent_ft.training.data_script_job --script FILE --out DIR`.

The script is foreign code; that it can do no harm is the container's work, not this file's. Standard
library only. `/data/train.jsonl` is what it reads, `DIR/data.jsonl` is what it must leave. What is found
here is told for people's sake: the controller reads the output again and trusts none of it.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import io
import os
import runpy
import signal
import stat
import sys
import time
from pathlib import Path

from rdagent_ft.training.job_files import fail, write_json_file

OUTPUT_NAME = "data.jsonl"


def main() -> None:
    """Run the script, then check and count what it left. A failed script keeps its traceback."""
    parser = argparse.ArgumentParser(description="Run a data script.")
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of data.jsonl and result.json")
    args = parser.parse_args()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.chdir(args.out)
    started = time.monotonic()
    run_script(args.script)
    n_rows = count_rows(args.out / OUTPUT_NAME)
    result = {"n_rows": n_rows, "seconds": time.monotonic() - started}
    write_json_file(args.out / "result.json", result)


def run_script(path: Path) -> None:
    """Run the file as `__main__`. `sys.exit()` and `sys.exit(0)` end the script, not the job."""
    sys.argv = [str(path)]
    try:
        kept = runpy.run_path(str(path), run_name="__main__")  # its variables live until the flush
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
        kept = None
    flush_open_files()
    del kept


def flush_open_files() -> None:
    """Write out files that the script left open, as the end of a program of its own would.

    Not left to the garbage collector: in a cycle it may close a file before its text is flushed.
    """
    for item in gc.get_objects():
        if isinstance(item, io.TextIOWrapper) and not item.closed and item.writable():
            item.flush()
    for item in gc.get_objects():
        if isinstance(item, io.BufferedWriter) and not item.closed:
            item.flush()


def count_rows(path: Path) -> int:
    """Return the lines with text in the script's output; end the job when there is no regular file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        fail(Path("failure.json"), "data.script_output", f"the script wrote no {path}")
    if not stat.S_ISREG(mode):
        fail(Path("failure.json"), "data.script_output", f"{path} is not a regular file")
    n_rows, has_text = 0, False
    with path.open("rb") as stream:
        while piece := stream.readline(1 << 20):  # a line may be as long as the file
            has_text = has_text or bool(piece.strip())
            if piece.endswith(b"\n"):
                n_rows, has_text = n_rows + has_text, False
    return n_rows + has_text


if __name__ == "__main__":
    main()
