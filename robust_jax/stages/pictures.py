"""What the report draws beside numbers: the spread of the routing score, and some images."""

from collections.abc import Mapping

import numpy as np

from robust_jax import corruptions, writers
from robust_jax.evals.classification import EvalSet, Outputs
from robust_jax.method.calibration import Calibration
from robust_jax.stages.context import Context

NUM_EXAMPLES = 12


def save(
    context: Context,
    images: EvalSet,
    found: Mapping[str, Outputs],
    calibration: Calibration | None,
) -> None:
    """Writes evaluate/routing.npz and evaluate/examples.npz.

    Args:
      images: what was evaluated.
      found: "clean" or "CORRUPTION-SEVERITY" -> answers with a row for each image.
      calibration: of `ours`, or None.
    """
    shifted = [outputs["ours/routing_score"] for name, outputs in found.items() if name != "clean"]
    writers.write_arrays(
        context.workdir / "evaluate" / "routing.npz",
        {
            "clean": found["clean"]["ours/routing_score"],
            "shifted": np.concatenate(shifted) if shifted else np.empty(0, np.float32),
            "threshold": np.asarray(calibration.threshold if calibration else 0.0),
        },
    )
    seed, names = context.config.seed, list(found)
    picked = np.random.default_rng(seed).permutation(len(images.labels))[:NUM_EXAMPLES]
    chosen = EvalSet(images.records.subset(picked), images.ops)
    pixels = np.concatenate([batch for batch, _ in chosen.batches(NUM_EXAMPLES)])
    # Steps of six over sets of five severities: every corruption in turn, at changing severities.
    shown = [names[position * 6 % len(names)] for position in range(len(picked))]
    captions = []
    for position, name in enumerate(shown):
        kind, _, severity = name.partition("-")
        words = kind.replace("_", " ")
        captions.append(f"{words}, severity {severity}" if severity else words)
        if severity:
            one = slice(position, position + 1)
            pixels[one] = corruptions.corrupt(
                pixels[one], kind, int(severity), ids=picked[one], seed=seed
            )
    writers.write_arrays(
        context.workdir / "evaluate" / "examples.npz",
        {
            "images": pixels,
            "labels": images.labels[picked],
            "original": _rows(found, shown, picked, "original/label"),
            "ours": _rows(found, shown, picked, "ours/label"),
            "head": _rows(found, shown, picked, "ours/head"),
            "caption": np.asarray(captions),
        },
    )


def _rows(
    found: Mapping[str, Outputs], shown: list[str], picked: np.ndarray, key: str
) -> np.ndarray:
    return np.asarray([found[n][key][i] for n, i in zip(shown, picked, strict=True)])
