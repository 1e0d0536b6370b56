"""The documents as text and as code."""

import re
from typing import NamedTuple

from runs import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]


class Block(NamedTuple):
    """A fenced block: where it stands, the word behind the fence, and what is in it."""

    where: str
    language: str
    text: str


def blocks(path):
    """The fenced blocks of a document."""
    text, name = path.read_text(), path.relative_to(ROOT)
    return [
        Block(f"{name}:{text.count(chr(10), 0, found.start()) + 1}", found[1], found[2])
        for found in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def lines(text):
    """The lines of a block: continued ones joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [re.sub(r"(^|  )#.*", "", line).rstrip() for line in joined.splitlines()]


def without_code(path):
    """The text of a document between its fenced blocks."""
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)


def code(path):
    """The lines of a document's fenced blocks, and its inline code."""
    inline = re.findall(r"`([^`\n]+)`", without_code(path))
    fenced = [line for block in blocks(path) for line in lines(block.text)]
    return fenced + [one.replace(r"\|", "|") for one in inline]
