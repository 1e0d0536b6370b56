"""Image sets of stored benchmarks, one function a kind: request -> sets."""

import functools
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from robust_jax.data import folder
from robust_jax.data.sources import Source
from robust_jax.data.stored import class_folders, npy
from robust_jax.evals import class_names, subsets, written_sets
from robust_jax.evals.stored_sets import Request, StoredImages
from robust_jax.evals.subsets import Subset

# ObjectNet's pictures have a red border of one pixel, and the JPEGs that they come from smear it.
_BORDER = 2


def imagenet_c(request: Request) -> list[StoredImages]:
    """ImageNet-C: PATH/CORRUPTION/SEVERITY/WNID/*, stored as crops of 224 px."""
    class_names.check_imagenet(request.class_names, request.kind)
    labels = _numbered(subsets.imagenet_wnids())
    return _corrupted_folders(request, labels, request.stored_ops())


def folder_c(request: Request, *, whole: bool = False) -> list[StoredImages]:
    """The same of any classes, which the directories name as in `folder`; with `whole` all.

    What `robust_jax.corrupt` has cut to a size is not resized and cut again.
    """
    side = written_sets.cut_size(epath.Path(request.path))
    ops = request.stored_ops(side) if side else request.eval_ops
    return _corrupted_folders(request, None, ops, whole)


def _corrupted_folders(
    request: Request, labels: Mapping[str, int] | None, ops: str, whole: bool = True
) -> list[StoredImages]:
    root = class_folders.check_directory(request.path, request.kind)
    sets: list[StoredImages] = []
    for name, severity in request.grid:
        found = class_folders.find_directory(root, name, "corruption")
        directory = class_folders.severity_directory(found, severity, root)
        chosen = _matched(directory, request, whole) if labels is None else labels
        where = request.where(corruption=name, severity=severity)
        source = _source(request, directory, chosen, request.class_names)
        sets.append(StoredImages(where, source, ops))
    return sets


def cifar_c(request: Request, classes: int) -> list[StoredImages]:
    """CIFAR-10-C and CIFAR-100-C: PATH/CORRUPTION.npy and PATH/labels.npy."""
    class_names.check_cifar(request.class_names, classes, request.kind)
    root = class_folders.check_directory(request.path, request.kind)
    sets = []
    for name, severity in request.grid:
        source = npy.corrupted(root, name, severity, request.class_names, request.kind)
        where = request.where(corruption=name, severity=severity)
        sets.append(StoredImages(where, source, request.eval_ops))
    return sets


def imagenet_v2(request: Request) -> list[StoredImages]:
    """ImageNet-V2: PATH/NUMBER/*, where NUMBER is the class."""
    return _imagenet(request, [str(number) for number in range(subsets.IMAGENET_CLASSES)])


def imagenet_sketch(request: Request) -> list[StoredImages]:
    """ImageNet-Sketch: PATH/WNID/*."""
    return _imagenet(request, subsets.imagenet_wnids())


def _imagenet(request: Request, folders: Sequence[str]) -> list[StoredImages]:
    class_names.check_imagenet(request.class_names, request.kind)
    root = class_folders.check_directory(request.path, request.kind)
    source = _source(request, root, _numbered(folders), request.class_names)
    return [StoredImages(request.where(), source, request.eval_ops)]


def of_subset(request: Request, subset: Subset, *, others: bool = False) -> list[StoredImages]:
    """Sets of a subset's classes: PATH/CLASS/*, named as in the subset.

    With `others` there are other classes too: ImageNet's validation set, and ObjectNet.
    """
    class_names.check_imagenet(request.class_names, request.kind)
    root = class_folders.check_directory(request.path, request.kind)
    labels = _numbered(subset.class_names)
    source = _source(request, root, labels, subset.class_names, others=others)
    return [StoredImages(request.where(), source, request.eval_ops, subset)]


def objectnet(request: Request) -> list[StoredImages]:
    """ObjectNet: PATH/CLASS/*, without the border of the pictures."""
    (found,) = of_subset(request, subsets.objectnet(), others=True)
    first = f"decode|crop_border({_BORDER})"
    ops = "|".join(filter(None, [first, request.eval_ops]))
    return [StoredImages(found.where, found.source, ops, found.subset, first=first)]


def objectnet_c(request: Request) -> list[StoredImages]:
    """ObjectNet-C: ObjectNet with our corruptions, which are applied when it is evaluated."""
    (clean,) = objectnet(request)
    return [
        StoredImages(
            request.where(corruption=name, severity=severity),
            clean.source,
            clean.ops,
            clean.subset,
            (name, severity),
        )
        for name, severity in request.grid
    ]


def plain_folder(request: Request) -> list[StoredImages]:
    """Any images: PATH/CLASS/*, where CLASS is a class's name, WordNet id or number."""
    root = class_folders.check_directory(request.path, request.kind)
    labels = _matched(root, request, whole=False)
    source = _source(request, root, labels, request.class_names)
    return [StoredImages(request.where(), source, request.eval_ops)]


def _matched(directory: epath.Path, request: Request, whole: bool) -> dict[str, int]:
    found = folder.class_directories(directory, epath.Path(request.path))
    numbers = class_names.match(found, request.class_names, str(directory))
    present = set(numbers)
    absent = [name for k, name in enumerate(request.class_names) if k not in present]
    if absent and whole:
        raise ValueError(
            f"{directory} lacks classes of the classifier; got none for {absent[0]} "
            f"({len(absent)} in all); download it whole, or use folder or folder_c for a part"
        )
    if absent:
        print(
            f"{directory}: {len(absent)} of the classifier's classes are absent, e.g. {absent[0]}"
        )
    return dict(zip(found, numbers, strict=True))


def _numbered(folders: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(folders)}


def _source(
    request: Request,
    directory: epath.Path,
    labels: Mapping[str, int],
    names: Sequence[str],
    *,
    others: bool = False,
) -> Source:
    root = epath.Path(request.path)
    return folder.of_classes(
        directory,
        class_folders.label_folders(directory, labels, request.kind, root=root, others=others),
        names,
        name=f"{request.kind} {directory}",
        verify=False,
        max_bad_images=0,
        root=root,
    )


IMAGE_KINDS: dict[str, Callable[[Request], list[StoredImages]]] = {
    "imagenet_c": imagenet_c,
    "tiny_imagenet_c": functools.partial(folder_c, whole=True),
    "folder_c": folder_c,
    "cifar10_c": functools.partial(cifar_c, classes=10),
    "cifar100_c": functools.partial(cifar_c, classes=100),
    "imagenet_v2": imagenet_v2,
    "imagenet_sketch": imagenet_sketch,
    "imagenet_a": lambda request: of_subset(request, subsets.imagenet_a()),
    "imagenet_r": lambda request: of_subset(request, subsets.imagenet_r()),
    "imagenet_200_a": lambda request: of_subset(request, subsets.imagenet_a(), others=True),
    "imagenet_200_r": lambda request: of_subset(request, subsets.imagenet_r(), others=True),
    "objectnet": objectnet,
    "objectnet_c": objectnet_c,
    "folder": plain_folder,
}
