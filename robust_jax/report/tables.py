"""What the measurements say: rows for tables, intervals and comparisons, from plain dictionaries.

Knows nothing of files, HTML or models. `summary` is the content of summary.json, `results` the rows
of results.jsonl. A metric that was not run is absent from a row and shown as "-", never as 0.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from robust_jax.report import CATEGORIES, LABELS, category, count, label, percent, seconds, subject

Interval = tuple[float, float]

VERDICTS = {  # of a difference, and how it reads before a name
    "higher": "more accurate than",
    "lower": "less accurate than",
    "not told apart": "not told apart from",
}


def method_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a method, known methods first: its metrics, and "method" and "label"."""
    methods = summary["methods"]
    order = [m for m in LABELS if m in methods] + [m for m in methods if m not in LABELS]
    return [{"method": m, "label": label(m), **methods[m]} for m in order]


def benchmark_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a benchmark that was read and a method: its metrics, and "set" and "label"."""
    rows = method_table(summary)
    names = dict.fromkeys(name for row in rows for name in row.get("benchmarks", {}))
    return [
        {"set": name, "label": row["label"], **row["benchmarks"][name]}
        for name in names
        for row in rows
        if name in row.get("benchmarks", {})
    ]


def category_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a method: mean accuracy over the corruptions (and severities) of each category."""
    rows = []
    for row in method_table(summary):
        groups: dict[str, list[float]] = {name: [] for name in CATEGORIES}
        for corruption, values in row.get("accuracy_by_corruption", {}).items():
            groups[category(corruption)].append(sum(values) / len(values))
        means = {name: sum(group) / len(group) for name, group in groups.items() if group}
        if means:
            rows.append({"method": row["method"], "label": row["label"], **means})
    return rows


def wilson(value: float, n: int) -> Interval:
    """The 95 % score interval of a proportion (Wilson, JASA 22, 1927).

    Args:
        value: the proportion, in [0, 1].
        n: the number of independent trials.
    """
    if not 0 <= value <= 1 or n < 1:
        raise ValueError(
            f"a Wilson interval needs a fraction in [0, 1] and n >= 1; got {value}, n = {n}; "
            "give accuracies as fractions, not percent"
        )
    z = 1.959964  # the 97.5 % quantile of the normal distribution
    centre = value + z * z / (2 * n)
    half = z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def difference(a: float, n_a: int, b: float, n_b: int) -> Interval:
    """The 95 % interval of a - b from two Wilson intervals (Newcombe, Stat. Med. 17, 1998, no. 10).

    It treats the two as independent. Methods that answered the same images mostly agree, so the
    interval is usually wider than it need be, which is the safe side.
    """
    (low_a, high_a), (low_b, high_b) = wilson(a, n_a), wilson(b, n_b)
    return (
        a - b - math.hypot(a - low_a, high_b - b),
        a - b + math.hypot(high_a - a, b - low_b),
    )


