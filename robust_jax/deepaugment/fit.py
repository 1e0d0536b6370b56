"""Trains a small network of DeepAugment on the user's own images, in minutes on a CPU."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from robust_jax import sharding
from robust_jax.data import order
from robust_jax.deepaugment.cae import CAE, STRIDE
from robust_jax.deepaugment.distort import check_images, check_kind, shrunk
from robust_jax.deepaugment.edsr import EDSR, SCALE
from robust_jax.deepaugment.published import init_params
from robust_jax.state import TrainState
from robust_jax.train import train

MAX_PATCH = 32  # the time of training does not depend on the size of the images
MAX_HELD_OUT = 256
_PATCHES = 2**32  # added to the step: the order of the images has the streams below


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a kind of network is trained.

    Attributes:
      model: a small network, which takes a few minutes at 32 px.
      total_steps: of training.
      batch_size: patches a step.
      learning_rate: of Adam, the peak between a short warm-up and a decay along a cosine.
    """

    model: CAE | EDSR
    total_steps: int
    batch_size: int
    learning_rate: float


# Many small steps: the bits of the code are noise that only small steps average out.
RECIPES: dict[str, Recipe] = {
    "cae": Recipe(CAE(width=16, blocks=2), 6000, 8, 3e-3),
    "edsr": Recipe(EDSR(width=32, blocks=4), 3000, 16, 2e-3),
}


