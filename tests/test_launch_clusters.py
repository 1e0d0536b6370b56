import os
import signal

import pytest
from launch_world import (
    GCLOUD,
    MAIN,
    PROGRAM,
    make_world,
    read_until,
    script,
    shell_words,
    wait_for,
)

SRUN = """
import json, os, sys
print(json.dumps(sys.argv[1:2]), os.environ.get("JAX_LOCAL_DEVICE_IDS"), flush=True)
os.execv(sys.argv[2], sys.argv[2:])
"""
DETACHED = "launch/restart.sh --detach ../robust_jax_run -- .venv/bin/python"


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


def make_tpu(world, name, hosts):
    world.run(name, "create", "mine", HOSTS=str(hosts))
    world.run(name, "setup", "mine")


@pytest.mark.parametrize(
    ("name", "worker", "more"),
    [("tpu_vm.sh", "0", []), ("tpu_pod.sh", "all", ["--distributed"])],
)
def test_dry_run(world, name, worker, more):
    start, queue = "gcloud compute tpus tpu-vm", "gcloud compute tpus queued-resources"
    env = {"DRY_RUN": "1", "TPU_SPOT": "1", "TPU_PROJECT": "ours"}
    where = ["--zone=us-a1", "--project=ours"]
    made = "mine --accelerator-type=v5litepod-8 --version=an-image --spot"
    assert world.printed(name, "create", "mine", **env) == [
        [*f"{start} create {made}".split(), *where]
    ]
    assert world.printed(name, "delete", "mine", **env) == [
        [*f"{start} delete mine --quiet".split(), *where]
    ]
    made = "mine --node-id=mine --accelerator-type=v5litepod-8 --runtime-version=an-image"
    queued = env | {"TPU_QUEUED": "1"}
    assert world.printed(name, "create", "mine", **queued) == [
        [*f"{queue} create {made} --spot".split(), *where]
    ]
    assert world.printed(name, "delete", "mine", **queued) == [
        [*f"{queue} delete mine --force --quiet".split(), *where]
    ]
    tar, scp, ssh = world.printed(name, "setup", "mine", "--dry-run")
    assert tar[0] == "tar"
    assert scp[3:5] == ["tpu-vm", "scp"]
    assert scp[6:8] == ["mine:robust_jax.tgz", f"--worker={worker}"]
    assert "pip -r requirements.txt -r requirements-tpu.txt -c constraints.txt" in ssh[7]
    for verb in ("run", "resume"):
        (ssh,) = world.printed(name, verb, "mine", "--", *PROGRAM, **env)
        command = ssh.pop(7)
        assert ssh == [*f"{start} ssh mine --worker={worker}".split(), *where]
        change, restart = command.removeprefix("--command=").split(" && ", 1)
        assert change == "cd robust_jax"
        assert shell_words(restart)[4:] == [
            *DETACHED.split(),
            *MAIN,
            *more,
        ]
    assert not (world.root / "calls").exists()


def test_life_of_a_vm(world):
    make_tpu(world, "tpu_vm.sh", 1)
    assert (world.root / "hosts/0/robust_jax/launch/tpu.sh").exists()
    world.codes("hang 3 0")
    # It is preempted while it runs: all that was on it is lost.
    (world.root / "states").write_text("READY READY PREEMPTED READY CREATING READY")
    said = world.run("tpu_vm.sh", "run", "mine", "--", *PROGRAM)
    assert "mine was preempted; making it again" in said.stderr
    assert "launch: finished" in said.stderr
    assert world.ran() == [MAIN] * 2
    assert [len(world.calls(verb)) for verb in ("create", "delete", "scp")] == [2, 1, 2]
    assert "said by the program" in world.run("tpu_vm.sh", "logs", "mine").stdout
    world.run("tpu_vm.sh", "delete", "mine")
    assert not (world.root / "hosts").exists()