def image_counts(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """The number of distinct images behind each (method, set) accuracy.

    The smallest n of its rows: every corruption, severity and seed shows the same images again, and
    counting an image once bounds the variance of its mean over them from above.
    """
    counts: dict[tuple[str, str], int] = {}
    for row in results:
        if row["metric"] == "accuracy":
            key = (row["method"], row["set"])
            counts[key] = min(row["n"], counts.get(key, row["n"]))
    return counts


def winner(values: Mapping[str, tuple[float, int | None]]) -> str | None:
    """The method whose Wilson interval lies above every other's, else None.

    Args:
        values: method -> (fraction, number of images or None); None says nothing can be told.
    """
    if len(values) < 2 or any(n is None for _, n in values.values()):
        return None
    intervals = {method: wilson(value, n) for method, (value, n) in values.items() if n}
    best = max(intervals, key=lambda method: intervals[method][0])
    others = (high for method, (_, high) in intervals.items() if method != best)
    return best if intervals[best][0] > max(others) else None


def compare(
    summary: Mapping[str, Any], results: Iterable[Mapping[str, Any]], kind: str
) -> list[dict[str, Any]]:
    """Differences of the subject from each baseline in clean or corrupted accuracy.

    Args:
        kind: "clean" or "corrupted".

    Returns:
        One row a baseline: "method", "difference" (fraction), and where the numbers of images are
        known "interval" and "verdict" ("higher", "lower" or "not told apart").
    """
    methods, ours, key = summary["methods"], subject(summary), f"{kind}_accuracy"
    counts, source = image_counts(results), "clean" if kind == "clean" else "corruption"
    rows: list[dict[str, Any]] = []
    if ours is None or key not in methods[ours]:
        return rows
    baselines = [m["method"] for m in method_table(summary) if not m["method"].startswith("ours")]
    for method in (m for m in baselines if key in methods[m]):
        a, b = methods[ours][key], methods[method][key]
        row = {"method": method, "difference": a - b}
        n_a, n_b = counts.get((ours, source)), counts.get((method, source))
        if n_a and n_b:
            low, high = row["interval"] = difference(a, n_a, b, n_b)
            row["verdict"] = "higher" if low > 0 else "lower" if high < 0 else "not told apart"
        rows.append(row)
    return rows


def severity_curves(
    summary: Mapping[str, Any], results: Iterable[Mapping[str, Any]]
) -> dict[str, dict[int, float]]:
    """Method -> severity -> mean accuracy over corruptions and seeds; 0 is the clean images.

    The validation corruptions do not count, as in the mean corruption error.
    """
    groups: dict[str, dict[int, list[float]]] = {}
    for row in results:
        corrupted = row["metric"] == "accuracy" and row["set"] == "corruption"
        if corrupted and category(row["corruption"]) != "extra":
            severities = groups.setdefault(row["method"], {})
            severities.setdefault(row["severity"], []).append(row["value"])
    curves = {}
    for method, severities in groups.items():
        clean = summary["methods"].get(method, {}).get("clean_accuracy")
        means = {severity: sum(v) / len(v) for severity, v in severities.items()}
        curves[method] = means if clean is None else {0: clean, **means}
    return curves


def conclusion(summary: Mapping[str, Any], results: list[dict[str, Any]]) -> list[str]:
    """What the numbers say about the three-head method, good or bad, in sentences."""
    ours = subject(summary)
    if ours is None:
        return ["No three-head method was evaluated, so there is nothing to compare."]
    name, row, said = label(ours), summary["methods"][ours], []
    for kind in ("corrupted", "clean"):
        groups: dict[str, list[str]] = {}
        for other in compare(summary, results, kind):
            if "verdict" in other:
                groups.setdefault(other["verdict"], []).append(label(other["method"]))
        if groups:
            verdicts = "; ".join(
                f"{VERDICTS[v]} {', '.join(groups[v])}" for v in VERDICTS if v in groups
            )
            said.append(f"On {kind} images {name} is {verdicts}.")
    if {"tuned_params", "total_params"} <= row.keys():
        tuned, total = row["tuned_params"], row["total_params"]
        said.append(
            f"Tuned: {count(tuned)} of {count(total)} parameters ({percent(tuned / total)} %)."
        )
    full = summary["methods"].get("full_finetune", {}).get("train_seconds")
    if full and (own := row.get("train_seconds")):
        ratio = f"{full / own:.1f} times less" if own < full else f"{own / full:.1f} times more"
        times = f"{seconds(own)} s against {seconds(full)} s"
        said.append(f"Training took {times} for full fine-tuning: {ratio}.")
    if {"f_correct_clean", "f_correct_shift"} <= row.keys():
        clean, shift = row["f_correct_clean"], row["f_correct_shift"]
        said.append(
            f"{percent(clean)} % of the clean images went to the clean head and {percent(shift)} % "
            f"of the corrupted ones to the unclean head: {percent(clean + shift)} in all, where a "
            "choice that ignores the image reaches at most 100."
        )
    return said
