"""Sequence sets of stored benchmarks, one function a kind: request -> sets."""

import functools
from collections.abc import Sequence

import numpy as np
from etils import epath

from robust_jax.data import folder
from robust_jax.data.sources import file_mark, fingerprint
from robust_jax.data.stored import class_folders, npy, videos
from robust_jax.evals import class_names, perturbation, subsets
from robust_jax.evals.stored_sets import Request, StoredFrames


def imagenet_p(request: Request) -> list[StoredFrames]:
    """ImageNet-P: PATH/PERTURBATION/WNID/*.mp4, frames of 224 px."""
    class_names.check_imagenet(request.class_names, request.kind)
    return _files(request, subsets.imagenet_wnids())


def folder_p(request: Request) -> list[StoredFrames]:
    """The same of any classes, which the directories name as in `folder`; .mp4 or .npy."""
    return _files(request, None)


def _files(request: Request, wanted: Sequence[str] | None) -> list[StoredFrames]:
    root = class_folders.check_directory(request.path, request.kind)
    sets = []
    for name in _names(request):
        directory = class_folders.find_directory(root, name, "perturbation")
        found = folder.class_directories(directory, root)
        if wanted is None:
            numbers = class_names.match(found, request.class_names, str(directory))
            folders = dict(zip(found, numbers, strict=True))
        else:
            numbered = {wnid: number for number, wnid in enumerate(wanted)}
            folders = class_folders.label_folders(directory, numbered, request.kind, root=root)
        files, labels = videos.list_sequences(directory, folders, root)
        read = videos.checked(
            functools.partial(_read, files),
            functools.partial(_path, files),
            f"resize({request.size})",
            request.size,
        )
        mark = fingerprint("frames", list(map(file_mark, files)), request.size)
        sets.append(StoredFrames(request.where(perturbation=name), labels, read, mark))
    return sets


def _read(files: Sequence[epath.Path], number: int) -> np.ndarray:
    return videos.read_sequence(files[number])


def _path(files: Sequence[epath.Path], number: int) -> str:
    return str(files[number])


def cifar10_p(request: Request) -> list[StoredFrames]:
    """CIFAR-10-P: PATH/PERTURBATION.npy; spatter stands for snow where that is not there."""
    class_names.check_cifar(request.class_names, len(class_names.CIFAR10), request.kind)
    root = class_folders.check_directory(request.path, request.kind)
    sets = []
    for name in _names(request):
        if name == "snow" and not npy.has(root, name) and npy.has(root, "spatter"):
            if "spatter" in _names(request):
                continue
            print(f"{root}: spatter stands for snow, which is not there")
            name = "spatter"
        count, read = npy.sequences(root, name)
        describe = functools.partial("sequence {1} of {0}.npy".format, root / name)
        checked = videos.checked(read, describe, request.eval_ops, request.size)
        mark = fingerprint("frames", npy.mark(root, name), request.eval_ops, request.size)
        labels = np.zeros(count, np.int32)  # it comes without
        where = request.where(perturbation=name)
        sets.append(StoredFrames(where, labels, checked, mark))
    return sets


def _names(request: Request) -> tuple[str, ...]:
    names = perturbation.names(request.perturbations)
    if not names:
        raise ValueError(
            f"{request.kind} has nothing to read; got no perturbations; set "
            "evaluate.perturbations, for example to ('all',)"
        )
    return names


FRAME_KINDS = {
    "imagenet_p": imagenet_p,
    "folder_p": folder_p,
    "cifar10_p": cifar10_p,
}
