"""DeepAugment: distorts images by sending each through its own perturbed copy of a network.

The published scripts draw new weights before an image with probability 0.05 and keep them until
the next draw, so about 20 images in a row share theirs, in an order that depends on the number of
workers. Here every image draws its own from its seed: its result is the same in every batch.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robust_jax.augment.batching import check_rgb, keys_of
from robust_jax.deepaugment import cae_code, cae_weights, edsr_activations, edsr_weights
from robust_jax.deepaugment.cae import CAE, STRIDE
from robust_jax.deepaugment.edsr import EDSR, SCALE

KINDS: dict[str, type[nn.Module]] = {"cae": CAE, "edsr": EDSR}
DRAWN, NONE = "drawn", "none"
MIN_SIDE = 16  # the decoder mirrors two rows of a quarter of it

_FEATURES = [
    name
    for name in (*edsr_activations.BEFORE, *edsr_activations.MIDDLE)
    if name != edsr_activations.NONE
]
WEIGHT_CHANGES: dict[str, Sequence[str]] = {
    "cae": list(cae_weights.CHANGES),
    "edsr": list(edsr_weights.CHANGES),
}
ACTIVATION_CHANGES: dict[str, Sequence[str]] = {"cae": list(cae_code.CHANGES), "edsr": _FEATURES}


def distort(
    kind: str,
    model: nn.Module,
    params: Mapping[str, Any],
    images: jax.Array | np.ndarray,
    seeds: jax.Array | np.ndarray,
    *,
    faithful: bool = False,
    weights: str = DRAWN,
    activations: str = DRAWN,
    shrink: int = SCALE,
) -> jax.Array:
    """Distorts images, each as a pure function of its pixels and its seed.

    One image after the other: on a CPU a convolution with other weights for each image is faster
    so than in a batch (4 to 5 times at 32 px), and memory does not grow with the batch.

    Args:
      kind: "cae" or "edsr".
      model: of that kind.
      params: of the model; an untrained one gives colour noise.
      images: uint8[b, h, w, 3], sides of 16 or more.
      seeds: int32[b, 2].
      faithful: repeat what the published code does instead of what it was meant to do; see the
        modules of the perturbations.
      weights: "drawn", "none" or the name of a perturbation, of `WEIGHT_CHANGES`.
      activations: "drawn", "none" or the name of a perturbation, of `ACTIVATION_CHANGES`.
      shrink: EDSR sees the images at 1 / shrink of their sides, 1, 2 or 4. At 4 its output has the
        size of the images; below, it is resized to it, and small images keep more of their detail.

    Returns:
      uint8[b, h, w, 3].
    """
    check_kind(kind, model)
    check_images(images)
    if seeds.shape != (len(images), 2):
        raise ValueError(
            f"one seed of two integers an image; got {list(seeds.shape)} for {len(images)} images; "
            f"give int32[{len(images)}, 2]"
        )
    for value, known in (
        (weights, WEIGHT_CHANGES[kind]),
        (activations, ACTIVATION_CHANGES[kind]),
    ):
        if value not in (DRAWN, NONE, *known):
            raise ValueError(
                f"unknown perturbation of {kind}; got {value!r}; use {DRAWN}, {NONE} or one of "
                f"{', '.join(known)}"
            )
    if shrink not in (1, 2, SCALE) or (kind == "cae" and shrink != SCALE):
        raise ValueError(
            f"the images cannot be shrunk so; got shrink={shrink} for {kind}; use 1, 2 or 4 for "
            "edsr, and leave it out for cae"
        )
    run = _compiled(kind, model, faithful, weights, activations, shrink)
    return run(params, images, seeds)


def check_kind(kind: str, model: nn.Module) -> None:
    """Raises a ValueError where the kind is unknown or the network is of another one."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of network; got {kind!r}; use one of {list(KINDS)}")
    if not isinstance(model, KINDS[kind]):
        raise ValueError(
            f"the network is of another kind; got {type(model).__name__} for {kind!r}; give a "
            f"{KINDS[kind].__name__}"
        )


