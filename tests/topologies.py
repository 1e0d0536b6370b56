"""Runs the same training on other numbers of devices and processes, and reads what came out."""

import os
import socket
import subprocess

import numpy as np
from runs import ROOT, command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from robust_jax.hosts import VARIABLES

TIMEOUT = 900


def to_distill(steps):
    """Options of a run that is soon in `distill`, and takes so many steps there."""
    return (
        "--config.stages=('pretrain','distort','teacher','cache','distill')",
        "--config.pretrain.total_steps=4",
        "--config.teacher.total_steps=4",
        f"--config.distill.total_steps={steps}",
        "--config.cache.use=true",
    )


def run(workdir, *options, devices=1, processes=1):
    """Trains with so many fake devices in each of so many processes."""
    argv = command(workdir, *options, *(["--distributed"] if processes > 1 else []))
    address = f"localhost:{free_port()}"
    started = []
    for index in range(processes):
        variables = {**os.environ, **environment(address, processes, index, devices)}
        process = subprocess.Popen(
            argv, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        started.append(process)
    said = []
    try:
        said = [process.communicate(timeout=TIMEOUT)[0].decode() for process in started]
    finally:
        for process in started:
            process.kill()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text
    return said


def environment(address, processes, index, devices):
    """The variables of one of several processes with so many fake devices each."""
    return {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        **dict(zip(VARIABLES, (address, str(processes), str(index)), strict=True)),
    }


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def losses(workdir, name):
    """The loss of every step of a training, f64[n]."""
    events = EventAccumulator(str(workdir / "tb" / name), size_guidance={"tensors": 0})
    events.Reload()
    found = {
        e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors("loss")
    }
    return np.array([found[step] for step in sorted(found)])
