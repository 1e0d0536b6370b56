"""One of two processes is killed: the other ends, says which is lost, and the pair goes on."""

import os
import subprocess
import time

import jax
import numpy as np
import pytest
from runs import ROOT, command, quick_config, tuned
from topologies import environment, free_port, run, to_distill

from robust_jax import heartbeat

BOUND = 240.0  # seconds; it takes 10 to 15 where nothing else runs
STEPS = 1000
OPTIONS = (
    *to_distill(STEPS),
    "--config.train.checkpoint_every_steps=100",
    "--config.train.log_every_steps=20",
)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_it_is_named_and_the_pair_goes_on(tmp_path, victim):
    address = f"localhost:{free_port()}"
    logs = [open(tmp_path / f"log{index}", "w+") for index in range(2)]  # noqa: SIM115
    pair = [
        subprocess.Popen(
            command(tmp_path / "run", *OPTIONS, "--distributed"),
            cwd=ROOT,
            env={**os.environ, **environment(address, 2, index, devices=1)},
            stdout=logs[index],
            stderr=subprocess.STDOUT,
        )
        for index in range(2)
    ]
    try:
        end = time.monotonic() + 400
        while not (tmp_path / "run/distill/ours/checkpoints/200").exists():
            assert all(process.poll() is None for process in pair)
            assert time.monotonic() < end
            time.sleep(0.05)
        pair[victim].kill()
        code = pair[1 - victim].wait(BOUND)
    finally:
        for process in pair:
            process.kill()
            process.wait()
    said = (tmp_path / f"log{1 - victim}").read_text()
    assert code not in (0, 75), said
    if victim == 0:
        assert "failed to send RPC to coordination service', host 0 is lost" in said
        assert "Failed to send RPC to coordination service" in said
    else:
        assert f", process {pair[1].pid}) is lost: no sign of life" in said
        assert "host 1 of 2" in said
    run(tmp_path / "run", *OPTIONS, processes=2)
    run(tmp_path / "whole", *OPTIONS, processes=2)
    config = quick_config(distill__total_steps=STEPS)
    found, wanted = (tuned(tmp_path / name, config) for name in ("run", "whole"))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


class Service:
    """What the hosts share, in this process."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, overwrite):
        assert overwrite
        self.values[key] = value

    def key_value_dir_get(self, prefix):
        return [(k, v) for k, v in self.values.items() if k.startswith(prefix)]


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(heartbeat.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 1))
    return now


def test_silence_is_noticed(clock, monkeypatch, capfd):
    service = Service()
    monkeypatch.setattr(heartbeat, "_client", lambda: service)
    hosts = [heartbeat.Watch(index, 3) for index in range(3)]
    for beat in range(10):
        clock[0] += 2
        for host in hosts:
            host.beat(beat)
    assert hosts[0].silent(5) == []
    for beat in range(10, 20):  # host 2 is gone
        clock[0] += 2
        for host in hosts[:2]:
            host.beat(beat)
    assert hosts[0].silent(10) == hosts[1].silent(10) == [2]
    assert hosts[0].silent(60) == []
    hosts[0].explain(RuntimeError("of its own"))
    assert capfd.readouterr().err == ""
    broken = type("JaxRuntimeError", (RuntimeError,), {})
    hosts[0].explain(broken("connection closed"))
    said = capfd.readouterr().err
    assert "host 2 of 3 (" in said and f"process {os.getpid()}) is lost: no sign of life" in said


def test_the_loss_of_the_service_is_that_of_the_first_host(clock, monkeypatch):
    service = Service()
    monkeypatch.setattr(heartbeat, "_client", lambda: service)
    host = heartbeat.Watch(1, 3)
    monkeypatch.setattr(heartbeat, "_client", lambda: None)
    for beat in range(40):
        clock[0] += 2
        host.beat(beat)
    assert host.silent(60) == [0]
