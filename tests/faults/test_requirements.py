"""constraints.txt pins every package that a requirements file brings, to one exact version."""

import importlib.metadata as metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))
# Those whose packages are installed with --no-deps, at the versions that they name themselves.
WITHOUT_DEPENDENCIES = ("requirements-nodeps.txt", "requirements-pretrained.txt")


def lines(name):
    text = (ROOT / name).read_text()
    found = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in found if line and not line.startswith("#")]


def requirements(name):
    """Those of a file and of the files that it names."""
    found = []
    for line in lines(name):
        more = line.removeprefix("-r ") if line.startswith("-r ") else ""
        found += requirements(more) if more else [Requirement(line)]
    return found


PINS = [Requirement(line) for line in lines("constraints.txt")]
VERSIONS = {canonical(pin.name): str(pin.specifier) for pin in PINS}


def closure(wanted):
    """The names of installed packages that requirements bring, and of what is not installed."""
    found, absent, pending = {}, set(), [(one, None) for one in wanted]
    while pending:
        one, extra = pending.pop()
        if one.marker and not one.marker.evaluate({"extra": extra or ""}):
            continue
        name = canonical(one.name)
        try:
            needs = map(Requirement, metadata.requires(name) or ())
        except metadata.PackageNotFoundError:
            absent.add(name)
            continue
        new = {None, *one.extras} - found.setdefault(name, set())
        found[name] |= new
        needs = list(needs)
        pending += [(need, extra) for extra in new for need in needs]
    return set(found), absent


def test_every_pin_is_one_exact_version():
    assert len(VERSIONS) == len(PINS)
    for pin in PINS:
        assert re.fullmatch(r"==[^,*]+", str(pin.specifier)) and not pin.extras and not pin.marker


@pytest.mark.parametrize("name", [name for name in FILES if name not in WITHOUT_DEPENDENCIES])
def test_what_a_file_brings_is_pinned(name):
    wanted = requirements(name)
    found, absent = closure(wanted)
    if canonical(wanted[0].name) not in found:
        pytest.skip(f"{wanted[0].name} is not installed")
    # Of accelerators, whose packages only their machines have, what is here can be judged.
    missing = sorted(found - VERSIONS.keys())
    assert not missing, f"constraints.txt lacks {missing}"
    for one in wanted:
        pinned = VERSIONS.get(canonical(one.name))
        if pinned:
            assert one.specifier.contains(pinned.removeprefix("=="), prereleases=True), one
    assert canonical(wanted[0].name) not in absent


@pytest.mark.parametrize("name", WITHOUT_DEPENDENCIES)
def test_files_without_dependencies_pin_their_own(name):
    for one in requirements(name):
        assert re.fullmatch(r"==[^,*]+", str(one.specifier)), one


def test_what_is_installed_is_what_is_pinned():
    """The versions that the other tests ran with are the ones in constraints.txt."""
    installed = {}
    for name in VERSIONS:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if VERSIONS["jax"] != f"=={installed.get('jax')}":
        pytest.skip(f"jax {installed.get('jax')} is installed on purpose")
    other = {
        name: version
        for name, version in installed.items()
        if version.partition("+")[0] != VERSIONS[name].removeprefix("==")
    }
    assert not other


def test_nothing_is_pinned_that_nothing_brings():
    wanted = [one for name in FILES for one in requirements(name)]
    found, _ = closure(wanted)
    here = set()
    for name in VERSIONS:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        here.add(name)
    assert not here - found
