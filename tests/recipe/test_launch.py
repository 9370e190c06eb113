"""Accelerate profiles: read by accelerate's own launcher up to the environment that its processes get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rdagent_ft.errors import PreflightError
from rdagent_ft.recipe.launch import PROFILES, render_accelerate

SPLIT = {"ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp2": "FSDP"}
WANTED = {
    "ddp": {},
    "zero2": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "zero3": {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"},
    "fsdp2": {"FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"},
}


@pytest.mark.train
@pytest.mark.parametrize("profile", PROFILES)
def test_accelerates_own_launcher_takes_every_profile(profile: Any, tmp_path: Path) -> None:
    from accelerate.commands import launch
    from accelerate.commands.config.config_args import load_config_from_file

    path = tmp_path / "accelerate.yaml"
    path.write_text(render_accelerate(profile, 4), encoding="utf-8")
    config = load_config_from_file(str(path))
    assert (config.num_processes, config.num_machines) == (4, 1)
    assert config.distributed_type.value == SPLIT[profile]
    argv = ["--config_file", str(path), "job.py", "--config", "config.yaml"]
    args, *_ = launch._validate_launch_command(launch.launch_command_parser().parse_args(argv))
    if profile.startswith("zero"):
        assert args.use_deepspeed
        # What the launch command itself sets between its checks and the start.
        args.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)
        environment = launch.prepare_deepspeed_cmd_env(args)[1]
    else:
        assert args.use_fsdp == (profile == "fsdp2")
        environment = launch.prepare_multi_gpu_env(args)
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert {key: environment.get(key) for key in WANTED[profile]} == WANTED[profile]
    assert int(args.num_processes) == 4


def test_whole_weights_are_saved_whatever_the_split() -> None:
    assert yaml.safe_load(render_accelerate("zero3", 2))["deepspeed_config"]["zero3_save_16bit_model"] is True
    fsdp = yaml.safe_load(render_accelerate("fsdp2", 2))["fsdp_config"]
    assert (fsdp["fsdp_version"], fsdp["fsdp_state_dict_type"]) == (2, "FULL_STATE_DICT")


def test_one_process_has_nothing_to_share() -> None:
    with pytest.raises(PreflightError, match="1 process"):
        render_accelerate("ddp", 1)
