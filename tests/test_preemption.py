"""SIGTERM to one of two processes, and to the only one of a cluster: all save and say so."""

import os
import signal
import subprocess
import time

import pytest
from runs import ROOT, command
from topologies import environment, free_port, to_distill

STEPS = 6000
OPTIONS = (
    *to_distill(STEPS),
    f"--config.train.checkpoint_every_steps={STEPS}",
)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_hosts_stop_together_and_go_on(tmp_path, processes):
    argv = command(tmp_path / "run", *OPTIONS, "--distributed")

    def start():
        address = f"localhost:{free_port()}"
        return [
            subprocess.Popen(
                argv,
                cwd=ROOT,
                env={**os.environ, **environment(address, processes, index, devices=1)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for index in range(processes)
        ]

    started = start()
    try:
        events = tmp_path / "run" / "tb" / "distill"
        end = time.monotonic() + 400
        while not events.exists():
            assert all(process.poll() is None for process in started)
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(3)  # it is training
        started[-1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=400)[0].decode() for process in started]
        assert [process.returncode for process in started] == [75] * processes, said
        assert "distill/ours: asked to stop; saved step" in said[0]
        started = start()
        said = [process.communicate(timeout=400)[0].decode() for process in started]
        assert [process.returncode for process in started] == [0] * processes, said
        assert "distill/ours: resumed at step" in said[0]
    finally:
        for process in started:
            process.kill()
            process.wait()
