"""launch/Dockerfile, carried out step by step in an environment of its own."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from runs import ROOT

TEXT = (ROOT / "launch" / "Dockerfile").read_text()
STEPS = [line.split(maxsplit=1) for line in re.findall(r"^[A-Z]+ .*", TEXT, re.MULTILINE)]
IGNORED = (ROOT / ".dockerignore").read_text().split()


def argument(instruction):
    (found,) = [rest for name, rest in STEPS if name == instruction]
    return found


def copied():
    """The top-level names that the image gets, and where each goes."""
    for name, rest in STEPS:
        if name == "COPY":
            *patterns, target = rest.split()
            for pattern in patterns:
                found = sorted(path.name for path in ROOT.glob(pattern))
                assert found, f"COPY {pattern} finds nothing"
                yield from ((one, target) for one in found)


def test_the_context_has_what_is_copied_and_no_more():
    first, *allowed, last = IGNORED
    assert (first, last) == ("*", "**/__pycache__")
    sent = [pattern.removeprefix("!") for pattern in allowed]
    names = [name for name, _ in copied()]
    assert all(any(fnmatch.fnmatch(name, one) for one in sent) for name in names)
    assert all(any(fnmatch.fnmatch(name, one) for name in names) for one in sent)


def test_the_python_is_that_of_the_constraints():
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", argument("FROM"))[1]
    said = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={version}"' in said


@pytest.mark.slow
def test_its_steps_make_a_program_that_runs(tmp_path):
    version = argument("FROM").removeprefix("python:").removesuffix("-slim")
    if sys.version_info[:2] != tuple(map(int, version.split("."))):
        pytest.skip(f"needs Python {version}, with which the image is built")
    root, environment = tmp_path / "image", tmp_path / "environment"
    root.mkdir()
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    env = {
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        **dict(word.split("=", 1) for word in shlex.split(argument("ENV"))),
    }
    for name in ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):  # of this machine
        env |= {name: os.environ[name]} if name in os.environ else {}
    sources = copied()
    for name, rest in STEPS:
        if name == "COPY":
            for _ in range(sum(len(list(ROOT.glob(one))) for one in rest.split()[:-1])):
                source, target = next(sources)
                place = root / target / source if target == "./" else root / target
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, place)
        elif name == "ARG":
            env |= [rest.split("=", 1)]
        elif name == "RUN":
            subprocess.run(["/bin/sh", "-ec", rest], cwd=root, env=env, check=True)
    options = ["--config", "configs/quickstart.py:runlocal", "--workdir", "runs/quickstart"]
    entry = json.loads(argument("ENTRYPOINT"))
    subprocess.run([*entry, *options], cwd=root, env=env, check=True)
    assert (root / "runs" / "quickstart" / "summary.json").exists()
