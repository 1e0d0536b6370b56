"""Out of memory, of the host and of a device: what wants how much, and what to change, in order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import quick_config
from toy_training import OPTIMIZER, run

from robust_jax import memory, sharding
from robust_jax.stages import knobs
from robust_jax.state import TrainState

HUGE = 1 << 41  # bytes that no machine of these tests has


def hungry_step(state, frozen, batch):
    """A step whose activations take some terabytes."""

    def loss_fn(params):
        wide = jnp.broadcast_to(params["w"], (HUGE // 20 // 4, 5)) * batch["y"][0]
        return jnp.sum(jnp.sort(wide, axis=0)[::1000])

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.update(grads, OPTIMIZER, {"loss": loss})


def test_device(tmp_path):
    one = sharding.make_mesh(jax.devices()[:1])
    with pytest.raises(memory.OutOfMemory) as caught:
        run(tmp_path, 3, step=hungry_step, mesh=one, memory_knobs=("first this", "then that"))
    said = str(caught.value).splitlines()
    assert said[0].startswith("toy: out of memory; got ")
    assert "Out of memory allocating" in said[0] and said[0].endswith("it needs about")
    assert [line.split(":")[0].strip() for line in said[1:6]] == [
        "parameters and optimizer state",
        "arrays that are not trained",
        "the batch",
        "activations and gradients",
        "together",
    ]
    needed = float(said[4].split()[-2])
    assert needed > HUGE / 20 / memory.GIB, said
    assert said[6:] == ["what helps, in this order:", "  1. first this", "  2. then that"]


def test_host():
    parts, wanted = {"answers": 1 << 45, "images": 1 << 30}, r"(?s)stage evaluate: out of memory; "
    wanted += r"got Unable to allocate 32.0 TiB .*; it needs about\n  answers: 32768.000 GiB\n"
    with (
        pytest.raises(memory.OutOfMemory, match=wanted + r".*  1. --config.evaluate.batch_size="),
        memory.explained("stage evaluate", parts, knobs.of_stage(quick_config(), "evaluate")),
    ):
        np.ones(1 << 45, np.uint8)


def test_what_is_asked_for_in_advance(monkeypatch):
    free = memory.available()
    assert free is None or 1e7 < free < HUGE
    memory.check(1000, "a cache", "nothing")
    monkeypatch.setattr(memory, "available", lambda: 2 * memory.GIB)
    message = r"too little memory for a cache; got 2.00 GiB free of 3.00 GiB needed; do this$"
    with pytest.raises(memory.OutOfMemory, match=message):
        memory.check(3 * memory.GIB, "a cache", "do this")
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.check(HUGE, "a cache", "nobody knows")


def test_other_errors_stay():
    with pytest.raises(ZeroDivisionError), memory.explained("x", {}, ()):
        _ = 1 / 0
    with (
        pytest.raises(memory.OutOfMemory, match=r"outer: out of memory; got no bytes; it needs"),
        memory.explained("outer", {"a": 5 << 30}, ()),
    ):
        raise MemoryError("no bytes")


def test_what_helps():
    config = quick_config(train__fsdp=1, distill__batch_size=32)
    said = knobs.of_training(config, "distill", devices=4)
    assert [knob.split("=")[0] for knob in said] == [
        "--config.distill.accum_steps",
        "--config.distill.remat",
        "--config.train.cache_on_device_gigabytes",
        "--config.method.frozen_dtype",
        "--config.student.dtype",
        "--config.train.fsdp",
        "--config.distill.batch_size",
        "a smaller data.image_size, or a smaller model",
    ]
    tight = quick_config(teacher__remat=True, teacher__dtype="bfloat16", teacher__accum_steps=4)
    said = knobs.of_training(tight, "teacher", devices=1)
    assert said[0].startswith("--config.teacher.accum_steps=8")
    assert len(said) == 3
    half = config.evaluate.batch_size // 2
    assert knobs.of_stage(config, "evaluate")[0] == f"--config.evaluate.batch_size={half}"
    assert knobs.of_stage(config, "cache")[0] == "--config.distill.batch_size=16"
    assert knobs.of_stage(config, "report") == ()


def test_bytes_of_a_tree():
    state = TrainState.create({"w": jnp.ones((3, 5))}, OPTIMIZER)
    assert memory.nbytes(state.params) == 60
    assert memory.nbytes(jax.eval_shape(lambda: state.params)) == 60
