"""Cases in which a network of ours must equal another implementation, and their made weights.

The weights are functions of the tensors' names, so a stored reference needs shapes and output only.
"""

import dataclasses
import importlib
import json
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np

REFERENCES = pathlib.Path(__file__).parent / "references"
FAMILIES = ("clip", "efficientnet", "lit", "resnet", "swin", "vit")
BATCH = 2


@dataclasses.dataclass(frozen=True)
class Reference:
    """The other implementation.

    Attributes:
      shapes: of its tensors, by their names in files; floating point ones only.
      run: loads tensors and answers float32 inputs [b, 3, h, w], or int64 tokens [b, n].
    """

    shapes: dict[str, tuple[int, ...]]
    run: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """A network in both implementations.

    Attributes:
      name: of the stored reference.
      family: module of `robust_jax.weights`.
      format: key of its FORMATS.
      model: makes ours, classifier included where the format has one.
      reference: makes the other; imports torch.
      text: whether it is a text tower.
      stop: the stage of ours whose input is compared; the logits if None.
    """

    name: str
    family: str
    format: str
    model: Callable[[], nn.Module]
    reference: Callable[[], Reference]
    text: bool = False
    stop: str | None = None


def cases() -> list[Case]:
    """The cases of every family."""
    return [case for f in FAMILIES for case in importlib.import_module(f"cases_{f}").CASES]


def made(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values for a tensor, the same on every machine and with every version of numpy."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    last = name.replace("/", ".").rsplit(".", 1)[-1]
    if last in ("running_var", "var"):
        noise = np.exp(0.3 * noise)
    elif last in ("weight", "scale", "gamma", "lambda1") and len(shape) == 1:
        noise = 1 + 0.3 * noise
    elif last in ("logit_scale", "t"):
        noise = 2 + 0.1 * noise
    elif len(shape) >= 2 and last in ("weight", "kernel", "in_proj_weight"):
        # torch has outputs first, Flax last.
        fan_in = np.prod(shape) / (shape[-1] if last == "kernel" else shape[0])
        noise = noise * np.sqrt(1.5 / fan_in)
    else:
        noise = 0.3 * noise
    return np.asarray(noise, np.float32)


def inputs(case: Case, model: Any) -> np.ndarray:
    """Normalised images f32[b, 3, h, w], or tokens int64[b, n] that end as CLIP's do."""
    rng = np.random.RandomState(zlib.crc32(case.name.encode()))
    if case.text:
        tokens = rng.randint(1, model.vocab_size - 1, (BATCH, model.context))
        for row, length in enumerate((model.context - 3, model.context // 2)):
            tokens[row, length] = model.vocab_size - 1
            tokens[row, length + 1 :] = 0
        return tokens
    size = model.image_size
    return rng.standard_normal((BATCH, 3, size, size)).astype(np.float32)


def difference(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())


def store(case: Case, reference: Reference, output: np.ndarray) -> None:
    """Writes the shapes and the output of a reference."""
    np.savez(REFERENCES / f"{case.name}.npz", shapes=json.dumps(reference.shapes), output=output)


def stored(case: Case) -> tuple[dict[str, tuple[int, ...]], np.ndarray]:
    """Reads what `store` wrote."""
    with np.load(REFERENCES / f"{case.name}.npz") as file:
        shapes = json.loads(str(file["shapes"]))
        return {name: tuple(shape) for name, shape in shapes.items()}, file["output"]
