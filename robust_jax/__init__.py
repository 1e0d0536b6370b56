"""Make a large pre-trained vision model robust at a fraction of the cost of fine-tuning it."""

from robust_jax.version import __version__

__all__ = ["__version__"]
