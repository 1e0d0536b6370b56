"""Writes the tables of docs/*.md that say what the code says: `python docs/make_tables.py`.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; a test compares it with the code.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BASE = ROOT / "configs" / "base.py"
OP_MODULES = ("ops", "augmix", "randaugment")
_TABLE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SHARED = {"_training": "SECTION", "_mixture": "MIXTURE"}  # functions of base.py, in the tables


class Key(NamedTuple):
    """A key of a config section, or a section that a function of configs/base.py makes."""

    name: str
    comment: str
    function: str = ""


def read_base(source: str) -> dict[str, list[Key]]:
    """Returns the keys that each function of configs/base.py sets, in order, with their comments.

    Comments are those of the key's own lines and of the whole lines right above it.
    """
    comments = _comments(source)
    found: dict[str, list[Key]] = {}
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        keys = found.setdefault(function.name, [])
        previous, block = function.lineno, ""
        for node in function.body:
            last = node.end_lineno or node.lineno
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                name = ast.unparse(node.targets[0]).partition(".")[2]
                own = " ".join(comments[n] for n in range(node.lineno, last + 1) if n in comments)
                above = [comments[n] for n in range(previous + 1, node.lineno) if n in comments]
                said = ". ".join(part for part in (own, " ".join(above)) if part)
                block = "as above" if above or (block and not own) else ""
                made_by = node.value.func if isinstance(node.value, ast.Call) else None
                called = made_by.id if isinstance(made_by, ast.Name) else ""
                keys.append(Key(name, said or block, called))
            previous = last
    return found


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def config_table() -> str:
    """Returns the tables of all config keys."""
    from configs import base
    from robust_jax.config import flatten

    defaults = flatten(base.get_config())
    functions = read_base(BASE.read_text())
    users = {
        name: [key for key in functions["get_config"] if key.function == name] for name in _SHARED
    }
    shown_below = {
        f"{section.name}.{key.name}"
        for function, sections in users.items()
        for section in sections
        for key in functions[function]
    }
    rows = []
    for key in functions["get_config"]:
        if key.name in defaults and key.name not in shown_below:
            rows.append((f"`{key.name}`", _code(defaults[key.name]), key.comment))
    parts = [_table(("key", "default", "what it is"), rows)]
    for function, label in _SHARED.items():
        sections = users[function]
        names = [section.name for section in sections]
        parts.append(f"`{label}` is one of {', '.join(f'`{name}`' for name in names)}:")
        parts.append("\n".join(f"- `{s.name}`: {s.comment}" for s in sections if s.comment))
        shared = [
            (
                f"`{label}.{key.name}`",
                *(_code(defaults[f"{name}.{key.name}"]) for name in names),
                key.comment,
            )
            for key in functions[function]
        ]
        parts.append(_table((f"{label}.KEY", *names, "what it is"), shared))
    return "\n\n".join(part for part in parts if part)


def ops_table() -> str:
    """Returns the table of the ops that ops strings may name; read from their source."""
    rows = []
    for module in OP_MODULES:
        tree = ast.parse((ROOT / "robust_jax" / "data" / f"{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (name := _registered(node)):
                usage = f"{name}({_arguments(node.args)})"
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                rows.append((f"`{usage}`", summary))
    from robust_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS

    names = ", ".join(f"`{name}`" for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS))
    what = "One of the 19 corruptions, at a severity of 1 to 5 or (lowest, highest)"
    rows.append(("`CORRUPTION(severity)`", f"{what}: {names}"))
    return _table(("op", "what it does"), rows)


def _registered(node: ast.FunctionDef) -> str:
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "register":
            return ast.literal_eval(call.args[0])
    return ""


def _arguments(arguments: ast.arguments) -> str:
    bare = [arg.arg for arg in arguments.args]
    required = len(bare) - len(arguments.defaults)
    optional = zip(bare[required:], arguments.defaults, strict=True)
    given = [f"{name}={ast.unparse(value)}" for name, value in optional]
    return ", ".join(bare[:required] + given)


def models_table() -> str:
    """Returns the table of all models."""
    from robust_jax.models import MODELS
    from robust_jax.models.__main__ import describe

    rows = []
    for row in MODELS.values():
        found = describe(row)
        counts = [f"{found[key] / 1e6:.2f} M" for key in ("params_image", "params_total")]
        formats = ", ".join(f"`{name}`" for name in found["weights"]) or "none: trained here"
        rows.append((f"`{row.name}`", *counts, str(found["input_size"]), formats))
    titles = ("name", "parameters without a classifier", "in all", "input, px", "weights accepted")
    return _table(titles, rows)


def _code(value: Any) -> str:
    text = repr(tuple(value)) if isinstance(value, list) else repr(value)
    return f"`{text}`"


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


TABLES: Mapping[str, Callable[[], str]] = {
    "configs": config_table,
    "ops": ops_table,
    "models": models_table,
}


def renewed(text: str) -> str:
    """Returns a document with its tables made anew."""
    return _TABLE.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", text)


def main() -> None:
    """Rewrites the documents beside this file."""
    sys.path.insert(0, str(ROOT))
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text()
        if (new := renewed(text)) != text:
            path.write_text(new)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
