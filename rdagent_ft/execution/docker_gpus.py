"""The GPUs of an engine's machine, where that is not this one: asked inside a container of the image.

What the image does not see, no job of it will. Engines without the NVIDIA runtime are not asked: they
have no way to hand a GPU on.
"""

from __future__ import annotations

from rdagent_ft.errors import EngineRefusedError
from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_short import run_short, short_options
from rdagent_ft.execution.machine import Gpu, parse_gpus

PROBE_TIMEOUT_S = 60.0
QUERY = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits"]


def probe_gpus(engine: Engine, image: str) -> tuple[Gpu, ...]:
    """Return all GPUs that a container of `image` sees; () where the engine has none to give.

    `CUDA_VISIBLE_DEVICES` of this machine says nothing about another one and is not asked.
    """
    devices = [{"driver": "", "count": -1, "capabilities": [["gpu", "utility"]]}]
    options = short_options("gpu-probe", device_requests=devices)
    try:
        return parse_gpus(run_short(engine, image, QUERY, options, PROBE_TIMEOUT_S), None)
    except EngineRefusedError:
        return ()
