"""What choosing the head costs: the original model against the trunk and ten dropout samples.

`selection` is what a robust classifier computes: the trunk once, then the samples of the three
heads through the tail, and the choice. `heads` is that without the trunk. `dropout x 10` is the
same answer without the split: the whole network for every sample. All of them are jitted and run
in one process, interleaved, on the same weights; the ratios are what to read.
`python benchmarks/selection.py [--json FILE] [--model vit_s16] [--batch 16] [--rounds 5]
[--seconds 0.5]`, the last being how long a measurement of a fast program takes, repeated.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import students

from robust_jax.method.selection import HEADS, SelectionConfig, mc_logits, predict
from robust_jax.method.student import Student
from robust_jax.models import normalise

CLASSES, SAMPLES = 1000, 10
KEY = 0  # of the masks; a run uses its seed


def new_student(name: str) -> tuple[Student, Any, Any]:
    """Returns a student of a model, its frozen and its tuned arrays."""
    student, frozen = students.build(name, CLASSES)
    return student, frozen, student.init(jax.random.key(1), frozen)


def programs(
    student: Student, frozen: Any, tuned: Any, images: jax.Array
) -> dict[str, list[tuple[int, Any, tuple[Any, ...]]]]:
    """Returns name -> the compiled programs of this row: calls, program, arguments."""
    keys = jax.random.split(jax.random.key(KEY), SAMPLES)

    def forward(frozen: Any, images: jax.Array) -> Any:
        return student.model.apply(frozen, normalise(images, student.entry))

    def heads(frozen: Any, tuned: Any, z: jax.Array) -> dict[str, jax.Array]:
        def tail(z: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
            return student.tail(frozen, tuned, z, key, shared_masks=True)

        logits = mc_logits(tail, z, jax.random.key(KEY), SAMPLES)
        return predict(logits, SelectionConfig())

    def selection(frozen: Any, tuned: Any, images: jax.Array) -> dict[str, jax.Array]:
        return heads(frozen, tuned, student.trunk(frozen, images))

    def sample(frozen: Any, tuned: Any, images: jax.Array, key: jax.Array) -> jax.Array:
        z = student.trunk(frozen, images)
        logits = student.tail(frozen, tuned, z, key, shared_masks=True)
        return jnp.stack([logits[head] for head in HEADS])

    def choice(samples: list[jax.Array]) -> dict[str, jax.Array]:
        return predict(jnp.stack(samples, axis=1), SelectionConfig())

    arguments = (frozen, tuned, images)
    z = jax.jit(student.trunk)(frozen, images)
    drawn = [jnp.zeros((len(HEADS), len(images), CLASSES))] * SAMPLES
    rows: dict[str, list[tuple[int, Callable[..., Any], tuple[Any, ...]]]] = {
        "forward": [(1, forward, (frozen, images))],
        "selection": [(1, selection, arguments)],
        "heads": [(1, heads, (frozen, tuned, z))],
        "dropout x 10": [(SAMPLES, sample, (*arguments, keys[0])), (1, choice, (drawn,))],
    }
    return {
        name: [(calls, jax.jit(fn).lower(*args).compile(), args) for calls, fn, args in parts]
        for name, parts in rows.items()
    }


def call(parts: list[tuple[int, Any, tuple[Any, ...]]]) -> Any:
    """Runs the programs of a row once."""
    return [program(*args) for calls, program, args in parts for _ in range(calls)]


def measure(
    student: Student, frozen: Any, tuned: Any, batch: int, rounds: int, least: float
) -> tuple[list[measuring.Row], dict[str, float]]:
    """Returns the rows of one batch size, and its ratios."""
    size = student.model.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    compiled = programs(student, frozen, tuned, jnp.asarray(pixels))
    runs = {name: partial(call, parts) for name, parts in compiled.items()}
    once = measuring.interleaved(runs, 1)
    repeats = {name: max(1, round(least / seconds)) for name, seconds in once.items()}
    # What is compared is measured alike.
    repeats["selection"] = repeats["forward"]
    seconds = measuring.interleaved(runs, rounds, repeats)
    rows = []
    for name, parts in compiled.items():
        flops = sum(calls * program.cost_analysis()["flops"] for calls, program, _ in parts)
        memory = [program.memory_analysis().temp_size_in_bytes for _, program, _ in parts]
        rows.append(
            {
                "program": name,
                "batch": batch,
                "ms": 1e3 * seconds[name],
                "gflop": flops / 1e9,
                "temporary_mib": max(memory) / 2**20,
            }
        )
    ratios = {
        f"selection_over_forward_b{batch}": seconds["selection"] / seconds["forward"],
        f"selection_over_ten_forwards_b{batch}": seconds["selection"] / seconds["dropout x 10"],
    }
    return rows, ratios


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    args = measuring.arguments(__doc__, model="vit_s16", batch=16, rounds=5, seconds=0.5)
    student, frozen, tuned = new_student(args.model)
    rows: list[measuring.Row] = []
    ratios: dict[str, float] = {}
    for batch in sorted({args.batch, 1}, reverse=True):
        found, compared = measure(student, frozen, tuned, batch, args.rounds, args.seconds)
        rows += found
        ratios |= compared
    title = f"{args.model}, {CLASSES} classes, {SAMPLES} samples of {len(HEADS)} heads"
    measuring.finish(title, rows, ratios, args.json)


if __name__ == "__main__":
    main()
