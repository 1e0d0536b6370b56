"""A checkout as a reader of the documents has it, with files of the names that these use."""

import re
import shutil
import sysconfig
import venv

import jax
import numpy as np
import tensorflow_datasets as tfds
from benchmark_folders import class_folders
from launch_world import GCLOUD, PROGRAM_STUB, PYTHON3_STUB, script
from PIL import Image
from runs import ROOT
from safetensors.numpy import save_file

from robust_jax import models, weights
from robust_jax.evals import subsets
from robust_jax.weights import loading
from robust_jax.zero_shot import ZeroShotHead

CLASSES = ("1", "4", "7")  # some of those that `quickstart` knows
CLIP = "clip_vit_b16"
SIDES = {"sides": (40, 36)}
# What `runlocal` does beyond this is done by the run of all tests.
RUNLOCAL = "quickstart.runlocal(c)\n"
LESS = """
        c.teacher.loss = "cross_entropy"
        c.baselines.methods = ("apt",)
        c.evaluate.corruptions, c.evaluate.severities = ("fog",), (3,)
"""


def make(root, finished):
    """Makes a checkout in a directory: code, requirements, and `.venv` with what this Python has.

    Args:
      root: a new directory.
      finished: {place: the workdir of a finished run}, to be copied.
    """
    for folder in ("configs", "launch"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    folder = root / "configs" / "folder.py"
    assert RUNLOCAL in folder.read_text()
    folder.write_text(folder.read_text().replace(RUNLOCAL, RUNLOCAL + LESS))
    (root / "robust_jax").symlink_to(ROOT / "robust_jax")
    for file in (ROOT / "Makefile", ROOT / "constraints.txt", *ROOT.glob("requirements*.txt")):
        shutil.copy(file, root)
    venv.create(root / ".venv", symlinks=True)
    (site,) = (root / ".venv").glob("lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    (site / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    for installed in ("runtime", "cuda"):  # as `make demo` and launch/gpu.sh leave it
        (root / ".venv" / installed).touch()
    for place, workdir in finished.items():
        shutil.copytree(workdir, root / place, ignore=shutil.ignore_patterns("checkpoints"))


def write_files(root, text):
    """Makes the files whose names stand in a text."""
    for name, write in FILES.items():
        if re.search(rf"(?<![\w./]){re.escape(name)}\b", text):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write(root / name)


def noise(*shape):
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def _dataset(path):
    for part, count in (("train", 16), ("val", 4)):
        pixels = noise(len(CLASSES), count, 36, 40, 3)
        for name, images in zip(CLASSES, pixels, strict=True):
            (path / part / name).mkdir(parents=True)
            for i, image in enumerate(images):
                Image.fromarray(image[i:]).save(path / part / name / f"{i}.png")


def _other(path):
    class_folders(path, CLASSES[1:], extension="png", **SIDES)


def _imagenet(path):
    for part in ("train", "val"):
        class_folders(path / part, subsets.imagenet_wnids(), **SIDES)


def _imagenet_c(path):
    class_folders(path / "weather" / "fog" / "3", subsets.imagenet_wnids(), sides=(224, 224))


def _imagenet_a(path):
    class_folders(path, subsets.imagenet_a().class_names, **SIDES)


def _imagenet_v2(path):
    class_folders(path, map(str, range(1000)), **SIDES)


class Cifar(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A few images, stored as TFDS stores CIFAR."""

    VERSION = tfds.core.Version("3.0.2")

    def _info(self):
        label = tfds.features.ClassLabel(num_classes=self.COUNT)
        image = tfds.features.Image(shape=(32, 32, 3), encoding_format="png")
        features = {"id": tfds.features.Text(), "image": image, "label": label, **self.MORE}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(5), "test": self._generate_examples(1)}

    def _generate_examples(self, each):
        for i, image in enumerate(noise(each * self.COUNT, 32, 32, 3)):
            more = dict.fromkeys(self.MORE, 0)
            yield i, {"id": str(i), "image": image, "label": i % self.COUNT, **more}


class Cifar10(Cifar, skip_registration=True):
    COUNT, MORE = 10, {}
    name = "cifar10"


class Cifar100(Cifar, skip_registration=True):
    COUNT, MORE = 100, {"coarse_label": tfds.features.ClassLabel(num_classes=20)}
    name = "cifar100"


def _tfds(builder):
    def write(path):
        made = builder(data_dir=path.parent / "tfds")
        made.download_and_prepare(file_format="array_record")

    return write


def _variables(model):
    """Random arrays for a network."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.example_input())
    return jax.tree.map(
        lambda a: 0.02 * rng.standard_normal(a.shape, dtype=np.float32) + (a.ndim == 1), shapes
    )


def _vit(path):
    """Weights as transformers' save_pretrained() leaves them."""
    entry = models.entry("vit_ti16")
    model = models.build(entry, 1000)
    form = weights.formats(entry)["huggingface"]
    path.mkdir()
    tensors = loading.to_tensors(_variables(model), form, model)
    save_file(
        {name: np.ascontiguousarray(a) for name, a in tensors.items()}, path / "model.safetensors"
    )


def _clip(path):
    """Weights of a CLIP with both towers, in half precision as OpenAI's."""
    import torch

    entry, found = models.entry(CLIP), {}
    form = weights.formats(entry)["openai_clip"]
    for text, tower in enumerate((models.build(entry, 1), models.build_text(entry))):
        variables = _variables(tower)
        if not text:
            del variables["params"]["head"]
        found |= loading.to_tensors(variables, form, tower, text=bool(text))
    torch.save({name: torch.tensor(a).half() for name, a in found.items()}, path)


def _head(path):
    kernel = np.eye(models.build(CLIP, 1).feature_width, 2, dtype=np.float32)
    ZeroShotHead(kernel, ("two", "words"), {}).save(path)


SBATCH = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
SLURM_JOB_ID=41 SLURM_SUBMIT_DIR=$PWD exec bash "$@"
"""
SRUN = """#!/bin/bash
export ROBUST_JAX_COORDINATOR=localhost:$PORT ROBUST_JAX_PROCESSES=1 ROBUST_JAX_PROCESS=0
exec "${@:2}"
"""


def stand_ins(root, port):
    """Makes commands that stand for a cloud, SLURM and a driver; returns their environment."""
    for directory in ("bin", "remote"):
        (root / directory).mkdir(parents=True)
    script(root / "gcloud.py", GCLOUD)
    script(root / "python_stub", PROGRAM_STUB)
    script(root / "remote" / "python3", PYTHON3_STUB)
    gcloud = f'#!/bin/bash\nPATH={root}/remote:$PATH exec {root}/gcloud.py "$@"\n'
    found = {"gcloud": gcloud, "sbatch": SBATCH, "srun": SRUN, "nvidia-smi": "#!/bin/bash\n"}
    for name, text in found.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    stub = {"FAKE": str(root), "FAKE_PYTHON": str(root / "python_stub")}
    return {"PATH": f"{root}/bin", "PORT": str(port), "POLL": "0.2", "PAUSE": "0", **stub}


# What is called by these names in the documents.
FILES = {
    "DIR": _dataset,
    "photos": _dataset,
    "OTHER": _other,
    "data/imagenet": _imagenet,
    "data/ImageNet-C": _imagenet_c,
    "data/imagenet-a": _imagenet_a,
    "data/imagenetv2-top-images": _imagenet_v2,
    "cifar10": _tfds(Cifar10),
    "cifar100": _tfds(Cifar100),
    "image.png": lambda path: Image.fromarray(noise(50, 60, 3)).save(path),
    "names.txt": lambda path: path.write_text("one\nfour\nseven\n"),
    "WEIGHTS": _vit,
    "SRC": _vit,
    "ViT-B-16.pt": _clip,
    "other_head.npz": _head,
    "configs/X.py": lambda path: shutil.copy(ROOT / "configs" / "quickstart.py", path),
}
