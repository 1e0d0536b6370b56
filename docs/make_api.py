"""Writes the API reference, from the docstrings, with pdoc: `python docs/make_api.py OUT`."""

import argparse
import os
import pkgutil
from pathlib import Path

import pdoc

import robust_jax


def modules() -> list[str]:
    """Returns the names of the package and of all modules in it that can be imported by name."""
    found = pkgutil.walk_packages(robust_jax.__path__, "robust_jax.")
    return ["robust_jax", *(m.name for m in found if not m.name.endswith(".__main__"))]


def main() -> None:
    """Reads the arguments and writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="directory, made where it is missing")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*modules(), output_directory=args.out)
    print(f"open {args.out / 'index.html'}")


if __name__ == "__main__":
    main()
