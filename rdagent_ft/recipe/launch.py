"""How several processes of one machine share a training: the config of `accelerate launch`.

One process needs none of this. Not covered: several machines, and CPUs, on which accelerate's launcher
starts one process whatever the config says.
"""

from __future__ import annotations

from typing import Literal

from rdagent_ft.errors import PreflightError
from rdagent_ft.shipped import shipped_folder

Profile = Literal["ddp", "zero2", "zero3", "fsdp2"]
PROFILES: tuple[Profile, ...] = ("ddp", "zero2", "zero3", "fsdp2")


def render_accelerate(profile: Profile, n_devices: int) -> str:
    """Return the text of an accelerate config file for `n_devices` GPUs of one machine.

    Args:
        profile: `ddp` repeats everything in each process; `zero2` splits gradients and optimizer
            states; `zero3` (DeepSpeed) and `fsdp2` (PyTorch) split the weights as well.
        n_devices: processes, one for each GPU; at least 2.

    Raises `PreflightError` when there is nothing to share.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if n_devices < 2:
        raise PreflightError(
            f"{n_devices} process needs no accelerate profile", hint="start the job without a launcher"
        )
    environment = Environment(
        loader=FileSystemLoader(shipped_folder("templates")),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    template = environment.get_template(f"accelerate/{profile}.yaml.j2")
    return template.render(n_devices=n_devices)
