"""Transfer to another dataset: a linear probe on features, or fine-tuning of everything."""

import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh

from robust_jax import config as config_lib
from robust_jax import models, optim, writers
from robust_jax import train as loop
from robust_jax.data.elements import Elements
from robust_jax.data.sources import Source
from robust_jax.evals import classification
from robust_jax.evals.metrics import Estimate
from robust_jax.method import probe, supervised
from robust_jax.method.adapted import Adapted
from robust_jax.models import ModelEntry
from robust_jax.state import TrainState

HELD_OUT = 0.2  # of the training images of each class, to choose C
# Powers of ten of C: first every second one, then ever closer around the best.
FIRST_POWERS, GAPS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0), (1.0, 0.5, 0.25, 0.125)


def linear_probe(
    train: tuple[np.ndarray, np.ndarray],
    test: np.ndarray,
    *,
    seed: int,
    solver: str,
    mesh: Mesh,
    name: str,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Fits a linear classifier to fixed features, and asks it.

    Features are divided by one standard deviation, that of all their numbers (LP-FT, Kumar et al.
    2022), which leaves their relative sizes alone. A fifth of the training images
    chooses C, first among powers of 100 and then ever closer (Radford et al. 2021, appendix A.3);
    of equally good ones it is the smallest. The classifier is then fitted to all of them.

    Args:
      train: features f32[n, d] and labels int[n].
      test: features f32[m, d]; nothing is chosen by them.
      seed: of the choice of what is held out.
      solver: "auto", "sklearn" or "jax"; see `probe`.
      mesh: the devices, for "jax".
      name: of the progress line.

    Returns:
      The classes int[m] that it answers; and {"C", "held_out_accuracy", "solver", "converged",
      "seconds"}.
    """
    began = time.perf_counter()
    features, labels = train
    present, targets = np.unique(labels, return_inverse=True)
    # The free bias makes up for any shift, so each feature is centred: that is far quicker to fit.
    centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.float32(max(features.std(dtype=np.float64), 1e-30))
    scaled, asked = ((z - centre) / spread for z in (features, test))
    kind = probe.choose_solver(solver, scaled)
    more = {"mesh": mesh} if kind == "jax" else {}

    def begin(chosen: np.ndarray) -> Callable[[float], probe.Fit]:
        fitted = probe.SOLVERS[kind](scaled[chosen], targets[chosen], len(present), **more)
        return lambda c: fitted.fit(1 / (c * int(chosen.sum())))

    held = held_out(labels, seed)
    choose = begin(~held)
    right: dict[float, float] = {}
    with writers.Progress(name, len(FIRST_POWERS) + 2 * len(GAPS) + 1, unit="fit") as progress:

        def try_powers(powers: tuple[float, ...]) -> float:
            for power in powers:
                if power not in right and FIRST_POWERS[0] <= power <= FIRST_POWERS[-1]:
                    answers = choose(10**power).answers(scaled[held])
                    right[power] = float(np.mean(answers == targets[held]))
                progress.advance(1, held_out=max(right.values()))
            return max(right, key=lambda power: (right[power], -power))

        best = try_powers(FIRST_POWERS)
        for gap in GAPS:
            best = try_powers((best - gap, best + gap))
        final = begin(np.full(len(labels), True))(10**best)
        progress.advance(1)
    if not final.converged:
        print(f"{name}: C = {10**best:.3g}, short of the minimum after {probe.MAX_STEPS} steps")
    facts = {
        "C": 10**best,
        "held_out_accuracy": right[best],
        "solver": kind,
        "converged": final.converged,
        "seconds": time.perf_counter() - began,
    }
    return present[final.answers(asked)], facts


def held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Marks a fifth of the examples of each class, bool[n]; of one that has a single one, none.

    Raises:
      ValueError: when there is nothing to mark.
    """
    rng, marked = np.random.default_rng((seed, 2)), np.zeros(len(labels), bool)
    for one in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == one))
        if len(members) > 1:
            marked[members[: max(1, round(HELD_OUT * len(members)))]] = True
    if not marked.any():
        raise ValueError(
            f"too few training images to choose C; got {len(labels)}, one of each class; give at "
            "least two of some class"
        )
    return marked


def full_finetune(
    network: Adapted,
    entry: ModelEntry,
    variables: dict[str, Any],
    source: Source,
    test: classification.EvalSet,
    *,
    train_ops: str,
    section: ml_collections.ConfigDict,
    intervals: ml_collections.ConfigDict,
    seed: int,
    workdir: epath.PathLike,
    path: str,
    mesh: Mesh,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Trains all of a network on another dataset, and asks it; an interrupted one continues.

    Args:
      network: of that dataset's classes.
      entry: its preprocessing.
      variables: to begin with; the classifier is replaced by one that is zero.
      source: the training images.
      test: the images to answer; nothing is chosen by them.
      train_ops: make the training images, of one size.
      section: durations and optimizer, as `config.pretrain`.
      intervals: of logs and checkpoints, as `config.train`.
      seed: of the order and the augmentation.
      workdir: of the checkpoints.
      path: of the checkpoints, below the workdir.
      mesh: the devices.

    Returns:
      The classes int[m] that the trained network answers; and {"steps", "learning_rate",
      "seconds"}.
    """
    from robust_jax.data.pipeline import train_batches

    elements = Elements(source, train_ops, {"image": ""}, seed=seed)
    total = config_lib.duration(section, "total", examples=len(elements), label="full_finetune")
    optimizer = optim.make(section, total)
    width, count = network.model.feature_width, len(source.class_names)
    head = {"kernel": np.zeros((width, count), np.float32), "bias": np.zeros(count, np.float32)}
    params = {**variables["params"], "head": head}
    others = {name: values for name, values in variables.items() if name != "params"}
    state, times = loop.train(
        supervised.make_step(network, entry, optimizer),
        TrainState.create(params, optimizer, others),
        {},
        lambda start, stop: train_batches(
            elements, batch_size=section.batch_size, start_step=start, num_steps=stop
        ),
        name=path,
        total_steps=total,
        batch_size=section.batch_size,
        workdir=workdir,
        mesh=mesh,
        log_every_steps=intervals.log_every_steps,
        checkpoint_every_steps=intervals.checkpoint_every_steps,
        learning_rate=optim.schedule(section, total),
    )

    @jax.jit
    def answer(variables: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        logits = network.apply(variables, models.normalise(batch["image"], entry))
        return {"label": logits.argmax(-1)}

    trained = {"params": state.params, **state.model_state}
    outputs = classification.evaluate(
        answer, trained, test, batch_size=section.batch_size, mesh=mesh
    )
    facts = {
        "steps": total,
        "learning_rate": section.learning_rate,
        "seconds": times["seconds"] + times["compile_seconds"],
    }
    return outputs["label"], facts


def mean_per_class(answers: np.ndarray, labels: np.ndarray) -> Estimate:
    """The mean over classes of the fraction answered right, which Flowers-102 and others report.

    The interval is the normal one of a stratified sample. The variance within a class is that of
    (s + 1) / (n + 2), so that few answers, all of them right, do not count as certain.

    Args:
      answers, labels: int[n].
    """
    right = answers == labels
    _, stratum, counts = np.unique(labels, return_inverse=True, return_counts=True)
    hits = np.bincount(stratum, weights=right)
    value = float(np.mean(hits / counts))
    smooth = (hits + 1) / (counts + 2)
    half = 1.959964 * np.sqrt(np.sum(smooth * (1 - smooth) / (counts + 2))) / len(counts)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), len(labels))
