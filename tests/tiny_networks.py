"""Networks of the zoo that are small enough to test, and weight files of them."""

import dataclasses

import jax

from robust_jax import models, weights
from robust_jax.weights import files, loading

TINY = {"width": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64, "patch_size": 8}


def add(monkeypatch):
    """Adds "tiny_vit" and "tiny_clip", of 32 px, to the zoo."""
    for like, name, more in (
        ("vit_s16", "tiny_vit", {}),
        ("clip_vit_b16", "tiny_clip", {"projection": 16}),
    ):
        row = models.entry(like)
        kwargs = {**row.kwargs, **TINY, **more}
        found = dataclasses.replace(row, name=name, kwargs=kwargs, input_size=32, resize=32)
        monkeypatch.setitem(models.MODELS, name, found)


def write(path, name, fmt, num_classes):
    """A file of random weights; returns the variables in it."""
    model = models.build(name, num_classes)
    variables = dict(model.init(jax.random.key(3), model.example_input()))
    form = weights.formats(models.entry(name))[fmt]
    if not any(row.path.startswith(loading.HEAD) for row in form.tensors(model)):
        del variables["params"]["head"]
    files.write_safetensors(str(path), loading.to_tensors(variables, form, model))
    return variables
