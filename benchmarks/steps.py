"""What one training step costs: of all parameters, of a masked tree, of the tail, on a cache.

All run in one process, interleaved, on the same weights; the ratios are what to read.

- full: full fine-tuning, every parameter.
- masked: the same heads and tail as below, but the gradients of all parameters, of which the
  optimizer then sets the frozen ones to zero. As all steps here do, it reports the norm of its
  gradients; where nothing reads the frozen ones, the compiler leaves them out, and only the state
  is larger than that of the split step.
- split: the three-head step on images; the tree was split before the gradient.
- cached: the same step on boundary activations.

`temporary_mib` is what a step needs beside its arguments; `state_mib` is the parameters that it
updates and the optimizer's state.
"""

from typing import Any

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import optax
import students

from robust_jax.method import distillation, losses, supervised
from robust_jax.method.student import Student
from robust_jax.state import TrainState

HEAD = ("combined",)
REPEATS = {"cached": 50}


def masked_step(student: Student, optimizer: optax.GradientTransformation) -> Any:
    """The three-head step with the gradients of {"frozen": original's, "tuned": tuned}."""

    def step(state: TrainState, others: Any, batch: dict[str, jax.Array]) -> Any:
        images = jnp.stack([batch["clean"], batch["aug"]], 1)
        images = images.reshape(-1, *images.shape[2:])
        key = jax.random.fold_in(jax.random.key(0), state.step)

        def loss(params: Any) -> Any:
            variables = {**others, "params": params["frozen"]}
            z = student.trunk(variables, images)
            logits = student.tail(variables, params["tuned"], z, key)
            clean, aug = ({k: v[i::2] for k, v in logits.items()} for i in range(2))
            return losses.three_head_loss(clean, aug, batch["label"], None, None, students.KD)

        grads, metrics = jax.grad(loss, has_aux=True)(state.params)
        return state.update(grads, optimizer, metrics)

    return step


def variants(name: str, batch: int, num_classes: int) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Returns name -> (step, arguments), the state first; every step sees `batch` images."""
    student, variables = students.build(name, num_classes, HEAD)
    model = student.model
    optimizer = optax.adam(1e-3)
    rng = np.random.default_rng(0)
    # The split step takes pairs of views: half a batch of pairs is a batch of images.
    shape = (batch // 2, model.image_size, model.image_size, 3)
    views = {view: jnp.asarray(rng.integers(0, 256, shape, np.uint8)) for view in ("clean", "aug")}
    label = jnp.asarray(rng.integers(0, num_classes, batch // 2, np.int32))
    others = {kind: tree for kind, tree in variables.items() if kind != "params"}
    params, frozen = variables["params"], {"student": variables}
    tuned = jax.jit(student.init)(jax.random.key(1), variables)
    everything = {"frozen": params, "tuned": tuned}
    masks = optax.multi_transform(
        {"frozen": optax.set_to_zero(), "tuned": optimizer}, {"frozen": "frozen", "tuned": "tuned"}
    )
    images = {
        "image": jnp.concatenate([views["clean"], views["aug"]]),
        "label": jnp.concatenate([label, label]),
    }
    known = jax.jit(lambda views: distillation.features(student, frozen, views, None))(views)
    split = distillation.make_step(student, optimizer, students.KD, seed=0, teacher=None)
    state = TrainState.create(tuned, optimizer)
    return {
        "full": (
            supervised.make_step(model, student.entry, optimizer),
            (TrainState.create(params, optimizer, others), {}, images),
        ),
        "masked": (
            masked_step(student, masks),
            (TrainState.create(everything, masks), others, {**views, "label": label}),
        ),
        "split": (split, (state, frozen, {**views, "label": label})),
        "cached": (split, (state, frozen, {**known, "label": label})),
    }


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    args = measuring.arguments(__doc__, model="vit_s16", batch=16, rounds=5)
    programs, rows = {}, {}
    for name, (step, arguments) in variants(args.model, args.batch, 1000).items():
        program: Any = jax.jit(step).lower(*arguments).compile()
        updated = (arguments[0].params, arguments[0].opt_state)
        programs[name] = lambda program=program, arguments=arguments: program(*arguments)
        rows[name] = {
            "step": name,
            "ms": 0.0,
            "gflop": program.cost_analysis()["flops"] / 1e9,
            "temporary_mib": program.memory_analysis().temp_size_in_bytes / 2**20,
            "state_mib": sum(leaf.nbytes for leaf in jax.tree.leaves(updated)) / 2**20,
        }
    for name, seconds in measuring.interleaved(programs, args.rounds, REPEATS).items():
        rows[name]["ms"] = 1e3 * seconds
    ratios = {
        f"{one}_over_{other}": rows[one]["ms"] / rows[other]["ms"]
        for one, other in (
            ("split", "full"),
            ("cached", "full"),
            ("masked", "full"),
            ("split", "masked"),
        )
    }
    memory = {name: row["temporary_mib"] for name, row in rows.items()}
    ratios["split_over_full_memory"] = memory["split"] / memory["full"]
    measuring.finish(f"{args.model}, batch {args.batch}", list(rows.values()), ratios, args.json)


if __name__ == "__main__":
    main()