def fit(
    kind: str,
    images: np.ndarray,
    *,
    recipe: Recipe | None = None,
    seed: int,
    workdir: epath.PathLike,
    mesh: Mesh | None = None,
    log_every_steps: int = 100,
    checkpoint_every_steps: int = 500,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Trains one network: the CAE for its mean squared error, EDSR for its mean absolute error.

    Args:
      kind: "cae" or "edsr".
      images: uint8[n, h, w, 3]; one in ten, at most 256, is kept for measuring.
      recipe: by default the small one of this kind.
      seed: of weights, patches and bits.
      workdir: checkpoints go to `distort/KIND` in it, and are resumed from there.
      mesh: by default over all devices.
      log_every_steps: of the loop.
      checkpoint_every_steps: of the loop.

    Returns:
      The parameters; and what `train` tells, with {"psnr", "psnr_trivial"}: mean PSNR in dB on the
      images kept, of the network and of cubic interpolation from a quarter of the sides.
    """
    if kind not in RECIPES:
        raise ValueError(f"unknown kind of network; got {kind!r}; use one of {list(RECIPES)}")
    recipe = recipe or RECIPES[kind]
    check_kind(kind, recipe.model)
    check_images(images)
    if len(images) < 10:
        raise ValueError(f"too few images to train on; got {len(images)}; use at least 10 images")
    mesh = sharding.make_mesh() if mesh is None else mesh
    shuffled = order.subset_elements(np.arange(len(images)), seed=seed, size=len(images))
    count = min(MAX_HELD_OUT, len(images) // 10)
    held_out, rest = images[np.sort(shuffled[:count])], np.sort(shuffled[count:])
    model = recipe.model
    steps = recipe.total_steps
    rate = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, steps // 20, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    loss_fn: Callable[..., jax.Array] = _cae_loss if kind == "cae" else _edsr_loss

    def step_fn(
        state: TrainState, frozen: Any, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, grads = jax.value_and_grad(loss_fn)(state.params, model, batch["image"], key)
        return state.update(grads, optimizer, {"loss": loss})

    state, meta = train(
        step_fn,
        TrainState.create(_start(model, seed), optimizer),
        {},
        _patches(images, rest, recipe.batch_size, seed),
        name=f"distort/{kind}",
        total_steps=steps,
        batch_size=recipe.batch_size,
        workdir=workdir,
        mesh=mesh,
        log_every_steps=log_every_steps,
        checkpoint_every_steps=checkpoint_every_steps,
        learning_rate=rate,
    )
    params = jax.tree.map(np.asarray, state.params)
    side = _patch_side(images)
    kept = held_out[:, : side[0], : side[1]]
    return params, {
        **meta,
        "psnr": psnr(kept, restore(kind, model, params, kept, seed=seed)),
        "psnr_trivial": psnr(kept, _interpolated(kept)),
    }


def restore(
    kind: str, model: nn.Module, params: Mapping[str, Any], images: np.ndarray, *, seed: int
) -> np.ndarray:
    """Returns what a network makes of images when nothing is perturbed.

    Args:
      images: uint8[b, h, w, 3], sides multiples of 4.

    Returns:
      f32[b, h, w, 3] in [0, 255].
    """

    @jax.jit
    def run(params: Mapping[str, Any], pixels: jax.Array) -> jax.Array:
        if kind == "cae":
            found: Any = model.apply({"params": params}, pixels / 255, jax.random.key(seed))
            return 255 * found
        enlarged: Any = model.apply({"params": params}, shrunk(pixels, SCALE))
        return enlarged

    return np.asarray(jnp.clip(run(params, jnp.asarray(images, jnp.float32)), 0, 255))


def psnr(images: np.ndarray, restored: np.ndarray) -> float:
    """Returns the mean over images of the peak signal-to-noise ratio, in dB.

    Args:
      images: uint8[b, h, w, 3].
      restored: f32[b, h, w, 3] in [0, 255].
    """
    error = ((images.astype(np.float32) - restored) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(error, 1e-3))).mean())


def _start(model: CAE | EDSR, seed: int) -> dict[str, Any]:
    """Returns parameters to start from; those of the CAE make up for its having no normalisation.

    The first layer sees pixels of mean 0.45 and deviation 0.25 as if normalised, residual branches
    begin small, and the code so large that its bits are not pure noise.
    """
    params = init_params(model, seed)
    if isinstance(model, EDSR):
        return params
    kernel = 4 * params["e_conv_1_1"]["kernel"]
    params["e_conv_1_1"] = {"kernel": kernel, "bias": -0.45 * kernel.sum((0, 1, 2))}
    scales = {name: 0.1 for side in "ed" for name in model.block_layers(side)[1::2]}
    for name, scale in {**scales, "e_conv_3_0": 3.0}.items():
        params[name] = {**params[name], "kernel": scale * params[name]["kernel"]}
    last = params["d_up_conv_3_3"]
    params["d_up_conv_3_3"] = {**last, "bias": last["bias"] + 0.5}  # tanh(0.5) = 0.46
    return params


def _cae_loss(params: Any, model: CAE, images: jax.Array, key: jax.Array) -> jax.Array:
    pixels = images.astype(jnp.float32) / 255
    found: Any = model.apply({"params": params}, pixels, key)
    return jnp.mean((found - pixels) ** 2)


def _edsr_loss(params: Any, model: EDSR, images: jax.Array, key: jax.Array) -> jax.Array:
    pixels = images.astype(jnp.float32)
    found: Any = model.apply({"params": params}, shrunk(pixels, SCALE))
    return jnp.mean(jnp.abs(found - pixels)) / 255


def _patch_side(images: np.ndarray) -> tuple[int, int]:
    h, w = (min(MAX_PATCH, side) // STRIDE * STRIDE for side in images.shape[1:3])
    return h, w


def _patches(
    images: np.ndarray, elements: np.ndarray, batch_size: int, seed: int
) -> Callable[[int, int], Iterator[dict[str, np.ndarray]]]:
    """Returns the batches: random patches, half of them mirrored, a function of seed and step."""
    h, w = _patch_side(images)
    hosts = jax.process_count()
    mine = slice(*(batch_size * (jax.process_index() + i) // hosts for i in (0, 1)))

    def batches(start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        for step in range(start, stop):
            positions = step * batch_size + np.arange(batch_size)
            chosen = elements[order.train_elements(positions, seed=seed, size=len(elements))]
            draw = np.random.Generator(np.random.Philox(key=[seed % 2**64, _PATCHES + step]))
            rows = draw.integers(images.shape[1] - h + 1, size=batch_size)
            columns = draw.integers(images.shape[2] - w + 1, size=batch_size)
            mirrored = draw.random(batch_size) < 0.5
            patches = [
                images[i, row : row + h, column : column + w][:, :: -1 if flip else 1]
                for i, row, column, flip in zip(
                    chosen[mine], rows[mine], columns[mine], mirrored[mine], strict=True
                )
            ]
            yield {"image": np.stack(patches)}

    return batches


def _interpolated(images: np.ndarray) -> np.ndarray:
    small = shrunk(jnp.asarray(images, jnp.float32), SCALE)
    return np.asarray(jnp.clip(jax.image.resize(small, images.shape, "cubic"), 0, 255))
