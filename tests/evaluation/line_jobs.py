"""A child for tests of `line_worker`: does what the request says."""

from __future__ import annotations

import os
import signal
import sys
import time

from rdagent_ft.execution.line_server import serve


def answer(request: dict[str, object]) -> dict[str, object]:
    match request["do"]:
        case "sleep":
            time.sleep(600)
        case "spin":
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            while True:
                pass
        case "exit":
            os._exit(3)
        case "fork":
            if os.fork() == 0:
                time.sleep(600)
            return {"group": os.getpgid(0)}
        case "group":
            return {"group": os.getpgid(0)}
        case "memory":
            return {"n": len(bytearray(8 << 30))}
        case "print":
            print('{"n": 99}')
            sys.stdout.flush()
        case "flood":
            return {"n": "x" * (2 << 20)}
        case "keys":
            return {"n": sorted(name for name in os.environ if "KEY" in name)}
        case _:
            pass
    return {"n": request["n"]}


if __name__ == "__main__":
    if os.environ.get("REFUSE"):
        raise SystemExit("no tables here")
    serve(answer, max_memory_bytes=2 << 30, cpu_s=60)
