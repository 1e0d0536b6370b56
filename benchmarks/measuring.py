"""What every benchmark does: times programs in turn, says on what machine, prints, writes JSON."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def arguments(description: str | None, **options: Any) -> argparse.Namespace:
    """Returns the command line: --json and the given options, by name and default value.

    An option whose default is False is a flag; a list takes several values.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the table and the ratios here")
    for name, default in options.items():
        flag = "--" + name.replace("_", "-")
        if default is False:
            parser.add_argument(flag, action="store_true")
        elif isinstance(default, (list, tuple)):
            kind = type(default[0])
            parser.add_argument(flag, nargs="+", type=kind, default=list(default))
        else:
            parser.add_argument(flag, type=type(default), default=default)
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Returns what the figures were measured on; asks JAX for its devices."""
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def interleaved(
    programs: Mapping[str, Callable[[], Any]],
    rounds: int,
    repeats: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Times programs in turn, so that what disturbs the machine disturbs all of them.

    Args:
      programs: name -> function without arguments; its result is waited for.
      rounds: measurements of each, after one that warms up.
      repeats: calls of one measurement, by name; 1 where it is not said.

    Returns:
      Name -> median seconds a call.
    """
    import jax

    took: dict[str, list[float]] = {name: [] for name in programs}
    for round_ in range(rounds + 1):
        for name, program in programs.items():
            calls = (repeats or {}).get(name, 1)
            began = time.perf_counter()
            for _ in range(calls):
                found = program()
            jax.block_until_ready(found)
            if round_:
                took[name].append((time.perf_counter() - began) / calls)
    return {name: float(np.median(seconds)) for name, seconds in took.items()}


def finish(title: str, rows: Sequence[Row], ratios: Mapping[str, float], json_file: Any) -> None:
    """Prints the rows as a table and the ratios below it, and writes both where asked to.

    Args:
      title: what was measured, on what.
      rows: with the same keys each; the first key names the row.
      ratios: name -> value, the names of which stay.
      json_file: path, or None.
    """
    print(title)
    table = [list(rows[0])] if rows else []
    table += [[_text(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *others in table:
        numbers = (f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True))
        print("  ".join([f"{first:<{widths[0]}}", *numbers]))
    for name, value in ratios.items():
        print(f"{name}: {value:.4f}")
    if json_file:
        found = {"machine": machine(), "rows": list(rows), "ratios": dict(ratios)}
        Path(json_file).write_text(json.dumps(found, indent=1) + "\n")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
