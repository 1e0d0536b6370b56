"""Commands that stand for gcloud, srun and Python, so that launch scripts run without a cloud."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from runs import ROOT

LAUNCH = ROOT / "launch"
# What the scripts take from whoever starts them; `make test PYTHON=...` sets one of them.
SETTINGS = {
    name
    for path in LAUNCH.iterdir()
    for name in re.findall(r"\$\{([A-Z_]+):-", path.read_text())
    if name != "TMPDIR"
}
METHODS = """--config.baselines.methods=("apt","it's $HOME")"""
PROGRAM = ["--config", "configs/x.py:a=1", "--workdir=gs://bucket/my run", METHODS]
MAIN = ["-m", "robust_jax.main", *PROGRAM]
TPU = {"TPU_ZONE": "us-a1", "TPU_TYPE": "v5litepod-8", "TPU_RUNTIME": "an-image", "POLL": "0.2"}

# Every host is a directory, which is the home of what runs there.
GCLOUD = """
import json, os, pathlib, shutil, subprocess, sys
root, args = pathlib.Path(os.environ["FAKE"]), sys.argv[1:]
with open(root / "calls", "a") as calls:
    calls.write(json.dumps(args) + "\\n")
group, verb, rest = args[2], args[3], args[4:]
flags = dict(a[2:].split("=", 1) for a in rest if a.startswith("--") and "=" in a)
plain = [a for a in rest if not a.startswith("--")]
hosts, state = root / "hosts", root / "state"
if verb == "create":
    for i in range(int(os.environ.get("HOSTS", "1"))):
        (hosts / str(i)).mkdir(parents=True, exist_ok=True)
    state.write_text("READY")
elif verb == "delete":
    shutil.rmtree(hosts, ignore_errors=True)
    state.unlink()
elif verb == "describe":
    queue = root / "states"
    if queue.exists() and (said := queue.read_text().split()):
        queue.write_text(" ".join(said[1:]))
        state.write_text(said[0])
    if not state.exists():
        sys.exit("ERROR: NOT_FOUND: no such node")
    print(state.read_text())
else:
    codes = []
    for home in sorted(hosts.iterdir()) if flags["worker"] == "all" else [hosts / "0"]:
        if verb == "scp":
            shutil.copy(plain[0], home / plain[1].split(":")[1])
        else:
            env = {**os.environ, "HOME": str(home)}
            command = ["bash", "-c", flags["command"]]
            codes.append(subprocess.run(command, cwd=home, env=env).returncode)
    sys.exit(max(codes, default=0))
"""
# Writes its arguments to $HOME/ran; its exit codes are the words of $HOME/../../codes.HOST.
PROGRAM_STUB = """
import json, os, pathlib, signal, sys, time
home = pathlib.Path(os.environ["HOME"])
with open(home / "ran", "a") as ran:
    ran.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[2] == "pip":
    sys.exit()
codes = home.parents[1] / f"codes.{home.name}"
left = codes.read_text().split() if codes.exists() else []
codes.write_text(" ".join(left[1:]))
code = left[0] if left else "0"
if code == "hang":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("said by the program", flush=True)
if code == "hang":
    time.sleep(60)
sys.exit(int(code))
"""
PYTHON3_STUB = """
import os, pathlib, sys
if sys.argv[1:3] == ["-m", "venv"]:
    python = pathlib.Path(sys.argv[3]) / "bin" / "python"
    python.parent.mkdir(parents=True)
    os.symlink(os.environ["FAKE_PYTHON"], python)
"""


def make_world(tmp_path):
    """A small copy of the repository, and commands that stand for gcloud, srun and others."""
    repo, bin_dir = tmp_path / "repo", tmp_path / "bin"
    shutil.copytree(LAUNCH, repo / "launch")
    bin_dir.mkdir()
    (tmp_path / "hosts" / "0").mkdir(parents=True)
    for name in ("requirements.txt", "requirements-cuda.txt", "constraints.txt"):
        (repo / name).write_text("")
    script(bin_dir / "gcloud", GCLOUD)
    script(bin_dir / "python3", PYTHON3_STUB)
    script(tmp_path / "python_stub", PROGRAM_STUB)
    return World(tmp_path)


def script(path, text):
    """Writes an executable Python script."""
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


class World:
    def __init__(self, root):
        self.root, self.repo = root, root / "repo"
        self.env = {
            **{name: value for name, value in os.environ.items() if name not in SETTINGS},
            **TPU,
            "COLUMNS": "80",  # of a terminal, at which ps cuts what it prints
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "HOME": str(root / "hosts" / "0"),
            "FAKE": str(root),
            "FAKE_PYTHON": str(root / "python_stub"),
            "PAUSE": "0",
        }

    def run(self, name, *args, code=0, **env):
        """Runs a launch script and returns what it printed."""
        command = [str(self.repo / "launch" / name), *args]
        ended = subprocess.run(
            command, cwd=self.repo, env=self.env | env, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended

    def start(self, *command, **env):
        """Starts a launch script without waiting for its end."""

        def heed_interrupts():  # ignored in what a shell has started in the background
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [str(self.repo / "launch" / command[0]), *command[1:]]
        return subprocess.Popen(
            command, cwd=self.repo, env=self.env | env, preexec_fn=heed_interrupts, **pipe
        )

    def printed(self, name, *args, **env):
        """The commands that a dry run prints, each as a shell understands it."""
        lines = self.run(name, *args, **env).stdout.splitlines()
        return [shell_words(line) for line in lines]

    def calls(self, verb):
        """The arguments of the calls of gcloud with this verb."""
        calls = [json.loads(line) for line in (self.root / "calls").read_text().splitlines()]
        return [call for call in calls if call[3] == verb]

    def ran(self, host=0):
        """The arguments of each run of the program on a host."""
        found = lines(self.root / "hosts" / str(host) / "ran")
        return [args for args in map(json.loads, found) if args[1] == "robust_jax.main"]

    def codes(self, codes, host=0):
        (self.root / f"codes.{host}").write_text(codes)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def shell_words(line):
    """The arguments that bash makes of a line."""
    show = f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "
    said = subprocess.run(["bash", "-c", show + line], capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_until(running, line, times=1):
    """Reads what a started script prints up to a line."""
    for said in running.stdout:
        times -= said == line + "\n"
        if not times:
            return
    raise AssertionError(f"it ended without saying {line!r}")