def check_images(images: jax.Array | np.ndarray) -> None:
    """Raises a ValueError for anything but uint8[b, h, w, 3] of sides that the networks take."""
    check_rgb(images, jnp.uint8)
    if min(images.shape[1:3]) < MIN_SIDE:
        raise ValueError(
            f"the images are too small; got {list(images.shape)}; use sides of {MIN_SIDE} or more"
        )


@functools.lru_cache(maxsize=64)
def _compiled(
    kind: str, model: nn.Module, faithful: bool, weights: str, activations: str, shrink: int
) -> Callable[..., jax.Array]:
    run: Callable[..., jax.Array] = _through_cae
    if kind == "edsr":
        run = functools.partial(_through_edsr, shrink=shrink)

    def one(params: Mapping[str, Any], image: jax.Array, seed: jax.Array) -> jax.Array:
        key = keys_of(seed)
        h, w = image.shape[:2]
        padded = jnp.pad(image, ((0, -h % STRIDE), (0, -w % STRIDE), (0, 0)), mode="edge")
        found = run(model, params, padded.astype(jnp.float32), key, faithful, weights, activations)
        # torchvision's to_pil_image cuts the fraction off.
        levels = jnp.clip(found, 0, 255) + (0 if faithful else 0.5)
        return jnp.floor(levels).astype(jnp.uint8)[:h, :w]

    def all_of(params: Mapping[str, Any], images: jax.Array, seeds: jax.Array) -> jax.Array:
        return lax.map(lambda pair: one(params, *pair), (images, seeds))

    return jax.jit(all_of)


def _through_cae(
    model: CAE,
    params: Mapping[str, Any],
    image: jax.Array,
    key: jax.Array,
    faithful: bool,
    weights: str,
    activations: str,
) -> jax.Array:
    weight_key, code_key = jax.random.split(key)
    if weights != NONE:
        names = cae_weights.drawn(faithful) if weights == DRAWN else [weights]
        params = cae_weights.perturb(weight_key, params, model, names, faithful=faithful)
    names = {DRAWN: list(cae_code.CHANGES), NONE: []}.get(activations, [activations])
    code: Any = model.apply({"params": params}, image[None] / 255, method="encode")
    code = cae_code.perturb(code_key, code[0], names, faithful=faithful)
    decoded: Any = model.apply({"params": params}, code[None], method="decode")
    return 255 * decoded[0]


def _through_edsr(
    model: EDSR,
    params: Mapping[str, Any],
    image: jax.Array,
    key: jax.Array,
    faithful: bool,
    weights: str,
    activations: str,
    shrink: int,
) -> jax.Array:
    weight_key, feature_key = jax.random.split(key)
    if weights != NONE:
        names = list(edsr_weights.CHANGES) if weights == DRAWN else [weights]
        params = edsr_weights.perturb(weight_key, params, names, faithful=faithful)
    changes: dict[str, Any] = {}
    if activations != NONE:
        name = "" if activations == DRAWN else activations
        plan = edsr_activations.plan(feature_key, model.blocks, name, faithful=faithful)
        apply = functools.partial(edsr_activations.apply, faithful=faithful)
        changes = {
            "before": lambda x: apply(edsr_activations.BEFORE, plan.before, plan.before_key, x),
            "middle": lambda x: apply(edsr_activations.MIDDLE, plan.middle, plan.middle_key, x),
            "keep": plan.keep,
            "chained": plan.chained,
        }
    small = shrunk(image[None], shrink)
    enlarged: Any = model.apply({"params": params}, small, **changes)
    fitted = shrunk(enlarged, SCALE // shrink)
    return fitted[0]


def shrunk(images: jax.Array, factor: int) -> jax.Array:
    """Returns f32[b, h / factor, w / factor, c], bilinear with antialiasing."""
    b, h, w, c = images.shape
    return jax.image.resize(images, (b, h // factor, w // factor, c), "linear", antialias=True)
