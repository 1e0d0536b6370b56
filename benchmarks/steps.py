"""What one training step costs: full fine-tuning, the split tail on images, the tail on a cache.

All three run in one process, interleaved, on the same weights; the ratios are what to read.
`python benchmarks/steps.py [--json FILE] [--model vit_s16] [--batch 16] [--rounds 5]`
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robust_jax import models
from robust_jax.method import budget, distillation
from robust_jax.method.student import Student
from robust_jax.models import normalise
from robust_jax.state import TrainState

HEAD = ("combined",)
KD = {
    "weight": 0.0,
    "temperature": 1.0,
    "weighting": "none",
    "heads": HEAD,
    "clean_anchor": 0.0,
}


def variants(name: str, batch: int, num_classes: int) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Returns name -> (jitted step, arguments); every step sees `batch` images."""
    model, entry = models.build(name, num_classes), models.entry(name)
    variables = model.init(jax.random.key(0), model.example_input())
    size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    plan = budget.resolve(
        model,
        variables["params"],
        budget.target("auto", name, size),
        num_classes=num_classes,
        heads_share=0.2,
        share="tail",
    )
    student = Student(model, entry, plan, num_classes, HEAD, "tail", 0.25)
    optimizer = optax.adam(1e-3)
    rng = np.random.default_rng(0)
    # The split step takes pairs of views: half a batch of pairs is a batch of images.
    shape = (batch // 2, model.image_size, model.image_size, 3)
    views = {view: jnp.asarray(rng.integers(0, 256, shape, np.uint8)) for view in ("clean", "aug")}
    labels = jnp.asarray(rng.integers(0, num_classes, batch // 2, np.int32))
    frozen = {"student": variables}

    @jax.jit
    def full(params: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            logits: Any = model.apply({**variables, "params": params}, normalise(images, entry))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(distillation.make_step(student, optimizer, KD, seed=0, teacher=None))
    state = TrainState.create(student.init(jax.random.key(1), variables), optimizer)
    cached = jax.jit(lambda views: distillation.features(student, frozen, views, None))(views)
    images = jnp.concatenate(list(views.values()))
    both = jnp.concatenate([labels, labels])
    params = variables["params"]
    return {
        "full": (full, (params, optimizer.init(params), images, both)),
        "split": (step, (state, frozen, {**views, "label": labels})),
        "cached": (step, (state, frozen, {**cached, "label": labels})),
    }


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="vit_s16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rows, compiled = [], {}
    for name, (step, arguments) in variants(args.model, args.batch, 1000).items():
        program = step.lower(*arguments).compile()
        cost, memory = program.cost_analysis(), program.memory_analysis()
        compiled[name] = (program, arguments)
        rows.append(
            {
                "step": name,
                "gflop": cost["flops"] / 1e9,
                "temporary_mib": memory.temp_size_in_bytes / 2**20,
                "seconds": [],
            }
        )
    for round_ in range(args.rounds + 1):
        for row, (program, arguments) in zip(rows, compiled.values(), strict=True):
            repeats = 50 if row["step"] == "cached" else 1
            began = time.perf_counter()
            for _ in range(repeats):
                out = program(*arguments)
            jax.block_until_ready(out)
            if round_:  # the first round warms up
                row["seconds"].append((time.perf_counter() - began) / repeats)
    for row in rows:
        row["ms"] = 1e3 * float(np.median(row.pop("seconds")))
    full, split, cached = rows
    ratios = {
        "split_over_full": split["ms"] / full["ms"],
        "cached_over_full": cached["ms"] / full["ms"],
        "split_over_full_memory": split["temporary_mib"] / full["temporary_mib"],
    }
    print(f"{args.model}, batch {args.batch}, {jax.devices()[0].device_kind}")
    for row in rows:
        numbers = f"{row['ms']:>10.2f} ms {row['gflop']:>9.2f} GFLOP"
        print(f"{row['step']:<8} {numbers} {row['temporary_mib']:>9.1f} MiB")
    for name, value in ratios.items():
        print(f"{name}: {value:.4f}")
    if args.json:
        machine = {"device": jax.devices()[0].device_kind, "platform": platform.platform()}
        args.json.write_text(json.dumps({"machine": machine, "rows": rows, "ratios": ratios}))


if __name__ == "__main__":
    main()
