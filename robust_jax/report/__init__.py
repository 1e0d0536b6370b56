"""The report: what a run measured, as a terminal table, figures and one web page.

This file holds what all of them share: names, number formats, and the reading of a run's files.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from robust_jax import writers
from robust_jax.corruptions import EXTRA_CORRUPTIONS

LABELS = {
    "original": "original",
    "teacher": "teacher",
    "teacher_clean": "teacher, trained clean",
    "apt": "APT",
    "full_finetune": "full fine-tuning",
    "wise_ft": "WiSE-FT",
    "lp_ft": "LP-FT",
    "ours": "ours",
    "ours_no_kd": "ours (w/o KD)",
    "ours_no_kld": "ours (w/o KLD)",
    "ours_no_umc": "ours (w/o U_mc)",
    "ours_max_logit": "ours (max logit)",
    "ours_product": "ours (U x KL)",
    "ours_gate": "ours (gate)",
}

# Hendrycks and Dietterich, ICLR 2019, section 3; the four validation corruptions come last.
CATEGORIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": EXTRA_CORRUPTIONS,
}


def label(method: str) -> str:
    """The readable name of a METHOD key; an unknown key names itself."""
    return LABELS.get(method, method)


def percent(value: float) -> str:
    """A fraction in [0, 1] as percent with one decimal."""
    return f"{100 * value:.1f}"


def count(value: float) -> str:
    """A number of parameters with three digits: 21.7M."""
    return _scaled(value, {"B": 1e9, "M": 1e6, "k": 1e3})


def flops(value: float) -> str:
    """A number of operations with three digits: 1.2P."""
    return _scaled(value, {"E": 1e18, "P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3})


def _scaled(value: float, units: Mapping[str, float]) -> str:
    for letter, size in units.items():
        if value >= 0.9995 * size:  # what would round to 1000 takes the next letter
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def seconds(value: float) -> str:
    """A duration in seconds, never rounded down to 0."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def category(corruption: str) -> str:
    """The category of a corruption; one that is in none counts as "extra"."""
    return next((name for name, members in CATEGORIES.items() if corruption in members), "extra")


def subject(summary: Mapping[str, Any]) -> str | None:
    """The three-head method the conclusion is about: "ours", else its first variant, else None."""
    return next((m for m in LABELS if m.startswith("ours") and m in summary["methods"]), None)


def read(workdir: epath.PathLike) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of summary.json and the rows of results.jsonl."""
    root = epath.Path(workdir)
    for name in ("summary.json", "results.jsonl"):
        if not (root / name).exists():
            raise ValueError(
                f"the report needs {name}; got none in {root}; run the stage evaluate first"
            )
    results = []
    lines = (root / "results.jsonl").read_text().splitlines()
    for number, line in enumerate(lines, 1):
        row = json.loads(line)
        needed = {"method", "metric", "set", "value", "n"}
        if row.get("metric") == "accuracy" and row.get("set") == "corruption":
            needed |= {"corruption", "severity"}
        if missing := needed - row.keys():
            raise ValueError(
                f"a row of results.jsonl lacks a key; got line {number} without "
                f"{sorted(missing)}; run the stage evaluate again"
            )
        results.append(row)
    return json.loads((root / "summary.json").read_text()), results


def read_arrays(path: epath.Path) -> dict[str, np.ndarray] | None:
    """The arrays of an npz file; None where no three-head method was evaluated and wrote it."""
    if not path.exists():
        return None
    return writers.read_arrays(path)
