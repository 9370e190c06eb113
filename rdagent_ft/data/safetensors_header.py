"""Weight counts of the user's models from safetensors headers, without loading a weight.

A download that was cut is found here and not in the middle of a training.
"""

from __future__ import annotations

import math
from pathlib import Path

from rdagent_ft.errors import UserError
from rdagent_ft.tensor_files import DamagedTensorsError, read_tensors


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return tensor name -> shape. Raises `UserError` when the file is damaged or cut."""
    try:
        with path.open("rb") as stream:
            tensors = read_tensors(stream, path.stat().st_size)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except DamagedTensorsError as error:
        raise UserError(
            f"{str(path)!r} is not a whole safetensors file: {error}", hint="download it again"
        ) from None
    return {name: tensor.shape for name, tensor in tensors.items()}


def count_weights(paths: list[Path]) -> int:
    """Return the number of weights in all files; a tensor stored twice counts once."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        shapes |= tensor_shapes(path)
    return sum(math.prod(shape) for shape in shapes.values())
