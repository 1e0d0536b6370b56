"""Prediction with a robustified model: `python -m robust_jax.predict DIR IMAGE ...`."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from robust_jax.classifier import MAX_BATCH, Prediction, RobustClassifier
from robust_jax.data.listing import EXTENSIONS, shown
from robust_jax.method.selection import HEADS


def _kind(path: Path) -> str:
    """Returns "file", "folder", or "" for what is neither, or is not there."""
    try:
        return "file" if path.is_file() else "folder" if path.is_dir() else ""
    except (OSError, ValueError):  # a name that is too long, or none
        return ""


def _files(names: Sequence[str]) -> Iterator[Path]:
    """Yields the files that names stand for: themselves, those below a folder, or "-" for stdin.

    Raises:
      ValueError: for a name that is neither file nor folder, and for a folder without images.
    """
    for name in names:
        path = Path(name)
        if name == "-":
            yield from _files([line.rstrip("\n") for line in sys.stdin if line.strip()])
        elif name and _kind(path) == "file":
            yield path
        elif name and _kind(path) == "folder":
            found = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and _kind(p) == "file"
            )
            if not found:
                raise ValueError(
                    f"no images in this folder; got {shown(path)}; put {', '.join(EXTENSIONS)} "
                    "files in it"
                )
            yield from found
        else:
            raise ValueError(
                f"no such image file or folder; got {shown(path)}; give a path, or - for a list "
                "on stdin"
            )


def _described(said: Prediction, row: int, path: Path, heads: bool) -> dict[str, Any]:
    line: dict[str, Any] = {
        "image": str(path),
        "label": int(said.label[row]),
        "class": said.class_name[row],
        "prob": round(float(said.probs[row].max()), 6),
        "head": HEADS[said.head[row]],
        "uncertainty": [round(float(u), 6) for u in said.uncertainty[row]],
        "kl": [round(float(d), 6) for d in said.kl[row]],
    }
    if heads:
        line["heads"] = {
            head: {"label": int(probs.argmax()), "prob": round(float(probs.max()), 6)}
            for head, probs in zip(HEADS, said.head_probs[row], strict=True)
        }
    return line


def _readable(line: dict[str, Any], class_names: Sequence[str]) -> str:
    words = [shown(line["image"]), shown(line["class"]), f"{line['prob']:.3f}", line["head"]]
    for head, said in line.get("heads", {}).items():
        words.append(f"{head}: {shown(class_names[said['label']])} {said['prob']:.3f}")
    return "\t".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line for each image: JSON, or on a terminal words without --json."""
    parser = argparse.ArgumentParser(prog="python -m robust_jax.predict", description=__doc__)
    parser.add_argument("workdir", help="the --workdir of a finished run")
    parser.add_argument("images", nargs="+", help="files, folders, or - for a list on stdin")
    parser.add_argument("--json", action="store_true", help="JSON on a terminal, too")
    parser.add_argument("--heads", action="store_true", help="also what each head says")
    args = parser.parse_args(argv)
    files = list(_files(args.images))
    classifier = RobustClassifier(args.workdir)
    words = sys.stdout.isatty() and not args.json
    with tqdm.tqdm(total=len(files), unit="image", disable=len(files) <= MAX_BATCH) as bar:
        for start in range(0, len(files), MAX_BATCH):
            paths = files[start : start + MAX_BATCH]
            pixels = [classifier.prepare(path.read_bytes(), shown(path)) for path in paths]
            said = classifier.answer(np.stack(pixels))
            for row, path in enumerate(paths):
                line = _described(said, row, path, args.heads)
                print(_readable(line, classifier.class_names) if words else json.dumps(line))
            bar.update(len(paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
