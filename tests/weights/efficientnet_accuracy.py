"""Top-1 of EfficientNet-Lite on photographs: python tests/weights/efficientnet_accuracy.py DIR

DIR holds JPEGs as CLASS_INDEX/*.jpg, with the indices of ImageNet from 0 to 999. With --torch, also
the answer of `efficientnet_lite_pytorch` to the same pixels.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from robust_jax import models, weights
from robust_jax.weights.efficientnet import PACKAGES

BATCH = 50


def pixels(path, row):
    """An image uint8[h, w, 3]: the shorter side resized, then the centre."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    scale = row.resize / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - row.input_size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + row.input_size, top + row.input_size)))


def jax_answer(found):
    """A function from images uint8[b, h, w, 3] to logits f32[b, 1000]."""
    model = models.build(found.entry, found.num_classes)
    variables, _ = found.load(model)
    apply = jax.jit(lambda v, x: model.apply(v, models.normalise(x, found.entry)))
    return lambda images: np.asarray(apply(variables, jnp.asarray(images)))


def torch_answer(found):
    """The same by `efficientnet_lite_pytorch`."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    row = found.entry
    model = EfficientNet.from_name(row.name.replace("_", "-"))
    state = {name: torch.tensor(value) for name, value in found.file.tensors.items()}
    model.load_state_dict(state, strict=True)
    model.eval()

    def answer(images):
        x = (images.astype(np.float32) / 255 - np.float32(row.mean)) / np.float32(row.std)
        with torch.no_grad():
            return model(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()

    return answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--torch", action="store_true")
    args = parser.parse_args()
    paths = sorted(args.directory.glob("*/*.jpg"))
    if not paths:
        raise SystemExit(f"no CLASS_INDEX/*.jpg in {args.directory}")
    labels = np.array([int(path.parent.name) for path in paths])
    for name in PACKAGES:
        found = weights.find("pretrained", name)
        answers = {"jax": jax_answer(found)} | (
            {"torch": torch_answer(found)} if args.torch else {}
        )
        logits = {kind: [] for kind in answers}
        for start in range(0, len(paths), BATCH):
            images = np.stack([pixels(p, found.entry) for p in paths[start : start + BATCH]])
            for kind, answer in answers.items():
                logits[kind].append(answer(images))
        joined = {kind: np.concatenate(parts) for kind, parts in logits.items()}
        for kind, values in joined.items():
            right = np.mean(values.argmax(1) == labels)
            print(f"{name} {kind}: top-1 {100 * right:.1f} % of {len(labels)}", flush=True)
        if args.torch:
            difference = (
                np.abs(joined["jax"] - joined["torch"]).max() / np.abs(joined["torch"]).max()
            )
            same = np.mean(joined["jax"].argmax(1) == joined["torch"].argmax(1))
            print(f"{name} same answer: {100 * same:.1f} %, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
