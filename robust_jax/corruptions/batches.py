"""What corruptions and sequences share: checks of a batch, uint8 results, work on several cores."""

import difflib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

SMALLEST_SIDE = 8
# Few enough pixels at a time to stay near the cache, enough to hide numpy's cost per call.
_PIXELS_AT_ONCE = 2**18


def check_name(name: str, names: Sequence[str], kind: str) -> None:
    """Raises ValueError with `names` and the nearest of them for an unknown one."""
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown {kind}; got {name!r}; use one of {', '.join(names)}; did you mean {near!r}?"
        )


def as_batch(images: Any, ids: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The images and ids as arrays.

    Raises:
        ValueError: unless images are u8[b, h, w, 3] and ids i[b] and seed not negative.
    """
    if isinstance(images, list | tuple):
        shapes = sorted({np.shape(image) for image in images})
        if len(shapes) > 1:
            raise ValueError(
                "images of a batch must be of one size; got "
                + " and ".join(str(list(shape)) for shape in shapes)
                + "; resize them, or call once for each size"
            )
    images, ids = np.asarray(images), np.asarray(ids)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8[b, h, w, 3]; got {images.dtype}{list(images.shape)}; "
            "convert to RGB in 0..255 and add the batch axis"
        )
    if min(images.shape[1:3]) < SMALLEST_SIDE:
        raise ValueError(
            f"images must have sides of at least {SMALLEST_SIDE} px; "
            f"got {images.shape[1]}x{images.shape[2]}; enlarge them first"
        )
    if ids.shape != images.shape[:1] or not (ids.size == 0 or np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(
            f"ids must be one integer an image; got {ids.dtype}{list(ids.shape)} for "
            f"{len(images)} images; pass for instance np.arange({len(images)})"
        )
    if not isinstance(seed, int | np.integer) or seed < 0 or (ids.size and ids.min() < 0):
        raise ValueError(
            f"seed and ids must be integers, not negative; got seed {seed!r}, smallest id "
            f"{ids.min() if ids.size else 'none'}; use numbers from 0 up"
        )
    return images, ids


def truncate(images: np.ndarray) -> np.ndarray:
    """Floor to u8; the rounding of float32 must not turn an exact 255 into 254."""
    if images.dtype == np.uint8:
        return images
    slack = np.float32(1e-3) if images.dtype == np.float32 else 0
    return (np.clip(images, 0, 255) + slack).astype(np.uint8)


def in_parts(run: Callable[[slice], None], count: int, pixels: int) -> None:
    """Calls `run` on slices that cover `count` images of so many pixels, in threads."""
    workers = os.cpu_count() or 1
    size = max(1, min(_PIXELS_AT_ONCE // pixels, -(-count // workers)))
    parts = [slice(start, start + size) for start in range(0, count, size)]
    if len(parts) <= 1:
        for part in parts:
            run(part)
    else:
        with ThreadPoolExecutor(min(len(parts), workers)) as pool:
            list(pool.map(run, parts))
