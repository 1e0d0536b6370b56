"""Which class of a classifier the names in a benchmark mean, and whether it has the right classes.

Names of classes that are plain numbers, as of a folder without names, tell nothing and are taken
to be in the benchmark's order.
"""

import re
from collections.abc import Sequence

from robust_jax.config import nearest
from robust_jax.evals.subsets import IMAGENET_CLASSES, imagenet_wnids

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_WNID = re.compile(r"n\d{8}")


def check_imagenet(class_names: Sequence[str], kind: str) -> None:
    """Checks that a classifier has ImageNet's 1000 classes, in order where names show it.

    Raises:
      ValueError: where it has not.
    """
    if len(class_names) != IMAGENET_CLASSES:
        raise ValueError(
            f"{kind} needs a classifier of ImageNet's {IMAGENET_CLASSES} classes; got "
            f"{len(class_names)} classes; use folder:PATH or folder_c:PATH for other classes"
        )
    if all(map(_WNID.fullmatch, class_names)):
        _check_order(class_names, imagenet_wnids(), kind)
    elif _are_numbers(class_names):
        _check_order(class_names, [str(k) for k in range(IMAGENET_CLASSES)], kind)
    else:
        print(f"{kind}: the classifier's classes are taken to be in ImageNet's order")


def check_cifar(class_names: Sequence[str], count: int, kind: str) -> None:
    """Checks that a classifier has the 10 classes of CIFAR-10 or the 100 of CIFAR-100, in order.

    Raises:
      ValueError: where it has not.
    """
    if len(class_names) != count:
        raise ValueError(
            f"{kind} needs a classifier of {count} classes; got {len(class_names)}; use one that "
            f"was made for CIFAR-{count}"
        )
    if not _are_numbers(class_names):
        # Those of CIFAR-100 are in alphabetical order.
        _check_order(class_names, CIFAR10 if count == len(CIFAR10) else sorted(class_names), kind)


def match(names: Sequence[str], class_names: Sequence[str], kind: str) -> list[int]:
    """Returns the class of a classifier that each name means.

    Args:
      names: all of them are names of classes, ImageNet's WordNet ids, or numbers of classes.
      class_names: of the classifier, k names.
      kind: for messages.

    Returns:
      A number in [0, k) for each name.

    Raises:
      ValueError: for a name that means no class.
    """
    once = {n: i for i, n in enumerate(class_names) if class_names.count(n) == 1}
    ways = [once, {str(k): k for k in range(len(class_names))}]
    if len(class_names) == IMAGENET_CLASSES:
        ways.append({wnid: k for k, wnid in enumerate(imagenet_wnids())})
    best = max(ways, key=lambda way: sum(name in way for name in names))
    if unknown := [name for name in names if name not in best]:
        raise ValueError(
            f"{kind} has classes that the classifier lacks; got {', '.join(unknown[:5])} "
            f"({len(unknown)} of {len(names)}); name them as the classifier does, by number, or, "
            f"for ImageNet's classes, by WordNet id{nearest(unknown[0], best)}"
        )
    return [best[name] for name in names]


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in names)


def _check_order(class_names: Sequence[str], expected: Sequence[str], kind: str) -> None:
    for number, (name, right) in enumerate(zip(class_names, expected, strict=True)):
        if name.lower() != right.lower():
            raise ValueError(
                f"{kind} needs the classes in the order of its labels; got {name!r} as class "
                f"{number} of the classifier; it must be {right!r}"
            )
