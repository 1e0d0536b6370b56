"""Files as transformers writes and reads them, whose names are not those in its memory."""

import pathlib
import tempfile

import numpy as np
import parity


def written(model):
    """Shapes in the file of a model by their names, which are not those in memory."""
    from safetensors import safe_open

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(pathlib.Path(folder) / "model.safetensors", "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def run_from_file(model, tensors, images, otherwise="last_hidden_state", **arguments):
    """Answers of a model that is read from a file with these tensors: logits, or `otherwise`."""
    import torch
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(contiguous, pathlib.Path(folder) / "model.safetensors", {"format": "pt"})
        read, info = type(model).from_pretrained(folder, output_loading_info=True)
    wrong = {key: value for key, value in info.items() if value}
    if wrong:
        raise ValueError(f"transformers did not read every tensor; got {wrong}")
    with torch.no_grad():
        answer = read.eval()(torch.tensor(images), **arguments)
    return answer["logits" if "logits" in answer else otherwise].numpy()


def on_made_weights(model):
    """The made tensors of a model at 224 pixels, two images, and its answers to them."""
    tensors = {name: parity.made(name, shape) for name, shape in written(model).items()}
    images = np.random.RandomState(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    return tensors, images, run_from_file(model, tensors, images)
