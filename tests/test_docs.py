"""The documents against the code: links, commands, keys, paths and messages."""

import ast
import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml
from documents import DOCS, TEXTS, code, without_code
from runs import ROOT

from robust_jax import config as config_lib
from robust_jax import validation
from robust_jax.version import __version__

FOLDERS = "benchmarks|configs|docs|launch|robust_jax|tests"
MAIN_FLAGS = ("config", "workdir", "rerun", "dry_run", "distributed", "shard")
every_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)


def anchors(path):
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(path), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@functools.cache
def keys():
    return frozenset(config_lib.flatten(config_lib.base()))


@functools.cache
def sections():
    parts = [key.split(".") for key in keys()]
    return frozenset(".".join(p[:i]) for p in parts for i in range(1, len(p)))


@every_text
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(path))
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_document_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    missing = [path.name for path in DOCS if path.name != "README.md" and path.name not in index]
    assert not missing


@every_text
def test_commands_exist_with_their_options(path):
    for line in code(path):
        for module, rest in re.findall(r"python -m (robust_jax(?:\.\w+)*)([^|;&]*)", line):
            found = importlib.util.find_spec(module)
            assert found, line
            file = Path(found.origin)
            if found.submodule_search_locations:
                file = file.parent / "__main__.py"
                assert file.exists(), line
            source = file.read_text()
            for option in re.findall(r"(?<=\s)--(\w+)", rest):
                known = MAIN_FLAGS if module == "robust_jax.main" else ()
                assert option in known or f'"--{option}"' in source or option == "help", line


def test_mains_flags_are_those_here():
    source = (ROOT / "robust_jax" / "main.py").read_text()
    assert set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source)) == set(MAIN_FLAGS)


@every_text
def test_config_keys_exist(path):
    text = path.read_text()
    named = set(re.findall(r"--config\.([a-z]\w*(?:\.\w+)*)", text))
    tops = {key.partition(".")[0] for key in keys()} - {"seed", "stages"}
    for one in re.findall(r"`([^`\n]+)`", without_code(path)):
        key = re.match(r"([a-z]\w*(?:\.\w+)+)(?:=.*)?$", one)
        if key and key[1].split(".")[0] in tops and not key[1].endswith((".py", ".npz")):
            named.add(key[1])
    assert not named - keys() - sections()


@every_text
def test_paths_exist(path):
    named = set(re.findall(rf"(?<![\w./])(?:{FOLDERS})/[\w/.-]*\w", without_code(path)))
    named |= {word for line in code(path) for word in re.findall(r"[\w/.-]+", line)}
    files = re.compile(rf"(?:{FOLDERS})/.*\.(py|md|sh|png|sbatch)$")
    places = [name for name in named if files.match(name)]
    missing = [name for name in places if "X.py" not in name and not (ROOT / name).exists()]
    assert not missing


@every_text
def test_named_configs_load(path):
    named = set(re.findall(r"configs/[\w/]+\.py(?::[\w=.,]+)?", path.read_text()))
    for spec in sorted(named):
        file, _, arg = spec.partition(":")
        if "X.py" in file or file in ("configs/recipes.py", "configs/paper/scales.py"):
            continue
        if "recipe=NAME" not in arg:
            config_lib.load(f"{ROOT / file}:{arg}".rstrip(":.,"))


def test_the_config_of_the_document_loads(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/configs.md").read_text(), re.DOTALL)
    file = tmp_path / "mine.py"
    file.write_text(block)
    for arg in ("a=0.25", "a=0.25,runlocal"):
        validation.validate(config_lib.load(f"{file}:{arg}"), config_lib.base())
    assert config_lib.load(f"{file}:a=0.25").augmented.fraction == 0.25


@functools.cache
def said():
    """All text in the package's source, with a gap where something is filled in."""
    texts = []
    for file in sorted((ROOT / "robust_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def quoted_messages():
    found, checked = [], False
    for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines():
        checked = line.startswith("| message |") or (checked and line.startswith("|"))
        if checked and (message := re.match(r"\| `(.+?)` \|", line)):
            found.append(message[1])
    return found


def test_there_are_messages_to_check():
    assert len(quoted_messages()) > 60


@pytest.mark.parametrize("message", quoted_messages())
def test_quoted_messages_are_those_of_the_source(message):
    parts = [part for part in message.split("…") if part]
    assert max(map(len, parts)) >= 10, "too little to tell it from others"
    assert not [part for part in parts if part not in said()]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for path in TEXTS:
        lines = "\n".join(code(path))
        for target in re.findall(r"^make ([a-z][\w-]*)", lines, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{path.name}: {target}"


def test_the_newest_version_of_the_changelog_is_this():
    (newest, *_) = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == __version__


def test_the_citation_is_whole():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert str(cited["version"]) == __version__
    (paper,) = cited["references"]
    assert paper["title"] == "Efficiently Robustify Pre-Trained Models"
    assert len(paper["authors"]) == 4


def test_pre_commit_does_what_make_lint_does():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [" ".join(shlex.split(hook["entry"])) for hook in repository["hooks"]]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    for line in recipe.splitlines():
        command = line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .")
        assert any(entry.startswith(command) for entry in entries), command
