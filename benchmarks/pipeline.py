"""How fast the input pipeline makes batches, and whether it keeps a training step busy.

At 32 and at 224 pixels, from folders of JPEGs that are written for it (32 x 32, and 500 x 375 as
most of ImageNet), with the ops of a run:

- ours: batches that are a pure function of the step. plain: the same operations as one writes them
  with tf.data, which shuffles and cannot be resumed.
- clean: decoded, resized, cropped, mirrored; + augmix: and an augmented view of each.
- in memory: ours, of images that need no decoding and no resize.

An image counts once, with an augmented view of it too. The split step is the three-head step on
such pairs of views: `pipeline_over_split_step` above 1 means that it need not wait, where the
pipeline has cores that the step does not use. All take turns on the same cores.
`python benchmarks/pipeline.py [--json FILE] [--model vit_s16] [--batch 16] [--rounds 5]
[--quick]`; model and batch (two images a pair) are of the split step.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from PIL import Image

from configs import base
from robust_jax import models
from robust_jax.stages import networks

# Side of the images -> a model for it, sides of the files, batch size, and batches timed.
SIZES = {32: ("vit_tiny8", (32, 32), 128, 32), 224: ("vit_s16", (375, 500), 16, 16)}
QUICK = {32: ("vit_tiny8", (32, 32), 16, 2), 224: ("vit_s16", (375, 500), 4, 2)}
AUGMENT = {32: "augmix(severity=3)", 224: "augmix(severity=1)"}
FILES = 64
Timed = Callable[[], float]  # seconds of an image


def write_images(directory: Path, sides: tuple[int, int]) -> None:
    """Writes JPEGs of two classes: crops of scikit-learn's photographs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for label, photograph in enumerate(load_sample_images().images):
        folder = directory / "train" / str(label)
        folder.mkdir(parents=True)
        (directory / "val" / str(label)).mkdir(parents=True)
        for number in range(FILES // 2):
            top, left = (rng.integers(photograph.shape[i] - sides[i]) for i in range(2))
            crop = photograph[top : top + sides[0], left : left + sides[1]]
            Image.fromarray(crop).save(folder / f"{number}.jpg", quality=90)


def seconds_of(batches: Iterable[Any], images: int) -> float:
    """Seconds of an image, after the first batch: it waits for what comes before any."""
    iterator = iter(batches)
    next(iterator)
    began = time.perf_counter()
    for _ in iterator:
        pass
    return (time.perf_counter() - began) / images


def ours(source: Any, ops: str, views: dict[str, str], batch: int, count: int) -> float:
    """Seconds of an image of a run's batches."""
    from robust_jax.data import pipeline

    elements = pipeline.Elements(source, ops, views, seed=0)
    run = {"batch_size": batch, "start_step": 0, "num_steps": 1 + count}
    return seconds_of(pipeline.train_batches(elements, **run), batch * count)


def plain(directory: Path, size: int, augment: str, batch: int, count: int) -> float:
    """Seconds of an image of batches as one writes them with tf.data."""
    import tensorflow as tf

    from robust_jax.data import registry

    entry, sides = models.entry(SIZES[size][0]), SIZES[size][1]
    shorter, pad = entry.shorter_side(size), size // 8
    # Known beforehand: every file has the same sides.
    resized = tuple(round(side * shorter / min(sides)) for side in sides)
    augmented = registry.build(augment)

    def example(file: Any, label: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(file), channels=3)
        if resized != sides:
            image = tf.image.resize(image, resized, entry.interpolation, antialias=True)
            image = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
        image = tf.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        image = tf.image.random_crop(image, (size, size, 3))
        image = tf.image.random_flip_left_right(image)
        if not augment:
            return image, label
        seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        return image, augmented({"image": image}, seed)["image"], label

    files = sorted(directory.glob("train/*/*.jpg"))
    labels = [int(file.parent.name) for file in files]
    data = tf.data.Dataset.from_tensor_slices(([str(file) for file in files], labels))
    data = data.shuffle(len(files)).repeat().map(example, tf.data.AUTOTUNE)
    batches = data.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE).take(1 + count)
    return seconds_of(batches.as_numpy_iterator(), batch * count)


def ways(directory: Path, size: int, batch: int, count: int) -> dict[tuple[str, int], Timed]:
    """Returns (way, size) -> what measures it once."""
    from robust_jax.data import sources

    data = base.get_config().data
    entry = models.entry(SIZES[size][0])
    ops = networks.fill_in(data.train_ops, entry, size)
    images = directory / str(size)
    write_images(images, SIZES[size][1])
    data.source, data.dir = "folder", str(images)
    source = sources.load(data, "train")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (FILES, size, size, 3), np.uint8)
    held = sources.from_arrays(pixels, np.arange(FILES) % 2)
    cropped = f"random_crop({size}, pad={size // 8})|flip_lr"
    pair = {"clean": "", "aug": AUGMENT[size]}
    found = {
        "ours, clean": partial(ours, source, ops, {"clean": ""}),
        "plain, clean": partial(plain, images, size, ""),
        "ours, + augmix": partial(ours, source, ops, pair),
        "plain, + augmix": partial(plain, images, size, AUGMENT[size]),
        "ours, in memory": partial(ours, held, cropped, {"clean": ""}),
    }
    return {(way, size): partial(run, batch, count) for way, run in found.items()}


def split_step(model: str, batch: int) -> Timed:
    """Returns what measures the three-head step on images once."""
    import jax
    from steps import variants

    step, arguments = variants(model, batch, 1000)["split"]
    program: Any = jax.jit(step).lower(*arguments).compile()

    def run() -> float:
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        return (time.perf_counter() - began) / (batch // 2)

    return run


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    args = measuring.arguments(__doc__, model="vit_s16", batch=16, rounds=5, quick=False)
    if args.quick:
        args.rounds = 1
    side = models.entry(args.model).input_size
    if side not in SIZES:
        raise ValueError(
            f"the pipeline is timed at {list(SIZES)} pixels; got {args.model!r}, which wants "
            f"{side}; use another model"
        )
    timed: dict[tuple[str, int], Timed] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size, (*_, batch, count) in (QUICK if args.quick else SIZES).items():
            timed |= ways(Path(scratch), size, batch, count)
        timed["split step", side] = split_step(args.model, args.batch)
        took: dict[tuple[str, int], list[float]] = {key: [] for key in timed}
        for round_ in range(args.rounds + 1):
            for key, run in timed.items():
                seconds = run()
                if round_:  # the first one warms up
                    took[key].append(seconds)
    rate = {key: 1 / float(np.median(seconds)) for key, seconds in took.items()}
    rows = [
        {"way": way, "size": size, "images_per_second": value}
        for (way, size), value in rate.items()
    ]
    ratios = {}
    for size in SIZES:
        for name, way in (("pipeline", "clean"), ("pipeline_augmix", "+ augmix")):
            quotient = rate[f"ours, {way}", size] / rate[f"plain, {way}", size]
            ratios[f"{name}_over_plain_tfdata_{size}"] = quotient
    ratios["pipeline_over_split_step"] = rate["ours, + augmix", side] / rate["split step", side]
    pairs = args.batch // 2
    said = f"images a second; the split step: {args.model}, batch of {pairs} pairs of views"
    measuring.finish(said, rows, ratios, args.json)


if __name__ == "__main__":
    main()
