"""A workdir in use, or one that cannot be written, is refused before anything is read."""

import errno
import os
import subprocess
import sys

import pytest
from runs import ROOT, command, quick_config, run

from robust_jax import claim

HOLD = """
import sys
from robust_jax import claim
with claim.of(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(workdir):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_another_run_has_it(tmp_path):
    holder = hold(tmp_path / "run")
    try:
        message = (
            rf"another run uses this workdir; got .*run, which process {holder.pid} on .* hold"
        )
        with pytest.raises(ValueError, match=message):
            run(quick_config(), tmp_path / "run")
        found = subprocess.run(
            command(tmp_path / "run"), cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert found.returncode == 1
        assert "another run uses this workdir" in found.stderr
        assert "reading the data" not in found.stdout
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["lock"]
    finally:
        holder.kill()
        holder.wait()
    with claim.of(tmp_path / "run"):  # a killed run leaves no claim
        pass


def test_a_claim_ends(tmp_path):
    for _ in range(2):
        with claim.of(tmp_path / "deep" / "run"):
            assert (tmp_path / "deep/run/lock").read_text() == (
                f"process {os.getpid()} on {os.uname().nodename}"
            )


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with claim.of(tmp_path):
        pass
    assert "is on a disk without locks (No locks available)" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["file/run", "file"])
def test_it_cannot_be_written(tmp_path, where):
    (tmp_path / "file").write_text("")
    message = (
        r"the workdir cannot be written; got .*file.* \((Not a dir|File exists).*; use another"
    )
    with pytest.raises(ValueError, match=message):
        run(quick_config(), tmp_path / where)


def test_a_read_only_disk(tmp_path):
    with pytest.raises(ValueError, match=r"the workdir cannot be written; got /proc/run \("):
        run(quick_config(), "/proc/run")
