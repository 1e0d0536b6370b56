"""The numbers of classes, checked before they are used."""

import numpy as np

MAX_CLASSES = 1_000_000  # of labels without names; more are no labels


def to_labels(numbers: np.ndarray, count: int, name: str) -> np.ndarray:
    """Returns the numbers of classes as int32[n].

    Args:
      numbers: int[n], of any integer type.
      count: of the classes.
      name: of the source, for messages.

    Raises:
      ValueError: for a number that is not in [0, count); before a cast, which could wrap it.
    """
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        raise ValueError(
            f"labels of {name} are out of range; got {numbers.min()} to {numbers.max()} for "
            f"{count} classes; number the classes from 0 to {count - 1}"
        )
    return numbers.astype(np.int32)


def numbered_classes(name: str, *labels: np.ndarray) -> list[str]:
    """Returns the names "0", "1", ... of the classes of some labels.

    Args:
      name: of the source, for messages.
      labels: int[n] each; together they tell how many classes there are.

    Raises:
      ValueError: for what is no integer, and from `MAX_CLASSES` on.
    """
    for part in labels:
        if not np.issubdtype(part.dtype, np.integer):
            raise ValueError(
                f"labels of {name} have the wrong form; got {part.dtype}{list(part.shape)}; give "
                "one whole number for each image"
            )
    largest = max((int(part.max()) for part in labels if part.size), default=-1)
    if largest >= MAX_CLASSES:
        raise ValueError(
            f"labels of {name} are out of range; got {largest}, at most {MAX_CLASSES - 1:,} "
            "without class names; number the classes from 0 on"
        )
    return [str(k) for k in range(largest + 1)]
