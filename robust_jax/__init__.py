"""Make a large pre-trained vision model robust at a fraction of the cost of fine-tuning it."""

from typing import TYPE_CHECKING

from robust_jax.version import __version__

if TYPE_CHECKING:
    from robust_jax.predict import RobustClassifier

__all__ = ["__version__", "load"]


def load(workdir: str) -> "RobustClassifier":
    """Returns the classifier that a finished run left in its workdir."""
    from robust_jax.predict import RobustClassifier

    return RobustClassifier(workdir)
