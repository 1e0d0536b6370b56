"""Stores outputs of the other implementations: python tests/weights/make_references.py [NAME...]

Needs requirements-torch.txt; with names, only cases whose name begins with one of them.
"""

import sys

import parity


def main() -> None:
    wanted = tuple(sys.argv[1:]) or ("",)
    for case in parity.cases():
        if not case.name.startswith(wanted):
            continue
        reference = case.reference()
        tensors = {name: parity.made(name, shape) for name, shape in reference.shapes.items()}
        output = reference.run(tensors, parity.inputs(case, case.model()))
        parity.store(case, reference, output)
        print(case.name, output.shape, len(tensors), "tensors")


if __name__ == "__main__":
    main()
