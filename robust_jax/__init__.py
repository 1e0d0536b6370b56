"""Make a large pre-trained vision model robust at a fraction of the cost of fine-tuning it."""

import os
from typing import TYPE_CHECKING

from robust_jax.version import __version__

if TYPE_CHECKING:
    from robust_jax.classifier import RobustClassifier

__all__ = ["__version__", "load"]


def load(
    workdir: str | os.PathLike[str], *, zero_shot_head: str | os.PathLike[str] | None = None
) -> "RobustClassifier":
    """Returns the classifier that a finished run left in its workdir.

    Args:
      workdir: of the run.
      zero_shot_head: see `RobustClassifier`.
    """
    from robust_jax.classifier import RobustClassifier

    return RobustClassifier(workdir, zero_shot_head=zero_shot_head)
