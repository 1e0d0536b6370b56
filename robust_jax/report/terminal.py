"""Tables for a terminal: names to the left, numbers to the right, "-" for what is absent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robust_jax.report import percent
from robust_jax.report.columns import (
    BENCHMARK_COLUMNS,
    MAIN_COLUMNS,
    OTHER_COLUMNS,
    Column,
    present,
)
from robust_jax.report.tables import benchmark_table, method_table


def methods(summary: Mapping[str, Any], *, all_columns: bool = False) -> str:
    """One line a method; with `all_columns` every metric that some method has."""
    rows = method_table(summary)
    columns: Sequence[Column] = MAIN_COLUMNS
    if all_columns:
        columns = present([*MAIN_COLUMNS, *OTHER_COLUMNS], rows)
        if not columns:
            return ""
    return _with_columns(["method"], [[row["label"]] for row in rows], columns, rows)


def benchmarks(summary: Mapping[str, Any]) -> str:
    """One line a benchmark that was read and a method; "" where there was none."""
    rows = benchmark_table(summary)
    if not rows:
        return ""
    names = [[row["set"], row["label"]] for row in rows]
    return _with_columns(["benchmark", "method"], names, present(BENCHMARK_COLUMNS, rows), rows)


def evaluation(summary: Mapping[str, Any]) -> list[str]:
    """Every table of an evaluation: the methods, the benchmarks, and each corruption of a method.

    Args: summary: of `robust_jax.evaluate`.
    """
    counts = [f"{name} {count:,}" for name, count in summary["images"].items()]
    found = [f"images: {', '.join(counts)}"]
    found += [methods(summary, all_columns=True), benchmarks(summary)]
    for row in method_table(summary):
        sets = {"corruption": row, **row.get("benchmarks", {})}
        for name, entry in sets.items():
            if "accuracy_by_corruption" in entry:
                own = name == "corruption"
                title = f"{row['label']} {'' if own else name + ' '}accuracy %"
                severities = summary["severities"][name]
                table = corruptions(entry["accuracy_by_corruption"], severities)
                found.append(f"{title}\n{table}")
    return [table for table in found if table]


def corruptions(accuracy: Mapping[str, Sequence[float]], severities: Sequence[int]) -> str:
    """One line a corruption: accuracy in percent at each severity, and its mean.

    Args: accuracy: corruption -> fractions; severities: of each of them.
    """
    lines = [
        [name, *map(percent, values), percent(sum(values) / len(values))]
        for name, values in accuracy.items()
    ]
    return aligned([["corruption", *map(str, severities), "mean"], *lines], names=1)


def _with_columns(
    heads: list[str], names: list[list[str]], columns: Sequence[Column], rows: Iterable[Any]
) -> str:
    lines = [
        [*name, *(column.cell(row) for column in columns)]
        for name, row in zip(names, rows, strict=True)
    ]
    return aligned([[*heads, *(column.heading for column in columns)], *lines], len(heads))


def aligned(lines: list[list[str]], names: int) -> str:
    """Aligns cells; the first so many columns are names."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
