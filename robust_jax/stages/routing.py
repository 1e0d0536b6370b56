"""How the methods that route between heads are set up and calibrated; needs no TensorFlow."""

import dataclasses
from collections.abc import Callable, Container, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from robust_jax import writers
from robust_jax.method import calibration as calibration_lib
from robust_jax.method import microbatches
from robust_jax.method.calibration import Calibration
from robust_jax.method.selection import HEADS, SelectionConfig, mc_logits
from robust_jax.stages.networks import Networks

# Examples that a device takes through the heads at once: 8 MB of logits at a thousand classes. On
# two CPU cores 256 take 1.5 times as long for each, 16 take 0.6 times.
PART = 64

# Methods that route: the trained student that they use, and what differs in its selection.
ROUTED: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": ("ours", {}),
    "ours_no_kd": ("ours_no_kd", {}),
    "ours_no_kld": ("ours", {"score": "uncertainty"}),
    "ours_no_umc": ("ours", {"score": "kl"}),
    "ours_max_logit": ("ours", {"score": "max_logit"}),
    "ours_product": ("ours", {"score": "product"}),
    "ours_gate": ("ours", {"score": "gate", "candidates": "clean_unclean"}),
}


def selection_config(networks: Networks, method: str) -> SelectionConfig:
    """Returns the selection options of a routed method."""
    section = networks.config.selection
    base = SelectionConfig(
        uncertainty=section.uncertainty,
        score=section.score,
        direction=section.direction,
        candidates=section.candidates,
        keep_clean=section.keep_clean,
    )
    return dataclasses.replace(base, **ROUTED[method][1])


def routed_methods(networks: Networks, students: Container[str]) -> list[str]:
    """Returns the methods that choose between the heads of some students.

    An ablation that would choose as `ours` does is left out.
    """
    ours = selection_config(networks, "ours")
    return [
        method
        for method, (student, changes) in ROUTED.items()
        if student in students and not (changes and selection_config(networks, method) == ours)
    ]


def is_calibrated(networks: Networks, method: str) -> bool:
    """Tells whether a method answers with a calibration; the gate always does, it is one."""
    gate = selection_config(networks, method).score == "gate"
    return networks.config.selection.calibrate or gate


def read_calibration(path: epath.PathLike) -> Calibration:
    """Reads the calibration of a run.

    Raises:
      ValueError: when the file is damaged.
    """
    try:
        return Calibration.from_json(epath.Path(path).read_text())
    except (ValueError, OSError) as error:
        raise ValueError(
            f"cannot read this calibration ({error}); got {path}; run the stage evaluate again "
            "with --rerun=evaluate"
        ) from error


def fixed_key(networks: Networks) -> jax.Array:
    """Returns the PRNG key of a run's dropout samples, calibrated and evaluated with it."""
    return jax.random.key(networks.config.seed)


def sampler(networks: Networks) -> Callable[..., jax.Array]:
    """Returns (frozen, tuned, z) -> MC logits f32[h, s, b, k], from the run's fixed key.

    A key behind z takes the place of the fixed one.
    """
    student, count = networks.student(HEADS), networks.config.selection.num_samples
    fixed = fixed_key(networks)

    def sample(frozen: Any, tuned: Any, z: jax.Array, key: jax.Array = fixed) -> jax.Array:
        def tail(z: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
            return student.tail(frozen, tuned, z, key, shared_masks=True)

        return mc_logits(tail, z, key, count)

    return sample


def observer(networks: Networks) -> Callable[..., dict[str, jax.Array]]:
    """Returns (frozen, images) -> what the choice of a head is made from, computed once an image.

    z [b, ...], the boundary activation, and statistics f32[b, f], see `Student.observe`.
    """
    student, stages = networks.student(HEADS), networks.config.selection.gate_stages

    def observe(frozen: Any, images: jax.Array) -> dict[str, jax.Array]:
        z, statistics = student.observe(frozen, images, stages)
        return {"z": z, "statistics": statistics}

    return observe


def in_parts(fn: Callable[[Any], Any], rows: Any, devices: int) -> Any:
    """Applies a function to `PART` rows a device at a time: MC logits of a big batch are too many.

    Args:
      fn: a tree of [r, ...] -> a tree of [r, ...], each row for itself.
      rows: a tree of [b, ...]; over several devices split evenly along b. They stay where they lie.
      devices: how many they lie on; a divisor of b.

    Returns:
      What `fn` gives for all rows.
    """
    b = len(jax.tree.leaves(rows)[0])
    own = b // devices
    parts = max(1, -(-own // PART))
    if parts == 1:
        return fn(rows)
    missing = -own % parts

    def fill(x: jax.Array) -> jax.Array:
        of_device = x.reshape(devices, own, *x.shape[1:])
        widths = [(0, 0), (0, missing), *[(0, 0)] * (x.ndim - 1)]
        return jnp.pad(of_device, widths, "edge").reshape(-1, *x.shape[1:])

    def unfill(x: jax.Array) -> jax.Array:
        of_device = x.reshape(devices, own + missing, *x.shape[1:])
        return of_device[:, :own].reshape(b, *x.shape[1:])

    found = jax.lax.map(fn, microbatches.split(jax.tree.map(fill, rows), parts))
    return jax.tree.map(unfill, microbatches.join(found))


def calibrate(
    networks: Networks,
    methods: Iterable[str],
    batches: Iterable[tuple[dict[str, np.ndarray], int]],
    arrays: dict[str, Any],
    place: Callable[[np.ndarray], jax.Array],
) -> dict[str, Calibration]:
    """Fits temperatures, thresholds and the gate on held-out images, and stores them.

    Args:
      methods: routed methods.
      batches: ("clean" and "aug" uint8[b, h, w, 3] and "label" int[b]; how many rows count).
      arrays: "student" and, under "tuned", the students of the methods.
      place: puts images on the devices.
    """
    methods = [method for method in methods if is_calibrated(networks, method)]
    students = sorted({ROUTED[method][0] for method in methods})
    observe, sample = observer(networks), sampler(networks)

    @jax.jit
    def outputs(arrays: Any, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        seen = observe(arrays["student"], images)
        said = {n: sample(arrays["student"], arrays["tuned"][n], seen["z"]) for n in students}
        return seen["statistics"], said

    labels, found = [], {"clean": [], "aug": []}  # type: ignore[var-annotated]
    for batch, count in batches:
        labels.append(batch["label"][:count])
        for view, parts in found.items():
            statistics, logits = jax.device_get(outputs(arrays, place(batch[view])))
            counted = {name: v[:, :, :count] for name, v in logits.items()}
            parts.append((statistics[:count], counted))
    label = np.concatenate(labels)
    statistics = {view: np.concatenate([part[0] for part in p]) for view, p in found.items()}

    fitted = {}
    for name in students:
        logits = {
            view: np.concatenate([part[1][name] for part in parts], axis=2)
            for view, parts in found.items()
        }
        temperatures = calibration_lib.fit_temperatures(
            np.concatenate([logits["clean"], logits["aug"]], axis=2), np.concatenate([label] * 2)
        )
        for method in (m for m in methods if ROUTED[m][0] == name):
            fitted[method] = calibration_lib.calibrate(
                logits["clean"],
                logits["aug"],
                temperatures,
                selection_config(networks, method),
                statistics["clean"],
                statistics["aug"],
                networks.config.seed,
            )
            writers.write_text(calibration_path(networks, method), fitted[method].to_json())
    return fitted


def calibration_path(networks: Networks, method: str) -> Any:
    """Returns where the calibration of a method is stored."""
    return networks.workdir / "evaluate" / "calibration" / f"{method}.json"
