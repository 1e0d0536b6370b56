"""What augmentation costs: AugMix in the CPU pipeline, in PIL and in JAX, and Noise2Net in JAX.

The pipeline and PIL use the same cores, in one process run, interleaved: the ratios are what to
read. PIL's processes keep their results, so that it does not pay for passing images on.
`python benchmarks/augment.py [--json FILE] [--quick]`
"""

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

# Side of the images -> severity, published for images of that size.
SEVERITIES = {224: 1, 32: 3}
# Side -> views of one measurement, and images of Noise2Net.
VIEWS, QUICK_VIEWS = {224: 256, 32: 4096}, {224: 16, 32: 64}
DISTORTED, QUICK_DISTORTED = {224: 8, 32: 128}, {224: 4, 32: 4}
CORES = 2
_IMAGES = 16
_BATCHES = 16  # of one measurement: small enough for the cores to finish together


@lru_cache
def photographs(size: int) -> np.ndarray:
    """Crops of a photograph, uint8[16, size, size, 3]."""
    from sklearn.datasets import load_sample_image

    pixels, rng = load_sample_image("china.jpg"), np.random.default_rng(0)
    crops = []
    for _ in range(_IMAGES):
        top, left = rng.integers(pixels.shape[0] - 224), rng.integers(pixels.shape[1] - 224)
        crop = Image.fromarray(pixels[top : top + 224, left : left + 224])
        crops.append(np.asarray(crop.resize((size, size))))
    return np.stack(crops)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    resample = Image.Resampling.BILINEAR
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=resample)


# (image, level, sign) -> image, the nine operations of AugMix in Pillow's own terms.
PIL_OPS: list[Callable[[Image.Image, float, int], Image.Image]] = [
    lambda im, L, s: ImageOps.autocontrast(im),
    lambda im, L, s: ImageOps.equalize(im),
    lambda im, L, s: ImageOps.posterize(im, 4 - int(L * 4 / 10)),
    lambda im, L, s: im.rotate(s * int(L * 30 / 10), resample=Image.Resampling.BILINEAR),
    lambda im, L, s: ImageOps.solarize(im, 256 - int(L * 256 / 10)),
    lambda im, L, s: _affine(im, (1, s * L * 0.3 / 10, 0, 0, 1, 0)),
    lambda im, L, s: _affine(im, (1, 0, 0, s * L * 0.3 / 10, 1, 0)),
    lambda im, L, s: _affine(im, (1, 0, s * int(L * (im.width / 3) / 10), 0, 1, 0)),
    lambda im, L, s: _affine(im, (1, 0, 0, 0, 1, s * int(L * (im.height / 3) / 10))),
]


def pil_augmix(image: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """AugMix of uint8[h, w, 3] as one writes it with PIL and NumPy."""
    weights, mixing = rng.dirichlet([1.0] * 3).astype(np.float32), np.float32(rng.beta(1, 1))
    mixed = np.zeros(image.shape, np.float32)
    for weight in weights:
        chain = Image.fromarray(image)
        for _ in range(rng.integers(1, 4)):
            level, sign = rng.uniform(0.1, severity), 1 if rng.random() > 0.5 else -1
            chain = PIL_OPS[rng.integers(len(PIL_OPS))](chain, level, sign)
        mixed += weight * np.asarray(chain, np.float32)
    return np.round((1 - mixing) * image + mixing * mixed).astype(np.uint8)


def _pil_views(size: int, count: int, seed: int) -> None:
    images, rng = photographs(size), np.random.default_rng(seed)
    for i in range(count):
        pil_augmix(images[i % len(images)], SEVERITIES[size], rng)


def time_pil(pool: Any, size: int, views: int) -> float:
    """Seconds in which the processes of `pool` make so many views."""
    tasks = [(size, views // _BATCHES, seed) for seed in range(_BATCHES)]
    began = time.perf_counter()
    pool.starmap(_pil_views, tasks, chunksize=1)
    return time.perf_counter() - began


def time_pipeline(images: np.ndarray, severity: float, views: int) -> float:
    """Seconds in which a training run's input pipeline makes so many views."""
    from robust_jax.data import pipeline, sources

    source = sources.from_arrays(images, np.arange(len(images)) % 2)
    ops = {"image": f"augmix(severity={severity})"}
    elements = pipeline.Elements(source, "", ops, seed=0)
    settings = {"batch_size": views // _BATCHES, "num_steps": 1 + _BATCHES}
    batches = pipeline.train_batches(elements, start_step=0, **settings)
    next(batches)  # with the compilation
    began = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - began


def jax_function(name: str, severity: float) -> Callable[..., Any]:
    """The compiled batched augmentation, over all devices."""
    from robust_jax.augment.augmix import augmix
    from robust_jax.augment.batching import on_mesh
    from robust_jax.augment.noise2net import noise2net_pixels
    from robust_jax.sharding import make_mesh

    fn = partial(augmix, severity=severity) if name == "augmix" else noise2net_pixels
    return on_mesh(fn, make_mesh())


def time_jax(fn: Callable[..., Any], images: np.ndarray, count: int) -> float:
    """Seconds in which a compiled augmentation makes one batch of so many images."""
    import jax

    batch = np.resize(images, (count, *images.shape[1:]))
    keys = jax.random.split(jax.random.key(0), count)
    began = time.perf_counter()
    jax.block_until_ready(fn(batch, keys))
    return time.perf_counter() - began


def measure(pool: Any, size: int, views: int, distorted: int, rounds: int) -> list[dict[str, Any]]:
    """Measures every way at one image size; the rows of the table."""
    images, severity = photographs(size), SEVERITIES[size]
    augmix, noise2net = jax_function("augmix", severity), jax_function("noise2net", severity)
    ways: dict[str, tuple[int, Callable[[], float]]] = {
        "augmix, pil": (views, lambda: time_pil(pool, size, views)),
        "augmix, pipeline": (views, lambda: time_pipeline(images, severity, views)),
        "augmix, jax": (views, lambda: time_jax(augmix, images, views)),
        "noise2net, jax": (distorted, lambda: time_jax(noise2net, images, distorted)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, (_, run) in ways.items():
            took = run()
            if round_:  # the first round warms up
                seconds[name].append(took)
    return [
        {"way": name, "size": size, "images_per_second": count / float(np.median(seconds[name]))}
        for name, (count, _) in ways.items()
    ]


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few images: only to see it run")
    args = parser.parse_args()
    # A CPU as several devices, one for each core.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ.setdefault("XLA_FLAGS", f"{flags} --xla_force_host_platform_device_count={CORES}")
    views = QUICK_VIEWS if args.quick else VIEWS
    distorted = QUICK_DISTORTED if args.quick else DISTORTED
    rows = []
    # Processes that have not loaded JAX or TensorFlow.
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        for size in SEVERITIES:
            rows += measure(pool, size, views[size], distorted[size], args.rounds)
    rate = {(row["way"], row["size"]): row["images_per_second"] for row in rows}
    ratios = {
        f"augmix_speedup_over_pil_{size}": rate["augmix, pipeline", size]
        / rate["augmix, pil", size]
        for size in SEVERITIES
    }
    import jax

    device = jax.devices()[0].device_kind
    print(f"images per second; {CORES} cores for pil and the pipeline; JAX on {device}")
    for row in rows:
        print(f"{row['way']:<17} {row['size']:>4} px {row['images_per_second']:>10,.0f}")
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    if args.json:
        machine = {"device": device, "platform": platform.platform(), "cores": CORES}
        args.json.write_text(json.dumps({"machine": machine, "rows": rows, "ratios": ratios}))


if __name__ == "__main__":
    main()
