"""Figure 3 of the supplement: other multi-modal students, and who teaches them."""

from ml_collections import ConfigDict

from configs.paper import scales
from configs.paper.scales import Cell, Changes

STUDENTS = {"lit_b16b": "LiT-B16B", "unicl_swin_tiny": "UniCL Swin-T"}
TEACHERS = {"resnet101": "RN-101", "vit_small_legacy48m": "ViT-S"}
SETS = {  # set, its metric, and what stands for no teacher
    "ImageNet-C": ("probe", scales.IMAGENET_C, "apt"),
    "ImageNet-R": ("probe", "benchmarks/imagenet_r/accuracy", "apt"),
    "ObjectNet, zero shot": ("zero_shot", "benchmarks/objectnet/accuracy", "original"),
    "ObjectNet-C, zero shot": ("zero_shot", "benchmarks/objectnet_c/corrupted_accuracy",
                               "original"),
}  # fmt: skip
SMALL = {"clean": "clean_accuracy", "-C": "corrupted_accuracy"}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sweep; for `arg` see `scales`."""
    scale = scales.start(arg)
    c = scale.config
    c.baselines.methods = ("apt",)
    sets, students, teachers = SETS, STUDENTS, TEACHERS
    runs: dict[str, Changes] = {}
    if scale.imagenet:
        c.evaluate.sets = scales.read("imagenet_c", "imagenet_r")
        for name in students:
            for taught in teachers:
                both = scale.pair(name, taught)
                runs[f"{name}-{taught}-probe"] = both
                zero_shot: Changes = (
                    ("student.classifier", "zero_shot"),
                    ("student.zero_shot_head", f"{scales.FILES}/zero_shot/{name}.npz"),
                    ("evaluate.sets", scales.read("objectnet", "objectnet_c")),
                )
                runs[f"{name}-{taught}-zero_shot"] = (*both, *zero_shot)
        c.sweep.note = (
            "No teacher is APT, and for zero shot the original. The heads of zero shot are made by "
            "`python -m robust_jax.zero_shot`."
        )
    else:
        sets = {label: ("probe", metric, "apt") for label, metric in SMALL.items()}
        students = {name: name for name in scales.SMALL_STUDENTS}
        teachers = {name: name for name in scales.SMALL_TEACHERS}
        for name in students:
            for taught in teachers:
                runs[f"{name}-{taught}-probe"] = scale.pair(name, taught)
        c.sweep.note = "No teacher is APT. Networks of this size have no text tower."
    c.sweep.title = scales.name(scale, "Figure 3", "students and their teachers, accuracy in %")
    c.sweep.runs = tuple(runs.items())
    headings = ("no teacher", *teachers.values())
    c.sweep.columns = tuple((heading, "percent") for heading in headings)
    first, cells = next(iter(teachers)), list[Cell]()
    for name, called in students.items():
        for label, (kind, metric, untaught) in sets.items():
            row = f"{called}, {label}"
            cells.append((row, headings[0], f"{name}-{first}-{kind}", untaught, metric, None))
            for taught, heading in teachers.items():
                cells.append((row, heading, f"{name}-{taught}-{kind}", "ours", metric, None))
    c.sweep.cells = tuple(cells)
    c.sweep.figures = (("students", "bars", headings, "", "accuracy, %"),)
    return c
