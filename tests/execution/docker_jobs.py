"""What tests of the docker executor share beside their fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from rdagent_ft.execution.docker_engine import Engine
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.docker_transfer import FarFiles

MakeDocker = Callable[..., DockerExecutor]


def far_files(engine: Engine, **options: Any) -> FarFiles:
    """The files of jobs as they travel, with small limits."""
    limits = job_limits(engine.info, memory_gib=1.0, output_gib=1.0)
    return FarFiles(engine, (os.getuid(), os.getgid()), limits, **options)
