"""Every fenced block of README, CONTRIBUTING and docs/ is run, as somebody in a checkout would."""

import importlib.util
import json
import os
import re
import shutil
import subprocess

import jax
import pytest
import readers_checkout
from document_tables import A_FILE, DOCUMENTS, ELSEWHERE, NEWEST_JAX, PROGRAMS, SMALLER
from documents import DOCS, blocks, lines
from runs import ROOT
from topologies import free_port

pytest_plugins = ["finished_run"]


def here(line):
    """What of a line is run here."""
    for said, run in SMALLER:
        line = re.sub(said, run, line)
    return line


def used(line):
    """The entries of `SMALLER` that change a line."""
    found = set()
    for said, run in SMALLER:
        if re.search(said, line):
            found.add(said)
        line = re.sub(said, run, line)
    return found


def too_new(text):
    """Whether a document rules out for a block what is installed here."""
    version = jax.__version_info__[:2]
    return any(word in text and version > newest for word, newest in NEWEST_JAX.items())


def to_run(name):
    """(where, language, text) of the blocks of a document."""
    found = []
    for block in blocks(ROOT / name):
        text = block.text
        if block.language == "bash":
            text = "\n".join(here(line) for line in lines(text) if line not in ELSEWHERE)
        elif block.language == "python":
            text = "\n".join(map(here, text.splitlines()))
        if block.language == "python" and name in A_FILE:
            text = f"from pathlib import Path\nPath({A_FILE[name]!r}).write_text({text!r})"
        if block.language and text.strip() and not too_new(text):
            found.append((block.where, block.language, text))
    return found


def described():
    """The documents with code that is run, as they are called in `DOCUMENTS`."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
    names = [str(path.relative_to(ROOT)) for path in paths]
    return [name for name in names if any(block.language for block in blocks(ROOT / name))]


def every_line(language="bash"):
    """The lines of all blocks of a language."""
    found = [block for name in described() for block in blocks(ROOT / name)]
    return [line for block in found if block.language == language for line in lines(block.text)]


@pytest.fixture(scope="module")
def programs(finished, tmp_path_factory):
    """Where compiled programs are kept for all documents."""
    found = tmp_path_factory.mktemp("programs") / "xla_cache"
    return shutil.copytree(finished / "xla_cache", found)


@pytest.fixture(scope="module")
def runs():
    """{arguments of `robust_jax.main`: the workdir} of what the documents before have run."""
    return {}


def places(text):
    """(arguments, place) of every run that a text begins."""
    return [
        (found[0], found[1])
        for found in re.finditer(r"--config .*--workdir ([\w/.-]+)(?!\S).*", text)
        if "--dry_run" not in found[0]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_blocks_work(name, finished, programs, runs, tmp_path):
    document, root = DOCUMENTS[name], tmp_path / "checkout"
    for module in document.needs:
        if not importlib.util.find_spec(module):
            pytest.skip(f"{module} is not installed")
    found = to_run(name)
    text = "\n".join(text for *_, text in found)
    makefile = (ROOT / "Makefile").read_text().splitlines()
    root.mkdir()
    readers_checkout.make(root, dict.fromkeys(document.runs, finished))
    (root / "Makefile").write_text("\n".join(map(here, makefile)))
    readers_checkout.write_files(root, text)
    for arguments, place in places(text):
        if (root / place).exists():
            continue
        if arguments in runs:  # finished, so that the command ends soon
            shutil.copytree(runs[arguments], root / place, symlinks=True)
        else:
            (root / place).mkdir(parents=True)
            (root / place / "xla_cache").symlink_to(programs)
    env = readers_checkout.stand_ins(tmp_path / "stand_ins", free_port())
    env["PATH"] = f"{root}/.venv/bin:{env['PATH']}:{os.environ['PATH']}"
    env |= {"TFDS_DATA_DIR": f"{root}/tfds", "JAX_COMPILATION_CACHE_DIR": str(programs)}
    around = [("names", "python", document.names), *found, ("check", "python", document.check)]
    (tmp_path / "blocks.json").write_text(json.dumps(around))
    ended = subprocess.run(
        [".venv/bin/python", ROOT / "tests" / "run_blocks.py", tmp_path / "blocks.json"],
        cwd=root,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    said = re.sub(r"[^\n]*\r", "", ended.stdout)
    assert ended.returncode == 0, said[-6000:]
    print("\n".join(re.findall(r"^--- .* took .*", said, re.MULTILINE)))
    missing = [place for place in document.left if not (root / place).exists()]
    assert not missing, said[-6000:]
    runs |= {arguments: root / place for arguments, place in places(text)}


def test_every_document_with_code_is_described():
    assert sorted(described()) == sorted(DOCUMENTS)


def test_every_block_is_run_or_named():
    for name in described():
        for block in blocks(ROOT / name):
            assert block.language in ("", "bash", "python"), block.where
            for line in lines(block.text):
                known = re.match(PROGRAMS, line) or line in ELSEWHERE or not line
                assert bool(known) == (block.language == "bash") or not line, (block.where, line)
        for where, language, text in to_run(name):
            if language == "python":
                compile(text, where, "exec")


def test_what_is_run_elsewhere_is_run_there():
    makefile = (ROOT / "Makefile").read_text()
    for line, where in ELSEWHERE.items():
        assert line in every_line(), line
        kind, _, name = where.partition(" " if where.startswith("make ") else "::")
        text = makefile if kind == "make" else (ROOT / "tests" / kind).read_text()
        said = rf"^{name}:" if kind == "make" else rf"^ *def {name}\("
        assert re.search(said, text, re.MULTILINE), where


def test_everything_said_here_is_in_a_document():
    said = [*every_line(), *every_line("python")]
    assert set().union(*map(used, said)) == {pattern for pattern, _ in SMALLER}
    text = "\n".join(text for name in described() for *_, text in to_run(name))
    for name in readers_checkout.FILES:
        assert name in text, name
