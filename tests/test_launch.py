import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from launch_world import (
    LAUNCH,
    MAIN,
    METHODS,
    PROGRAM,
    lines,
    make_world,
    read_until,
    script,
    wait_for,
)
from runs import ROOT

INSTALL = "-r requirements.txt -r requirements-cuda.txt -c constraints.txt"


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck():
    files = sorted(str(path) for path in LAUNCH.iterdir() if path.name != "Dockerfile")
    subprocess.run(["shellcheck", "-x", "-P", str(LAUNCH), *files], check=True, cwd=ROOT)


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


def test_the_documentation_names_what_is_there():
    text = (ROOT / "docs" / "launch.md").read_text()
    assert {LAUNCH / name for name in re.findall(r"launch/(\w+\.\w+)", text)} < set(
        LAUNCH.iterdir()
    )
    table = text[text.index("## Troubleshooting") :]
    messages = re.findall(r"^\| `(.*?)`", table, re.M)[:-1]  # the last is JAX's
    files = [*LAUNCH.iterdir(), *(ROOT / "robust_jax").rglob("*.py")]
    sources = "".join(file.read_text() for file in files)
    sources = sources.replace("{VARIABLES[2]}", "ROBUST_JAX_PROCESS")
    sources = sources.replace("{', '.join(VARIABLES)}", "ROBUST_JAX_COORDINATOR, …")
    sources = sources.replace("$code after $restarts", "1 after 5")
    for message in messages:
        assert message in sources


class TestRestart:
    def test_starts_again(self, world):
        world.codes("75 3 75 75 0 9")
        command = ["--", world.env["FAKE_PYTHON"], *MAIN]
        said = world.run("restart.sh", *command, RESTARTS="1")
        assert world.ran() == [MAIN] * 5
        assert "failed with exit code 3; restart 1 of 1" in said.stderr
        assert said.stderr.count("it was stopped and has saved a checkpoint") == 3

    def test_gives_up(self, world):
        world.codes("3 4 5 6")
        command = ["--", world.env["FAKE_PYTHON"], *MAIN]
        said = world.run("restart.sh", *command, RESTARTS="2", code=5)
        assert "failed with exit code 5 after 2 restarts; giving up" in said.stderr

    @pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
    def test_is_stopped(self, world, sent):
        world.codes("hang")
        running = world.start("restart.sh", "--", world.env["FAKE_PYTHON"], *MAIN)
        read_until(running, "said by the program")
        running.send_signal(sent)
        said, _ = running.communicate(timeout=30)
        assert running.returncode == 75
        assert "stopped (exit code 75)" in said
        assert len(world.ran()) == 1

    @pytest.mark.parametrize("code", [0, 75])
    def test_what_ends_while_it_is_asked_to_tells_its_exit_code(self, world, code):
        program = f"trap 'exit {code}' TERM; echo up; while true; do sleep 0.1; done"
        # As on a busy machine: the command has ended before the script goes on.
        kill = '() { builtin kill "$@" || return; [[ $1 == -0 ]] || sleep 1; }'
        slow = {"BASH_FUNC_kill%%": kill}
        running = world.start("restart.sh", "--", "bash", "-c", program, **slow)
        read_until(running, "up")
        running.terminate()
        said, _ = running.communicate(timeout=30)
        assert running.returncode == code
        assert ("stopped (exit code 75)" in said) == (code == 75)

    def test_kills_what_does_not_stop(self, world):
        stuck = "trap '' TERM; echo up; while true; do sleep 0.1; done"
        running = world.start("restart.sh", "--", "bash", "-c", stuck, GRACE="1")
        read_until(running, "up")
        running.terminate()
        said, _ = running.communicate(timeout=30)
        assert running.returncode == 75
        assert "stopped (exit code 137)" in said

    def test_detached(self, world):
        state = str(world.root / "state dir")
        world.codes("hang 7 7")
        command = ["--detach", state, "--", world.env["FAKE_PYTHON"], *MAIN]
        assert world.run("restart.sh", "--status", state).stdout == "absent\n"
        world.run("restart.sh", *command)
        wait_for(lambda: len(world.ran()) == 1)
        assert world.run("restart.sh", "--status", state).stdout == "running\n"
        assert "runs already" in world.run("restart.sh", *command).stderr
        wait_for(lambda: "said" in (world.root / "state dir" / "log").read_text())
        world.run("restart.sh", "--stop", state)
        assert world.run("restart.sh", "--status", state).stdout == "exit 75\n"
        world.run("restart.sh", *command, RESTARTS="1")
        wait_for(lambda: world.run("restart.sh", "--status", state).stdout == "exit 7\n")
        assert world.ran() == [MAIN] * 3


