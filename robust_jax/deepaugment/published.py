"""Reads the two published networks: `model_final.state` (CAE) and `edsr_baseline_x4.pt`."""

import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from robust_jax.deepaugment.cae import CAE
from robust_jax.deepaugment.edsr import EDSR, RGB_MEAN
from robust_jax.weights.mapping import LAYOUTS, Tensor

_SHOWN = 12  # names in a message
_MEAN_SHIFT = re.compile(r"(sub|add)_mean\.(weight|bias)")


def rows(model: CAE | EDSR) -> list[Tensor]:
    """Returns where each array lies in the file.

    The kernels of EDSR's residual blocks are stacked in ours: those paths end in `#block,conv`.
    """
    if isinstance(model, CAE):
        names = [(layer.name, ".".join(layer.name.rsplit("_", 1))) for layer in model.layers()]
    else:
        names = [("head", "head.0"), ("body_end", f"body.{model.blocks}")]
        names += [("up_1", "tail.0.0"), ("up_2", "tail.0.2"), ("tail", "tail.1")]
    found = []
    for ours, theirs in names:
        found.append(Tensor(f"{ours}/kernel", f"{theirs}.weight", "conv"))
        found.append(Tensor(f"{ours}/bias", f"{theirs}.bias"))
    if isinstance(model, EDSR):
        for i in range(model.blocks):
            for j in range(2):
                theirs = f"body.{i}.body.{2 * j}"
                found.append(Tensor(f"body/kernel#{i},{j}", f"{theirs}.weight", "conv"))
                found.append(Tensor(f"body/bias#{i},{j}", f"{theirs}.bias"))
    return found


def load(model: CAE | EDSR, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parameters of a network from the tensors of its published file.

    Args:
      model: `CAE()` or `EDSR()`, or of the sizes of the file.
      tensors: by name, as `robust_jax.weights.files.read` returns them.

    Raises:
      ValueError: for missing, additional or misshaped tensors, or another mean colour.
    """
    named = {name.removeprefix("module."): value for name, value in tensors.items()}
    if isinstance(model, EDSR):
        _check_mean_shift(named)
        named = {name: t for name, t in named.items() if not _MEAN_SHIFT.fullmatch(name)}
    wanted = rows(model)
    missing = [row.name for row in wanted if row.name not in named]
    extra = sorted(named.keys() - {row.name for row in wanted})
    if missing or extra:
        raise ValueError(
            f"the weights are not those of {type(model).__name__}; got {len(missing)} missing "
            f"tensors ({_some(missing)}) and {len(extra)} additional ones ({_some(extra)}); give "
            "the file of DeepAugment's CAE or of EDSR baseline x4"
        )
    arrays = {path: np.empty(leaf.shape, np.float32) for path, leaf in _shapes(model).items()}
    wrong = []
    for row in wanted:
        path, _, index = row.path.partition("#")
        place = tuple(int(i) for i in index.split(",")) if index else ()
        ours = arrays[path][place]
        expected = LAYOUTS[row.layout].store(ours).shape
        if named[row.name].shape != expected:
            wrong.append(f"{row.name} is {list(named[row.name].shape)}, not {list(expected)}")
        else:
            arrays[path][place] = LAYOUTS[row.layout].restore(named[row.name], ours.shape)
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors have another shape than the network; got {_some(wrong)}; give a "
            "network of the sizes of the file"
        )
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def init_params(model: CAE | EDSR, seed: int) -> dict[str, Any]:
    """Returns new parameters of a network."""
    key = jax.random.key(seed)
    image = jnp.zeros((1, 16, 16, 3))
    inputs = (image, key) if isinstance(model, CAE) else (image,)
    return dict(jax.jit(model.init)(key, *inputs)["params"])


def _shapes(model: CAE | EDSR) -> dict[str, Any]:
    shapes = jax.eval_shape(lambda: init_params(model, 0))
    return flax.traverse_util.flatten_dict(shapes, sep="/")


def _check_mean_shift(tensors: Mapping[str, np.ndarray]) -> None:
    mean = 255 * np.asarray(RGB_MEAN, np.float32)
    expected: dict[str, np.ndarray] = {
        "sub_mean.weight": np.eye(3)[:, :, None, None],
        "sub_mean.bias": -mean,
        "add_mean.weight": np.eye(3)[:, :, None, None],
        "add_mean.bias": mean,
    }
    for name, value in expected.items():
        found = tensors.get(name, value)
        if found.shape != value.shape or not np.allclose(found, value, atol=1e-3):
            raise ValueError(
                f"the file was made for another mean colour; got {name}={found.ravel().tolist()}; "
                f"use one with {value.ravel().tolist()}"
            )


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"
