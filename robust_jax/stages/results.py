"""From per-image answers to rows of results.jsonl, and from rows to summary.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robust_jax.corruptions.sequences import is_noise
from robust_jax.evals import metrics, robustness
from robust_jax.evals.classification import Outputs

Row = dict[str, Any]


def rows(found: Mapping[str, Outputs], labels: np.ndarray, seed: int) -> list[Row]:
    """Returns one row for each measurement.

    Args:
      found: "clean" or "CORRUPTION-SEVERITY" -> {"METHOD/label", "METHOD/head",
        "METHOD/routing_score", "METHOD/HEAD_label"}, each with a row for every image.
      labels: int[n], the true labels.
      seed: of the run.
    """
    out: list[Row] = []
    for name, outputs in found.items():
        corruption, _, severity = name.partition("-")
        where: Row = {"set": "clean"}
        if severity:
            where = {"set": "corruption", "corruption": corruption, "severity": int(severity)}

        def add(method: str, metric: str, estimate: metrics.Estimate, where: Row = where) -> None:
            out.append(
                {"method": method, "metric": metric, **where, **estimate._asdict(), "seed": seed}
            )

        for key, values in outputs.items():
            method, _, kind = key.partition("/")
            if kind == "label":
                add(method, "accuracy", metrics.accuracy(values, labels))
            elif kind == "head":
                domain = "shift" if severity else "clean"
                add(method, "f_correct", metrics.f_correct(values, domain))
            elif kind.endswith("_label"):
                head = kind.removesuffix("_label")
                add(method, f"accuracy_{head}_head", metrics.accuracy(values, labels))
    out += _auroc_rows(found, seed)
    return out


def flip_rows(flips: Mapping[str, Outputs], seed: int) -> list[Row]:
    """Returns one row for each method and perturbation sequence.

    Args:
      flips: sequence -> {"METHOD/label": int[n, f]}, the answers on its frames.
      seed: of the run.
    """
    out: list[Row] = []
    for name, outputs in flips.items():
        for key, labels in outputs.items():
            rates = robustness.flip_rates(list(labels), is_noise(name))
            estimate = metrics.mean_fraction(rates)
            out.append(
                {
                    "method": key.removesuffix("/label"),
                    "metric": "flip_probability",
                    "set": "perturbation",
                    "perturbation": name,
                    **estimate._asdict(),
                    "seed": seed,
                }
            )
    return out


def _auroc_rows(found: Mapping[str, Outputs], seed: int) -> list[Row]:
    out = []
    for key, clean in found["clean"].items():
        method, _, kind = key.partition("/")
        shifted = [outputs[key] for name, outputs in found.items() if name != "clean"]
        if kind == "routing_score" and shifted:
            area = metrics.auroc(clean, np.concatenate(shifted))
            # Corrupted copies of an image are one case, so the copies do not narrow the interval.
            low, high = metrics.auroc_interval(area, len(clean), len(clean))
            out.append(
                {
                    "method": method,
                    "metric": "routing_auroc",
                    "set": "all",
                    "value": area,
                    "low": low,
                    "high": high,
                    "n": len(clean),
                    "seed": seed,
                }
            )
    return out


def method_summaries(measured: list[Row]) -> dict[str, dict[str, Any]]:
    """Returns the accuracy and routing entries of summary.json for each method in the rows."""
    methods = list(dict.fromkeys(row["method"] for row in measured))
    return {method: _method([r for r in measured if r["method"] == method]) for method in methods}


def _method(measured: list[Row]) -> dict[str, Any]:
    def values(metric: str, where: str) -> list[float]:
        return [r["value"] for r in measured if r["metric"] == metric and r["set"] == where]

    out: dict[str, Any] = {}
    if clean := values("accuracy", "clean"):
        out["clean_accuracy"] = clean[0]
    if corrupted := values("accuracy", "corruption"):
        out["corrupted_accuracy"] = float(np.mean(corrupted))
    if clean := values("f_correct", "clean"):
        out["f_correct_clean"] = clean[0]
    if shifted := values("f_correct", "corruption"):
        out["f_correct_shift"] = float(np.mean(shifted))
    if auroc := values("routing_auroc", "all"):
        out["routing_auroc"] = auroc[0]
    if flips := values("flip_probability", "perturbation"):
        out["mean_flip_probability"] = float(np.mean(flips))
    by_corruption: dict[str, list[float]] = {}
    for row in measured:
        if row["metric"] == "accuracy" and row["set"] == "corruption":
            by_corruption.setdefault(row["corruption"], []).append(row["value"])
    if by_corruption:
        out["accuracy_by_corruption"] = by_corruption
        errors = {name: [1 - value for value in row] for name, row in by_corruption.items()}
        if all(len(row) == robustness.SEVERITIES for row in errors.values()):
            out["mean_corruption_error"] = robustness.mean_corruption_error(errors)
    return out