def test_what_a_reboot_ended_is_started_again(world):
    make_tpu(world, "tpu_vm.sh", 1)
    world.codes("hang 0")
    running = world.start("tpu_vm.sh", "run", "mine", "--", *PROGRAM)
    wait_for(world.ran)
    os.killpg(int((world.root / "hosts/0/robust_jax_run/pid").read_text()), signal.SIGKILL)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "it was interrupted; starting it again" in said
    assert world.ran() == [MAIN] * 2


def test_pod_runs_everywhere_and_starts_what_was_stopped(world):
    make_tpu(world, "tpu_pod.sh", 2)
    world.codes("75 0", 0)
    world.codes("3 75 0", 1)
    said = world.run("tpu_pod.sh", "resume", "mine", "--", *PROGRAM)
    assert "launch: finished" in said.stderr
    assert world.ran(0) == [[*MAIN, "--distributed"]] * 2
    assert world.ran(1) == [[*MAIN, "--distributed"]] * 3
    logs = world.run("tpu_pod.sh", "logs", "mine").stdout.splitlines()
    assert sum(line.endswith(": said by the program") for line in logs) == 5


def test_pod_stops_where_one_worker_gives_up(world):
    make_tpu(world, "tpu_pod.sh", 2)
    world.codes("hang", 0)
    world.codes("9 9", 1)
    said = world.run("tpu_pod.sh", "run", "mine", "--", *PROGRAM, RESTARTS="1", code=9)
    assert "a worker has failed; stopping all" in said.stderr
    state = str(world.root / "hosts/0/robust_jax_run")
    assert world.run("restart.sh", "--status", state).stdout == "exit 75\n"


def test_gcloud_that_does_not_answer_deletes_nothing(world):
    make_tpu(world, "tpu_vm.sh", 1)
    world.codes("0")
    gcloud = world.root / "bin" / "gcloud"
    lost = "import os, sys\nif 'describe' in sys.argv and not os.path.exists('asked'):\n"
    lost += "    open('asked', 'w'); sys.exit('ERROR: no network')\n"
    script(gcloud, lost + GCLOUD)
    said = world.run("tpu_vm.sh", "run", "mine", "--", *PROGRAM)
    assert "gcloud does not answer: ERROR: no network" in said.stderr
    assert not world.calls("delete")


def test_gone(world):
    said = world.run("tpu_vm.sh", "run", "mine", "--", *PROGRAM, code=2)
    assert "no such TPU VM; got mine in us-a1; make it" in said.stderr


class TestSlurm:
    def prepare(self, world):
        bin_dir = world.repo / ".venv" / "bin"
        bin_dir.mkdir(parents=True)
        os.symlink(world.root / "python_stub", bin_dir / "python")
        script(world.root / "bin" / "srun", SRUN)
        script(world.root / "bin" / "scontrol", "import sys; print(*sys.argv[1:])")
        return {
            "SLURM_JOB_ID": "41",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_SUBMIT_DIR": str(world.repo),
        }

    def test_runs_one_task_a_node_with_all_gpus(self, world):
        env = self.prepare(world)
        world.codes("1 0")
        said = world.run("slurm.sbatch", *PROGRAM, **env)
        assert world.ran() == [[*MAIN, "--distributed"]] * 2
        assert '["--kill-on-bad-exit=1"] 0,1,2,3' in said.stdout.splitlines()
        assert "requeue" not in said.stdout

    def test_is_queued_again(self, world):
        env = self.prepare(world)
        world.codes("hang")
        running = world.start("slurm.sbatch", *PROGRAM, **env)
        read_until(running, "said by the program")
        running.terminate()
        said, _ = running.communicate(timeout=30)
        assert running.returncode == 75
        assert "requeue 41" in said.splitlines()

    def test_failures_are_not_queued_again(self, world):
        env = self.prepare(world)
        world.codes("5 5")
        assert (
            "requeue" not in world.run("slurm.sbatch", *PROGRAM, RESTARTS="1", code=5, **env).stdout
        )
