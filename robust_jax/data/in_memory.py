"""Sources that are held in memory: scikit-learn's digits, and arrays in an npz file."""

import numpy as np
from etils import epath
from PIL import Image

from robust_jax.data.labels import numbered_classes
from robust_jax.data.sources import SPLITS, Source, from_arrays

_DIGITS_VAL = 360  # of 1,797
_DIGITS_SIDE = 32


def digits(split: str) -> Source:
    """Returns a part of scikit-learn's 1,797 8x8 digits at 32x32, in a fixed stratified split."""
    from sklearn import datasets, model_selection

    grey, labels = datasets.load_digits(return_X_y=True)
    small = np.round(grey.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = model_selection.train_test_split(
        np.arange(len(labels)), test_size=_DIGITS_VAL, random_state=0, stratify=labels
    )
    chosen = np.sort(parts[SPLITS.index(split)])
    size = (_DIGITS_SIDE, _DIGITS_SIDE)
    large = [Image.fromarray(image).resize(size, Image.Resampling.BICUBIC) for image in small]
    images = np.stack([np.asarray(image.convert("RGB")) for image in large])
    return from_arrays(images[chosen], labels[chosen], name=f"digits {split}")


def arrays(file: str, split: str) -> Source:
    """Returns a part of an npz file.

    Args:
      file: with train_images, train_labels, val_images, val_labels and perhaps class_names.
      split: "train" or "val".

    Raises:
      ValueError: when it is no such file.
    """
    path = epath.Path(file or "")
    if not file or not path.is_file():
        raise ValueError(f"data.file is not a file; got {file!r}; give the path of an npz file")
    needed = [f"{part}_{what}" for part in SPLITS for what in ("images", "labels")]
    with path.open("rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            missing = [key for key in needed if key not in archive]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}, it has {', '.join(archive)}")
            labels = {part: archive[f"{part}_labels"] for part in SPLITS}
            images = archive[f"{split}_images"]
            names = archive["class_names"].astype(str) if "class_names" in archive else None
            if names is not None and names.ndim != 1:
                raise ValueError(f"class_names has the shape {list(names.shape)}, not [k]")
        # On damaged files zipfile and NumPy raise nearly anything.
        except Exception as error:
            raise ValueError(
                f"cannot use data.file ({error}); got {file!r}; save it with np.savez and the "
                f"arrays {', '.join(needed)} (no object arrays), and class_names if you like"
            ) from error
    called = f"{path.name} {split}"
    # Both splits count the same classes.
    known = numbered_classes(called, *labels.values()) if names is None else names.tolist()
    return from_arrays(images, labels[split], known, name=called)
