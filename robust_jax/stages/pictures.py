"""What the report draws beside numbers: the spread of the routing score, and some images."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from robust_jax import writers
from robust_jax.evals import corruption
from robust_jax.evals.classification import EvalSet, Outputs
from robust_jax.evals.sets import ImageSet
from robust_jax.method.calibration import Calibration

NUM_EXAMPLES = 12


def save(
    directory: epath.Path,
    answered: Sequence[tuple[ImageSet, Outputs]],
    calibration: Calibration | None,
    seed: int,
) -> None:
    """Writes examples.npz and, where there are corrupted images, routing.npz.

    Args:
      directory: where to write.
      answered: the clean images and then any corrupted versions of them, with their answers.
      calibration: of `ours`, or None.
      seed: picks the examples.
    """
    clean, *shifted = (outputs["ours/routing_score"] for _, outputs in answered)
    if shifted:
        threshold = np.asarray(calibration.threshold if calibration else 0.0)
        scores = {"clean": clean, "shifted": np.concatenate(shifted), "threshold": threshold}
        writers.write_arrays(directory / "routing.npz", scores)
    images = answered[0][0].images
    picked = np.random.default_rng(seed).permutation(len(images.labels))[:NUM_EXAMPLES]
    chosen = EvalSet(images.records.subset(picked), images.ops)
    pixels = np.concatenate([batch for batch, _ in chosen.batches(NUM_EXAMPLES)])
    # Steps of six over sets of five severities: every corruption in turn, at changing severities.
    shown = [answered[position * 6 % len(answered)] for position in range(len(picked))]
    for position, (one, _) in enumerate(shown):
        if one.corrupt:
            row = slice(position, position + 1)
            pixels[row] = corruption.transform(*one.corrupt)(pixels[row], picked[row])
    said = [(outputs, number) for (_, outputs), number in zip(shown, picked, strict=True)]
    writers.write_arrays(
        directory / "examples.npz",
        {
            "images": pixels,
            "labels": images.labels[picked],
            "original": np.asarray([outputs["original/label"][i] for outputs, i in said]),
            "ours": np.asarray([outputs["ours/label"][i] for outputs, i in said]),
            "head": np.asarray([outputs["ours/head"][i] for outputs, i in said]),
            "caption": np.asarray([_caption(one) for one, _ in shown]),
        },
    )


def _caption(one: ImageSet) -> str:
    if not one.corrupt:
        return "clean"
    name, severity, *_ = one.corrupt
    return f"{name.replace('_', ' ')}, severity {severity}"
