"""The process of one scored program: `python -P -s -B program_child.py READ_FD WRITE_FD`.

Standard library only; imports nothing of the package, because it is started by its path. It takes the
program from the job over a pipe, gives up what it may give up (limits, system calls), runs the program
and proves that it came to its end: only then the job sends a nonce, and only who sends it back has passed.

A program that ends the process early by any exit code never sees the nonce. Not covered: a program
that knows this protocol and speaks it itself, or that changes what its own tests call (`__eq__` that
is always true, replaced builtins): tests and program share one process.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any

NONCE_BYTES = 32
SET_UP, AT_END = b"S", b"E"
"""What is told to the job: the walls stand, the program may start; the program came to its end."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2


def main() -> None:
    """Run the one program that the job sends; leave with 0 when its end was proven."""
    source, sink = int(sys.argv[1]), int(sys.argv[2])
    read, write, leave = os.read, os.write, os._exit  # the program may replace them in `os`
    for descriptor in (source, sink):
        os.set_inheritable(descriptor, False)
    order = _receive(source)
    _confine(order)
    sys.argv = ["program.py"]
    write(sink, SET_UP)
    exec(compile(order["program"], "program.py", "exec"), {"__name__": "__main__"})
    write(sink, AT_END)
    write(sink, read(source, NONCE_BYTES))
    leave(0)


def _receive(source: int) -> dict[str, Any]:
    """Return the job's order: `program`, `filter` (hex), `memory_bytes`, `cpu_s`, `file_bytes`."""
    head = _read_exactly(source, 8)
    return json.loads(_read_exactly(source, struct.unpack("<Q", head)[0]))


def _read_exactly(source: int, n_bytes: int) -> bytes:
    pieces: list[bytes] = []
    while n_bytes:
        piece = os.read(source, min(n_bytes, 1 << 16))
        if not piece:
            raise EOFError("the job went away")
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def _confine(order: dict[str, Any]) -> None:
    """Set the limits and install the filter. Raises `OSError` when the kernel refuses: nothing runs then."""
    with open("/proc/self/oom_score_adj", "w") as stream:  # short of memory, the program goes first
        stream.write("1000")
    limits = {
        resource.RLIMIT_AS: order["memory_bytes"],
        resource.RLIMIT_CPU: order["cpu_s"],
        resource.RLIMIT_FSIZE: order["file_bytes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in limits.items():
        resource.setrlimit(name, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    _call(libc, _PR_SET_DUMPABLE, 0)
    _call(libc, _PR_SET_NO_NEW_PRIVS, 1)
    instructions = bytes.fromhex(order["filter"])
    kept = ctypes.create_string_buffer(instructions, len(instructions))
    head = struct.pack("@HxxxxxxP", len(instructions) // 8, ctypes.addressof(kept))
    _call(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head)


def _call(libc: ctypes.CDLL, option: int, *arguments: int | bytes) -> None:
    words = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    if libc.prctl(ctypes.c_int(option), *words) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) was refused")


if __name__ == "__main__":
    main()
