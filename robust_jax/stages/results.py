"""From per-image answers to rows of results.jsonl, and from rows to summary.json."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from etils import epath

from robust_jax import writers
from robust_jax.corruptions import EXTRA_CORRUPTIONS
from robust_jax.corruptions.sequences import is_noise
from robust_jax.evals import metrics, robustness
from robust_jax.evals.classification import Outputs
from robust_jax.evals.sets import Measured
from robust_jax.evals.stored_sets import OWN_SETS
from robust_jax.method.selection import HEADS

Row = dict[str, Any]
T = TypeVar("T")


def rows(measured: Iterable[Measured], seed: int) -> list[Row]:
    """Returns one row for each measurement: its method, metric, set, value, interval and n."""
    out: list[Row] = []
    measured = list(measured)
    for one in measured:
        where = {**one.where, "kind": one.kind} if one.kind else one.where
        found = _flips(where, one.outputs) if "perturbation" in where else _answers(one)
        out += [
            {"method": method, "metric": metric, **where, **estimate._asdict(), "seed": seed}
            for method, metric, estimate in found
        ]
    return out + _auroc_rows(measured, seed)


def write(directory: epath.Path, rows: Iterable[Row]) -> None:
    """Writes results.jsonl."""
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    writers.write_text(directory / "results.jsonl", text)


def _answers(one: Measured) -> Iterator[tuple[str, str, metrics.Estimate]]:
    outputs, labels, domain = one.outputs, one.labels, _domain(one)
    for key, values in outputs.items():
        method, _, kind = key.partition("/")
        if kind == "label":
            yield method, "accuracy", metrics.accuracy(values, labels)
        elif kind == "confidence":
            correct = outputs[f"{method}/label"] == labels
            yield method, "ece", metrics.ece(values, correct)
            yield method, "aurc", metrics.aurc(-values, correct)
        elif kind in ("nll", "brier"):
            yield method, kind, metrics.mean(values)
        elif kind == "head" and domain:
            yield method, "f_correct", metrics.f_correct(values, domain)
        elif kind.endswith("_label"):
            head = kind.removesuffix("_label")
            yield method, f"accuracy_{head}_head", metrics.accuracy(values, labels)


def _flips(where: Row, outputs: Outputs) -> Iterator[tuple[str, str, metrics.Estimate]]:
    noise = is_noise(where["perturbation"])
    for key, frames in outputs.items():
        method, _, kind = key.partition("/")
        if kind == "label":
            rates = robustness.flip_rates(list(frames), noise)
            yield method, "flip_probability", metrics.mean(rates)
        elif kind == "top5":
            distances = robustness.top5_distances(list(frames), noise)
            yield method, "top5_distance", metrics.mean(distances)


def _domain(one: Measured) -> str | None:
    """Which head is meant for a set; None where nobody can tell."""
    if one.where["set"] == "clean" or one.kind in _CLEAN_KINDS:
        return "clean"
    shifted = not one.kind or "corruption" in one.where or one.kind in _SHIFTED_KINDS
    return "shift" if shifted else None


def _auroc_rows(measured: list[Measured], seed: int) -> list[Row]:
    """How well the routing score tells each kind of shifted images from the clean ones."""
    clean = next((one for one in measured if one.where["set"] == "clean"), None)
    if clean is None:
        return []
    sets: dict[str, list[Measured]] = {}
    for one in measured:
        if _domain(one) == "shift":
            sets.setdefault(one.where["set"], []).append(one)
    out = []
    for key in (key for key in clean.outputs if key.endswith("/routing_score")):
        negatives = clean.outputs[key]
        for name, ones in sets.items():
            main = _main(ones, lambda one: one.where.get("corruption"))
            shifted = [one.outputs[key] for one in main if key in one.outputs]
            if not shifted:
                continue
            area = metrics.auroc(negatives, np.concatenate(shifted))
            # Corrupted copies of an image are one case, so the copies do not narrow the interval.
            count = max(map(len, shifted))
            low, high = metrics.auroc_interval(area, len(negatives), count)
            where = {"method": key.partition("/")[0], "metric": "routing_auroc", "set": name}
            value = {"value": area, "low": low, "high": high, "n": len(negatives), "seed": seed}
            out.append({**where, **value})
    return out


def _main(found: Iterable[T], corruption: Callable[[T], str | None]) -> list[T]:
    """Leaves out what is of the corruptions for validation, where there is anything else."""
    every = list(found)
    return [one for one in every if corruption(one) not in EXTRA_CORRUPTIONS] or every


# Benchmarks of images as the classifier has learned them, and of others; see `benchmarks`.
_CLEAN_KINDS = ("imagenet_200_a", "imagenet_200_r")
_SHIFTED_KINDS = ("imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r", "objectnet")
# Sets whose corrupted images are those of ImageNet-C, with AlexNet's errors as a measure.
_IMAGENET_C = ("imagenet_c", "imagenet2012_corrupted")
_SEVERE = 3  # of the severities 1 to 5
_CLEAN_METRICS = ("nll", "ece", "brier", "aurc")


def method_summaries(measured: list[Row], *, imagenet: bool = False) -> dict[str, dict[str, Any]]:
    """Returns the entries of summary.json for each method in the rows.

    Args:
      measured: rows of results.jsonl.
      imagenet: whether the run's own sets are ImageNet-C and ImageNet-P: its 1000 classes at the
        size of these benchmarks, so that AlexNet's errors are a measure.
    """
    methods = list(dict.fromkeys(row["method"] for row in measured))
    return {
        method: _method([r for r in measured if r["method"] == method], imagenet)
        for method in methods
    }


def _method(measured: list[Row], imagenet: bool) -> dict[str, Any]:
    own = {name: [r for r in measured if r["set"] == name] for name in OWN_SETS}
    out: dict[str, Any] = {}
    clean = {row["metric"]: row["value"] for row in own["clean"]}
    if "accuracy" in clean:
        out["clean_accuracy"] = clean["accuracy"]
    out |= {f"clean_{metric}": clean[metric] for metric in _CLEAN_METRICS if metric in clean}
    clean_accuracy = clean.get("accuracy")
    out |= _corrupted(own["corruption"], imagenet, clean_accuracy)
    out |= _perturbed(own["perturbation"], imagenet)
    if "f_correct" in clean:
        out["f_correct_clean"] = clean["f_correct"]
    if shifted := _counted(own["corruption"], "f_correct"):
        out["f_correct_shift"] = float(np.mean(shifted))
    strong = [row for row in own["corruption"] if row.get("severity", 0) >= _SEVERE]
    if severe := _counted(strong, "f_correct"):
        out["f_correct_severe"] = float(np.mean(severe))
    if auroc := _values(own["corruption"], "routing_auroc"):
        out["routing_auroc"] = auroc[0]
    if heads := _heads(own["clean"], own["corruption"]):
        out["heads"] = heads
    read = dict.fromkeys(r["set"] for r in measured if r["set"] not in OWN_SETS)
    sets = {name: [r for r in measured if r["set"] == name] for name in read}
    ours = clean_accuracy if imagenet else None  # ImageNet-C's clean counterpart
    if sets:
        out["benchmarks"] = {name: _benchmark(r, ours) for name, r in sets.items()}
    return out


def _benchmark(measured: list[Row], clean_accuracy: float | None) -> dict[str, Any]:
    kind = next((row["kind"] for row in measured if "kind" in row), "")
    plain = [r for r in measured if "corruption" not in r and "perturbation" not in r]
    corrupted = [r for r in measured if "corruption" in r]
    out: dict[str, Any] = {
        row["metric"]: row["value"] for row in plain if not row["metric"].startswith("accuracy_")
    }
    out |= _corrupted(corrupted, kind in _IMAGENET_C, clean_accuracy)
    if routed := _counted(corrupted, "f_correct"):
        out["f_correct"] = float(np.mean(routed))
    return out | _perturbed([r for r in measured if "perturbation" in r], kind == "imagenet_p")


def _corrupted(measured: list[Row], imagenet: bool, clean_accuracy: float | None) -> dict[str, Any]:
    by_corruption: dict[str, list[float]] = {}
    for row in measured:
        if row["metric"] == "accuracy" and "corruption" in row:
            by_corruption.setdefault(row["corruption"], []).append(row["value"])
    if not by_corruption:
        return {}
    errors = {name: [1 - value for value in row] for name, row in by_corruption.items()}
    counted = {name: errors[name] for name in _main(errors, str)}
    out: dict[str, Any] = {
        "corrupted_accuracy": 1 - float(np.mean([e for row in counted.values() for e in row])),
        "accuracy_by_corruption": by_corruption,
    }
    if all(len(row) == robustness.SEVERITIES for row in counted.values()):
        out["mean_corruption_error"] = robustness.mean_corruption_error(counted)
        if imagenet and counted.keys() == robustness.ALEXNET_ERROR.keys():
            out["mce"] = robustness.mce(counted)
            if clean_accuracy is not None:
                out["relative_mce"] = robustness.relative_mce(counted, 1 - clean_accuracy)
    return out


def _perturbed(measured: list[Row], imagenet: bool) -> dict[str, Any]:
    out: dict[str, Any] = {}
    flips = {r["perturbation"]: r["value"] for r in measured if r["metric"] == "flip_probability"}
    alexnet = robustness.ALEXNET_FLIP_PROBABILITY
    ten = set(alexnet)
    if (cifar := ten - {"snow"} | {"spatter"}) <= flips.keys() and "snow" not in flips:
        ten = cifar  # as CIFAR-P counts
    counted = [name for name in flips if name in ten] or list(flips)
    if counted:
        out["mean_flip_probability"] = float(np.mean([flips[name] for name in counted]))
        if imagenet and set(counted) == alexnet.keys():
            out["mfr"] = robustness.mfr({name: flips[name] for name in counted})
    far = {r["perturbation"]: r["value"] for r in measured if r["metric"] == "top5_distance"}
    if far:
        out["mean_top5_distance"] = float(np.mean([far[name] for name in counted]))
    return out


def _counted(measured: list[Row], metric: str) -> list[float]:
    """The values of a metric, without those of the corruptions for validation; see `_main`."""
    found = [row for row in measured if row["metric"] == metric]
    return [row["value"] for row in _main(found, lambda row: row.get("corruption"))]


def _heads(clean: list[Row], corrupted: list[Row]) -> dict[str, dict[str, float]]:
    """What each head alone would reach, of a method that chooses between them."""
    out: dict[str, dict[str, float]] = {}
    for name, measured in (("clean_accuracy", clean), ("corrupted_accuracy", corrupted)):
        for head in HEADS:
            if counted := _counted(measured, f"accuracy_{head}_head"):
                out.setdefault(head, {})[name] = float(np.mean(counted))
    return out


def _values(measured: list[Row], metric: str) -> list[float]:
    return [row["value"] for row in measured if row["metric"] == metric]
