"""How tests run exported programs, and compare what they answer."""

import subprocess
import sys

import numpy as np

# What somebody runs who has the file, JAX and flatbuffers.
ALONE = """
import sys
import jax.export
import numpy as np

program, images, sizes, foreign = sys.argv[1:]
with open(program, "rb") as file:
    exported = jax.export.deserialize(bytearray(file.read()))
images = np.load(images)
for size in map(int, sizes.split(",")):
    np.savez(f"{size}.npz", **exported.call(images[:size]))
print([name for name in foreign.split(",") if name in sys.modules])
"""
FOREIGN = ("robust_jax", "flax", "tensorflow", "optax", "orbax", "safetensors", "sklearn")


def alone(program, images, sizes, tmp_path):
    """The answers of a program in a process that has never heard of robust_jax, by batch size."""
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", ALONE, str(program), "images.npy"]
    command += [",".join(map(str, sizes)), ",".join(FOREIGN)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "[]\n", found.stdout
    return {size: dict(np.load(tmp_path / f"{size}.npz")) for size in sizes}


def assert_agree(found, said):
    """Compares answers with those of a predictor."""
    assert found.keys() == said.keys() - {"class_name"}
    for name, values in found.items():
        assert (values.dtype, values.shape) == (said[name].dtype, said[name].shape), name
        if name in ("label", "head"):
            np.testing.assert_array_equal(values, said[name])
        else:
            np.testing.assert_allclose(values, said[name], rtol=0, atol=1e-5, err_msg=name)


def first(said, count):
    """The answers for the first images."""
    return {name: values[:count] for name, values in said.items()}
