"""Prompt templates and class names, from files of the user or of an installed open_clip_torch."""

import ast
import re
import string
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from robust_jax.zero_shot.installed import installed_file

SLOT = "{}"
# Names of open_clip_torch's lists: the 80 templates of Radford et al. 2021 for ImageNet, and the 7
# that their notebook finds to be the best.
OPEN_CLIP_TEMPLATES = {
    "openai_80": "OPENAI_IMAGENET_TEMPLATES",
    "simple_7": "SIMPLE_IMAGENET_TEMPLATES",
}
TEMPLATES = {"none": (SLOT,), "photo": ("a photo of a {}.",)}
IMAGENET = "imagenet"


def templates(name_or_file: str) -> tuple[str, ...]:
    """Prompt templates in which `{}` stands for the class.

    Args:
      name_or_file: "openai_80", "simple_7", "photo", "none" (the class name alone), or the path of
        a text file with one template a line.
    """
    if name_or_file in TEMPLATES:
        return TEMPLATES[name_or_file]
    if name_or_file in OPEN_CLIP_TEMPLATES:
        return _open_clip(OPEN_CLIP_TEMPLATES[name_or_file], _template)
    known = ", ".join((*OPEN_CLIP_TEMPLATES, *TEMPLATES))
    lines = _lines(name_or_file, f"templates: one of {known}, or a file with one a line")
    for number, line in enumerate(lines, start=1):
        if line.count(SLOT) != 1:
            raise ValueError(
                f"a template needs {SLOT} once, where the class goes; got {line!r} in line "
                f"{number} of {name_or_file!r}; write it like 'a photo of a {SLOT}.'"
            )
    return lines


def class_names(name_or_file: str) -> tuple[str, ...]:
    """Names of the classes, in the order of the labels.

    Args:
      name_or_file: "imagenet" for its 1000 classes, or the path of a text file with one class a
        line, whose aliases are separated by commas.
    """
    if name_or_file == IMAGENET:
        return _open_clip("IMAGENET_CLASSNAMES", _constant)
    lines = _lines(name_or_file, f"class names: {IMAGENET}, or a file with one class a line")
    for number, line in enumerate(lines, start=1):
        if not all(alias.strip() for alias in line.split(",")):
            raise ValueError(
                f"an empty alias; got {line!r} in line {number} of {name_or_file!r}; "
                "write each class as NAME or NAME, ALIAS"
            )
    return lines


def aliases(class_name: str) -> tuple[str, ...]:
    """The names of one class, which commas separate (as in big_vision)."""
    return tuple(alias.strip() for alias in class_name.split(","))


def prompts(class_name: str, prompt_templates: Iterable[str]) -> tuple[str, ...]:
    """Every template filled with every alias of a class."""
    return tuple(t.replace(SLOT, alias) for alias in aliases(class_name) for t in prompt_templates)


def canonical(texts: Sequence[str], keep: str) -> tuple[str, ...]:
    """Texts in lower case without punctuation, as LiT is evaluated (big_vision).

    Args:
      texts: templates or class names.
      keep: punctuation that stays: "{}" in templates, "," in class names.
    """
    cleaned = tuple(_canonical(text, keep) for text in texts)
    for text, result in zip(texts, cleaned, strict=True):
        if not result.strip(","):
            raise ValueError(f"nothing but punctuation; got {text!r}; write it in words")
    return cleaned


def _canonical(text: str, keep: str) -> str:
    dropped = str.maketrans("", "", string.punctuation)
    text = keep.join(part.translate(dropped) for part in text.replace("_", " ").split(keep))
    return re.sub(r"\s+", " ", text).lower().strip()


def _lines(path: str, wanted: str) -> tuple[str, ...]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read this file ({error}); got {path!r}; give {wanted}") from error
    lines = tuple(line.strip() for line in text.splitlines())
    if not lines:
        raise ValueError(f"an empty file; got {path!r}; give {wanted}")
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(
                f"a blank line; got line {number} of {path!r}; take it out: the n-th line is the "
                "n-th entry"
            )
        if line in first:
            raise ValueError(
                f"the same line twice; got {line!r} in lines {first[line]} and {number} of "
                f"{path!r}; make them differ, or take one out"
            )
        first[line] = number
    return lines


def _open_clip(variable: str, read: Callable[[ast.expr], str]) -> tuple[str, ...]:
    """Reads a list of strings out of open_clip's source file, which is parsed and not executed."""
    path = installed_file("zero_shot_metadata.py", ("open_clip_torch",))
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        named = any(isinstance(target, ast.Name) and target.id == variable for target in targets)
        if named and isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.List):
            return tuple(read(element) for element in node.value.elts)
    raise _unexpected(f"no list {variable} in {path}")


def _constant(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise _unexpected(ast.unparse(node))


def _template(node: ast.expr) -> str:
    """`lambda c: f"a photo of a {c}."` to "a photo of a {}."."""
    if not isinstance(node, ast.Lambda) or not isinstance(node.body, ast.JoinedStr):
        raise _unexpected(ast.unparse(node))
    parts = [
        SLOT if isinstance(part, ast.FormattedValue) else _constant(part)
        for part in node.body.values
    ]
    if parts.count(SLOT) != 1:
        raise _unexpected(ast.unparse(node))
    return "".join(parts)


def _unexpected(what: str) -> ValueError:
    return ValueError(
        f"this open_clip_torch writes its lists in an unexpected way; got {what}; install "
        "open_clip_torch 3.3, or give a file of your own"
    )
