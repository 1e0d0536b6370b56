"""The settings of AugMix, for the tf.data operation and for JAX; imports neither."""


def check_settings(severity: float, width: int, depth: int, alpha: float) -> None:
    """Raises ValueError for a setting out of its range; see `augmix.draw`."""
    if not 0 < severity <= 10:
        raise ValueError(
            f"AugMix severity is out of range; got {severity}; use a number in (0, 10], "
            "such as 3 (CIFAR) or 1 (ImageNet)"
        )
    if width < 1:
        raise ValueError(f"AugMix width is out of range; got {width}; use 1 or more chains")
    if depth < 1 and depth != -1:
        raise ValueError(
            f"AugMix depth is out of range; got {depth}; use 1 or more operations, or -1 to draw "
            "1, 2 or 3"
        )
    if not alpha > 0:
        raise ValueError(f"AugMix alpha is out of range; got {alpha}; use a number above 0")
