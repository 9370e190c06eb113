"""`rdagent-ft images`: build the images that jobs run in, and list what the engine has."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rdagent_ft.cli.options import AsJson, EnvFile

if TYPE_CHECKING:
    from rdagent_ft.execution.image_pins import ImageName, Variant

images_app = typer.Typer(help="Build and list the images that jobs run in.", no_args_is_help=True)

Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Images: train, lm-eval, serve, opencompass, llamafactory.", show_default="train lm-eval"
    ),
]
VariantOption = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option("--variant", help="Unset means cuda where this machine has a GPU, else cpu."),
]


@images_app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]
    """Build and list the images that jobs run in."""


@images_app.command()
def build(
    names: Names = None,
    variant: VariantOption = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step of the build again.")] = False,
    network: Annotated[
        str | None,
        typer.Option(help="Network of the build's steps, e.g. host; unset means as little as works."),
    ] = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Build images from their Dockerfile and the pins of images.toml, where the engine lacks them."""
    import sys

    from rdagent_ft.execution.docker_engine import connect
    from rdagent_ft.execution.image_build import BuildOptions
    from rdagent_ft.execution.image_releases import image_request
    from rdagent_ft.execution.images import ensure_image
    from rdagent_ft.settings_sources import load_settings

    settings = load_settings(env_file=env_file).settings
    wanted, chosen = _image_names(names), _variant(variant)
    built: list[dict[str, object]] = []
    with closing(connect()) as engine:
        for name in wanted:
            image = ensure_image(
                engine.client,
                image_request(name, chosen, settings),
                settings.file_path / "cache" / "images",
                lambda line: print(line, file=sys.stderr, flush=True),
                BuildOptions(network=network, no_cache=no_cache),
            )
            built.append(image.model_dump(mode="json"))
            if not as_json:
                print(f"{image.tag}  {image.image_id}", flush=True)
    if as_json:
        _print_json(built)


@images_app.command("list")
def list_(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """List our images on the engine: tag, variant, state, size, id and the packages asked for."""
    from rdagent_ft.execution.docker_engine import connect
    from rdagent_ft.execution.images import list_images
    from rdagent_ft.settings_sources import load_settings

    load_settings(env_file=env_file)
    with closing(connect()) as engine:
        listed = list_images(engine.client)
    if as_json:
        _print_json([{**entry.image.model_dump(mode="json"), "state": entry.state} for entry in listed])
        return
    if not listed:
        print("no image of ours is on this engine; `rdagent-ft images build` makes them")
    for entry in listed:
        image = entry.image
        size = f"{image.size_bytes / 1e9:.2f} GB"
        print(f"{image.tag:<38}  {image.variant:<4}  {entry.state:<10}  {size:>9}  {image.image_id[:19]}")
        print("    " + " ".join(f"{name}=={version}" for name, version in sorted(image.versions.items())))


@images_app.command()
def pins(names: Names = None, variant: VariantOption = None, env_file: EnvFile = None) -> None:
    """Print the pins of images as lines for `pip wheel -r`, to fill the folder of FT_DOCKER_WHEELS."""
    from rdagent_ft.execution.image_context import plan_image
    from rdagent_ft.execution.image_releases import image_request
    from rdagent_ft.settings_sources import load_settings

    # The folder that is about to be filled may still be empty.
    settings = load_settings({"docker_wheels": ""}, env_file=env_file).settings
    chosen = _variant(variant)
    plans = [plan_image(image_request(name, chosen, settings)) for name in _image_names(names)]
    print("\n".join(sorted({line for plan in plans for line in plan.pin_lines()})))


def _image_names(names: list[str] | None) -> list[ImageName]:
    from rdagent_ft.errors import UserError
    from rdagent_ft.execution.image_pins import IMAGE_NAMES

    found: list[ImageName] = []
    for name in names or ["train", "lm-eval"]:
        if name not in IMAGE_NAMES:
            raise UserError(f"no image is called {name!r}", hint="known: " + ", ".join(IMAGE_NAMES))
        found.append(name)
    return found


def _variant(variant: Variant | None) -> Variant:
    from rdagent_ft.execution.machine import read_gpus

    return variant or ("cuda" if read_gpus() else "cpu")


def _print_json(images: list[dict[str, object]]) -> None:
    import json

    print(json.dumps({"schema_version": 1, "images": images}, indent=2))
