"""A Python whose `vllm` is a toy: the same command line, protocol and processes, started in a moment.

`make_toy_python` writes an executable that puts a package `vllm` before everything else. What the toy
does is told by files in its working folder or in the model's folder, named below.
"""

from __future__ import annotations

import sys
from pathlib import Path

TOY = """
import argparse, json, os, re, signal, socket, subprocess, sys, time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

parser = argparse.ArgumentParser()
for name in ("model", "served-model-name", "uds", "dtype", "max-model-len", "max-num-seqs", "seed",
             "generation-config", "max-lora-rank", "max-loras", "gpu-memory-utilization"):
    parser.add_argument("--" + name)
for name in ("disable-uvicorn-access-log", "enforce-eager", "enable-lora"):
    parser.add_argument("--" + name, action="store_true")
parser.add_argument("--lora-target-modules", nargs="+")
args = parser.parse_args()
model = Path(args.model)
says = lambda name: (model / name).exists()
if says("fail-at-start"):
    print((model / "fail-at-start").read_text(), flush=True)
    raise SystemExit(1)
if says("too-many-seqs") and int(args.max_num_seqs) > int((model / "too-many-seqs").read_text()):
    print("torch.OutOfMemoryError: CUDA out of memory.", flush=True)
    raise SystemExit(1)
if says("never-ready"):
    time.sleep(3600)
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(3600)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
Path("pids").write_text(f"{os.getpid()} {child.pid}")
Path("argv").write_text(json.dumps(sys.argv[1:]))
adapters = {}
tokens = 0

def top(name):
    shift = 0.0 if name == args.served_model_name else adapters[name]
    if shift != shift:
        return {"token_id:1": float("nan")}
    return {"token_id:1": -1.0 - shift, "token_id:2": -2.0 + shift}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def address_string(self): return "unix"
    def reply(self, status, value):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/health":
            self.reply(503 if Path("sick").exists() else 200, b"")
        elif self.path == "/v1/models":
            self.reply(200, {"data": [{"id": n} for n in (args.served_model_name, *adapters)]})
        elif self.path == "/metrics":
            self.reply(200, f'vllm:generation_tokens_total{{model_name="base"}} {tokens}.0\\n'.encode())
    def do_POST(self):
        global tokens
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            config = json.loads((Path(body["lora_path"]) / "adapter_config.json").read_text())
            if config.get("refuse"):
                return self.reply(400, {"error": {"message": "no"}})
            if not config.get("forget"):
                adapters[body["lora_name"]] = float(config.get("shift", 0.0))
            return self.reply(200, b"Success")
        if self.path == "/v1/unload_lora_adapter":
            adapters.pop(body["lora_name"])
            return self.reply(200, b"Success")
        if body["model"] != args.served_model_name and body["model"] not in adapters:
            return self.reply(404, {"error": {"message": "no such model"}})
        if says("die-at-first-token"):
            print("RuntimeError: Unsupported CPU attention configuration: head_dim=16", flush=True)
            os._exit(1)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        tokens += len(prompts)
        self.reply(200, {"choices": [
            {"index": i, "text": "x", "logprobs": {"top_logprobs": [top(body["model"])]}}
            for i in range(len(prompts))]})

class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

server = Server(args.uds, Handler)
print("Application startup complete.", flush=True)
server.serve_forever()
"""


def make_toy_python(folder: Path) -> Path:
    """Write the toy package and return the executable that finds it."""
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for place in (package, package.parent, package.parent.parent):
        (place / "__init__.py").touch()
    (package / "api_server.py").write_text(TOY)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH={folder}:$PYTHONPATH\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python