class TestLocal:
    @pytest.fixture(autouse=True)
    def real_python(self, world):
        world.env["PYTHON"] = sys.executable

    def test_each_process_knows_its_place(self, world, tmp_path):
        show = (
            "import os, sys; n = os.environ; print(n['ROBUST_JAX_COORDINATOR'], "
            "n['ROBUST_JAX_PROCESSES'], n['ROBUST_JAX_PROCESS'], sys.argv[1:], end='\\rlast')"
        )
        logs = tmp_path / "some logs"
        said = world.run(
            "local.sh", "3", "--logs", str(logs), "--", sys.executable, "-c", show, METHODS
        )
        found = sorted(said.stdout.splitlines())
        address = next(word for word in found[0].split() + found[1].split() if ":" in word)
        assert address.startswith("localhost:")
        expected = [f"{address} 3 {i} {[METHODS]}" for i in range(3)]
        assert found == sorted(f"[{i}] {x}" for i in range(3) for x in (expected[i], "last"))
        for i in range(3):
            assert (logs / f"{i}.log").read_bytes().decode() == expected[i] + "\rlast"

    def test_first_failure_ends_the_others(self, world):
        program = (
            "import os, sys, time; i = os.environ['ROBUST_JAX_PROCESS']; "
            "sys.exit('broken') if i == '1' else time.sleep(60)"
        )
        began = time.monotonic()
        said = world.run("local.sh", "3", "--", sys.executable, "-c", program, code=1)
        assert time.monotonic() - began < 50
        assert "[1] broken" in said.stdout
        assert "process 1 failed with exit code 1; ending the others" in said.stderr

    def test_is_stopped(self, world):
        program = (
            "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); "
            "print('up'); time.sleep(60)"
        )
        running = world.start("local.sh", "2", "--", sys.executable, "-c", program)
        read_until(running, "[0] up")
        running.terminate()
        running.communicate(timeout=30)
        assert running.returncode == 75

    def test_real_processes_add_up(self, world):
        program = (
            "import jax, jax.numpy as jnp\n"
            "from robust_jax import hosts\n"
            "hosts.connect()\n"
            "from jax.experimental import multihost_utils as m\n"
            "ones = jnp.full(3, 1 + jax.process_index())\n"
            "print(jax.process_count(), m.process_allgather(ones).sum())\n"
        )
        env = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
        said = world.run("local.sh", "2", "--", sys.executable, "-c", program, **env)
        assert "[0] 2 9" in said.stdout.splitlines()
        assert "[1] 2 9" in said.stdout.splitlines()


class TestGpu:
    def test_dry_run(self, world):
        python, pip = ".venv/bin/python", [".venv/bin/python", "-m", "pip", "install", "--quiet"]
        restart = str(world.repo / "launch" / "restart.sh")
        assert world.printed("gpu.sh", "--dry-run", *PROGRAM, PYTHON="python9") == [
            ["python9", "-m", "venv", ".venv"],
            [*pip, *INSTALL.split()],
            [*pip, "--no-deps", "--editable", "."],
            ["touch", ".venv/cuda"],
            [restart, "--", python, *MAIN],
        ]
        assert not (world.repo / ".venv").exists()

    def test_installs_once_and_runs(self, world):
        script(world.root / "bin" / "nvidia-smi", "")
        world.codes("75 0 0")
        world.run("gpu.sh", *PROGRAM)
        world.run("gpu.sh", *PROGRAM)
        assert world.ran() == [MAIN] * 3
        assert sum('"pip"' in line for line in lines(world.root / "hosts" / "0" / "ran")) == 2

    def test_without_a_gpu(self, world):
        script(world.root / "bin" / "nvidia-smi", "import sys; sys.exit(9)")
        assert "no NVIDIA GPU; got an error" in world.run("gpu.sh", *PROGRAM, code=2).stderr


RUN = ["tpu_vm.sh", "run", "mine", "--"]


@pytest.mark.parametrize(
    ("command", "env", "message"),
    [
        (["local.sh", "two", "--", "true"], {}, "N is not a number of processes; got 'two'; write"),
        (["local.sh", "2", "true"], {}, "no command; got 'true'; write: launch/local.sh N"),
        (["local.sh", "2", "--logs", "--", "a"], {}, "--logs has no directory; got '--'"),
        (["restart.sh", "--"], {}, "no command; got '--'; write: launch/restart.sh"),
        (["restart.sh", "--detach"], {}, "--detach has no directory; got ''; write --detach DIR"),
        (["restart.sh", "--", "true"], {"RESTARTS": "x"}, "are whole numbers; got 'x'"),
        (["gpu.sh", "--workdir", "d"], {}, "no config; got no --config for launch/gpu.sh"),
        (["gpu.sh", "--config=c", "--workdir"], {}, "--workdir has no value"),
        (["gpu.sh", "--config=c", "d"], {}, "unexpected argument of launch/gpu.sh; got 'd'"),
        (["slurm.sbatch", "--config=c"], {}, "no workdir; got no --workdir for launch/slurm"),
        (["slurm.sbatch", "--config=c", "--workdir=d"], {}, "no interpreter; got .venv/bin/python"),
        (["tpu_vm.sh", "start"], {}, "unknown verb; got 'start'; use one of create, setup"),
        (["tpu_vm.sh", "create"], {}, "no name of the TPU VM; got ''"),
        (["tpu_vm.sh", "create", "mine"], {"TPU_ZONE": ""}, "no zone; got no TPU_ZONE; set it"),
        (["tpu_vm.sh", "create", "mine"], {"TPU_TYPE": ""}, "accelerator-types list --zone=us-a1"),
        (
            ["tpu_pod.sh", "create", "mine"],
            {"TPU_RUNTIME": ""},
            "tpu-vm versions list --zone=us-a1",
        ),
        (["tpu_vm.sh", "delete", "mine", "x"], {}, "unexpected arguments of delete; got 'x'"),
        (["tpu_vm.sh", "run", "mine"], {}, "no arguments of the program; got ''"),
        ([*RUN, "--config=c", "--workdir=runs/a"], {}, "lost with the VM; got --workdir runs/a"),
    ],
)
def test_messages(world, command, env, message):
    assert message in world.run(*command, code=2, **env).stderr
