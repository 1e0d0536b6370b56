"""What corrupting costs: the 15 corruptions of ImageNet-C, ours and imagecorruptions-imaug's.

Both work at 224 px on the same core, in one process run, interleaved: the ratios are what to read.
Ours gets the images as one batch, the other one at a time, as their interfaces want it.
`python benchmarks/corruptions.py [--json FILE] [--quick]`
"""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from robust_jax.corruptions import CORRUPTIONS, SEVERITIES, corrupt

SIZE = 224
PEER = "imagecorruptions-imaug"
IMAGES, ROUNDS = 16, 5


def photographs(count: int) -> np.ndarray:
    """Crops of a photograph, uint8[count, 224, 224, 3]."""
    from sklearn.datasets import load_sample_image

    pixels, rng = load_sample_image("china.jpg"), np.random.default_rng(0)
    corners = rng.integers(np.array(pixels.shape[:2]) - SIZE, size=(count, 2))
    return np.stack([pixels[y : y + SIZE, x : x + SIZE] for y, x in corners])


def load_peer() -> Callable[..., np.ndarray]:
    """The other implementation, held to one thread."""
    try:
        importlib.metadata.version(PEER)  # another distribution has a module of the same name
        import cv2
        import imagecorruptions
    except ImportError as error:
        raise SystemExit(
            f"the comparison needs {PEER} and its dependencies; got {type(error).__name__}: "
            f"{error}; do `pip install {PEER}`"
        ) from error
    cv2.setNumThreads(1)
    return imagecorruptions.corrupt


def stay_on_one_core() -> None:
    """Keeps this process, whatever threads it starts, on one core."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit(f"one core needs Linux; got {platform.system()}; run it there")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    threadpool_limits(1)


def one_by_one(peer: Callable[..., np.ndarray], images: np.ndarray, *args: Any) -> None:
    """Corrupts the images with the other implementation."""
    for image in images:
        peer(image, *args)


def timed(run: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(
    peer: Callable[..., np.ndarray], images: np.ndarray, name: str, rounds: int
) -> dict[str, Any]:
    """The row of a corruption; seconds an image are the sums over the severities."""
    seconds = {"ours": 0.0, "imaug": 0.0}
    ids = np.arange(len(images))
    for severity in SEVERITIES:
        ways: dict[str, Callable[[], Any]] = {
            "ours": partial(corrupt, images, name, severity, ids=ids),
            "imaug": partial(one_by_one, peer, images, severity, name),
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        for round_ in range(rounds + 1):
            for way, run in ways.items():
                once = timed(run)
                if round_:  # the first round warms up: tables, frost, and numba's compiler
                    took[way].append(once)
        for way in ways:
            seconds[way] += float(np.median(took[way])) / len(images)
    rates = {f"{way}_images_per_second": len(SEVERITIES) / seconds[way] for way in seconds}
    return {
        "corruption": name,
        "seconds": seconds,
        **rates,
        "speedup": seconds["imaug"] / seconds["ours"],
    }


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one image, once: only to see it run")
    args = parser.parse_args()
    stay_on_one_core()
    peer = load_peer()
    images, rounds = photographs(1 if args.quick else IMAGES), 1 if args.quick else ROUNDS
    rows = [measure(peer, images, name, rounds) for name in CORRUPTIONS]
    total = {way: sum(row["seconds"][way] for row in rows) for way in ("ours", "imaug")}
    ratios = {f"corruptions_speedup_over_imaug_{SIZE}": total["imaug"] / total["ours"]}
    print(f"images per second at {SIZE} px on one core, mean over the severities")
    print(f"{'':<17} {'ours':>8} {'imaug':>8} {'speedup':>8}")
    for row in rows:
        ours, other = row["ours_images_per_second"], row["imaug_images_per_second"]
        print(f"{row['corruption']:<17} {ours:>8,.0f} {other:>8,.0f} {row['speedup']:>8.2f}")
    for name, value in ratios.items():
        print(f"{name}: {value:.2f} by total time")
    if args.json:
        device = platform.processor() or platform.machine()
        machine = {"device": device, "platform": platform.platform(), "cores": 1}
        args.json.write_text(json.dumps({"machine": machine, "rows": rows, "ratios": ratios}))


if __name__ == "__main__":
    main()
