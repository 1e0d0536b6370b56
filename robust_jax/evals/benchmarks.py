"""Reads stored benchmarks: [NAME=]KIND:PATH, such as `imagenet_c:/data/ImageNet-C`.

NAME is what the set is called in reports, to tell two of a kind apart. For `tfds` PATH is
NAME[/CONFIG][:SPLIT] of TensorFlow Datasets. docs/benchmarks.md lists the kinds.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from robust_jax.config import nearest
from robust_jax.evals.stored_frames import FRAME_KINDS
from robust_jax.evals.stored_images import IMAGE_KINDS
from robust_jax.evals.stored_sets import OWN_SETS, Request, StoredFrames, StoredImages
from robust_jax.evals.stored_tfds import is_prepared, tfds_sets

__all__ = ["KINDS", "StoredFrames", "StoredImages", "load", "load_all"]

KINDS: dict[str, Callable[[Request], Sequence[StoredImages | StoredFrames]]] = {
    **IMAGE_KINDS,
    **FRAME_KINDS,
    "tfds": tfds_sets,
}


def load_all(
    specs: Sequence[str], *, skip_absent: bool = False, **options: Any
) -> list[StoredImages | StoredFrames]:
    """Loads the sets of several benchmarks, which must be called differently; see `load`.

    Args:
      specs: of the benchmarks.
      skip_absent: download nothing, tell which are not on this machine and leave them out.
      **options: of `load`.
    """
    found: list[StoredImages | StoredFrames] = []
    called: dict[str, str] = {}
    absent = []
    for spec in specs:
        request = _request(spec, **options)
        name = request.name
        if name in called:
            raise ValueError(
                f"two benchmarks are both called {name}; got {called[name]!r} and {spec!r}; name "
                "one of them: NAME=KIND:PATH"
            )
        called[name] = spec
        if skip_absent and not _is_here(request):
            absent.append(name)
            continue
        sets = _read(request)
        print(f"benchmark {name}: {sum(map(len, sets)):,} {sets[0].unit}s in {len(sets)} sets")
        found += sets
    if absent:
        print(f"benchmarks not on this machine: {', '.join(absent)}")
    return found


def load(spec: str, **options: Any) -> list[StoredImages | StoredFrames]:
    """Loads the sets of a benchmark.

    Args:
      spec: [NAME=]KIND:PATH.
      **options: see `_request`.

    Returns:
      One set a corruption and severity, one a perturbation, or one. Images are decoded when they
      are reached: unreadable ones are errors then.

    Raises:
      ValueError: for an unknown kind, a benchmark that does not fit the classifier's classes, and
        one that is not whole.
    """
    return _read(_request(spec, **options))


def _request(
    spec: str,
    *,
    class_names: Sequence[str],
    eval_ops: str,
    size: int,
    corruptions: Sequence[str] = ("all",),
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    perturbations: Sequence[str] = ("all",),
    data_dir: str = "",
    index_dir: epath.PathLike | None = None,
) -> Request:
    """Returns what is asked of a benchmark.

    Args:
      spec: [NAME=]KIND:PATH.
      class_names: of the classifier, k names in order.
      eval_ops: of the model, for photographs as they are: images of `size` come out.
      size: side of the images that the model takes.
      corruptions: of a -C: names, "all" (the 15) or "extra" (four more).
      severities: of a -C: some of 1 to 5.
      perturbations: of a -P: names, "all" (the ten) or "extra" (four more).
      data_dir: where TFDS keeps its sets; "" for its default.
      index_dir: keeps what is slow to find out (the labels of TFDS sets).

    Raises:
      ValueError: for an unknown kind, a name that is taken, and a spec without a place.
    """
    name, sep, rest = spec.partition("=")
    if not sep or ":" in name:
        name, rest = "", spec
    elif name in OWN_SETS or not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(
            f"this cannot be a benchmark's name; got {name!r}; use letters, digits, '.', '_' and "
            f"'-', and none of {', '.join(OWN_SETS)}, which are the run's own sets"
        )
    kind, _, path = rest.partition(":")
    if kind not in KINDS:
        raise ValueError(
            f"unknown kind of benchmark; got {spec!r}; give KIND:PATH with one of "
            f"{', '.join(KINDS)}{nearest(kind, KINDS)}"
        )
    if not path:
        raise ValueError(f"{kind} needs a place; got {spec!r}; give {kind}:PATH")
    usual = path.partition(":")[0].replace("/", "-") if kind == "tfds" else kind
    return Request(
        kind=kind,
        name=name or usual,
        path=path,
        class_names=tuple(class_names),
        eval_ops=eval_ops,
        size=size,
        corruptions=corruptions,
        severities=severities,
        perturbations=perturbations,
        data_dir=data_dir,
        index_dir=epath.Path(index_dir) if index_dir else None,
    )


def _is_here(request: Request) -> bool:
    if request.kind == "tfds":
        return is_prepared(request)
    return epath.Path(request.path).is_dir()


def _read(request: Request) -> list[StoredImages | StoredFrames]:
    # The sets of TFDS go by their own names, which are those of the kinds where there is one.
    dataset = request.path.partition(":")[0].partition("/")[0]
    called = dataset if request.kind == "tfds" else request.kind
    return [dataclasses.replace(one, kind=called) for one in KINDS[request.kind](request)]
