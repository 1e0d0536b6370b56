"""The paper's tables and figures: what their plans say at ImageNet's scale, and small ones run."""

import importlib
import json
import re

import pytest
from runs import ROOT, run

from configs.paper import scales
from robust_jax import main, models, plan, sweep, sweep_runs
from robust_jax.method.budget import PAPER_TUNED
from robust_jax.stages import before_after
from robust_jax.stages.routing import ROUTED

NAMES = sorted(p.stem for p in (ROOT / "configs" / "paper").glob("[tfp]*[0-9o].py"))
C, P = "tfds:imagenet2012_corrupted", "imagenet_p:data/ImageNet-P"
# Students, teachers and benchmarks of each, from the paper's captions.
RN, VIT_S = ("resnet34", "resnet50", "resnet101"), "vit_small_legacy48m"
L14 = ({"clip_vit_l14_336"}, {"vit_b16"})
SHIFTS = {
    "tfds:imagenet_r",
    "tfds:imagenet_sketch",
    "tfds:imagenet_a",
    "objectnet:data/objectnet/images",
    C,
}
EXPECTED = {
    "table1": (*L14, SHIFTS | {"tfds:imagenet_v2/matched-frequency"}),
    "table2": (*L14, SHIFTS),
    "table3": (
        {"resnet101", "clip_rn101", "clip_vit_b16", "clip_vit_b32"},
        {"resnet34", "resnet101", VIT_S},
        {C},
    ),
    "table4": ({"clip_vit_b16"}, {*RN, "resnet152", VIT_S, "vit_b16"}, {C}),
    "table5": (set(PAPER_TUNED), {"resnet34"}, {C}),
    "table6": ({"resnet101"}, {*RN, VIT_S}, {P}),
    "figure1": ({"resnet101"}, {"resnet34"}, {C}),
    "figure2": (*L14, set()),
    "figure3": (
        {"lit_b16b", "unicl_swin_tiny"},
        {"resnet101", VIT_S},
        {C, "tfds:imagenet_r"} | {f"objectnet{kind}:data/objectnet/images" for kind in ("", "_c")},
    ),
    "figure4": ({"clip_rn50", "clip_rn101", "clip_vit_b16"}, {"resnet101", VIT_S}, {P}),
    "pareto": ({"clip_vit_b16"}, {VIT_S}, {C}),
}
# 500 epochs of a part of the 1,271,167 images that are not held out, in batches of 256.
STEPS = {0.1: 248_275, 0.25: 620_688, 0.5: 1_241_375, 1.0: 2_482_748}


def config(name, arg):
    return importlib.import_module(f"configs.paper.{name}").get_config(arg)


@pytest.fixture
def planned(monkeypatch, tmp_path, capsys):
    """name -> what the dry run of each of its runs says, on a machine that has none of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "_check_images", lambda context: None)  # slow, and tested elsewhere

    def dry_run(name):
        found = config(name, "imagenet")
        found.data.dir = str(tmp_path / "tfds")
        sweep.run(found, tmp_path / "w", main.run, dry_run=True)
        assert list(tmp_path.iterdir()) == []
        _, *parts = re.split(r"^run (\S+), seeds 0$", capsys.readouterr().out, flags=re.M)
        runs = dict(zip(parts[::2], parts[1::2], strict=True))
        assert list(runs) == [name for name, _ in found.sweep.runs]
        return found, runs

    return dry_run


# Table 5 has nine students; the other plans are built of nearly the same networks.
@pytest.mark.parametrize(
    "name", [n if n == "table5" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_the_plan_is_the_papers(planned, name):
    found, runs = planned(name)
    students, teachers, benchmarks = set(), set(), set()
    for run_name, said in runs.items():
        assert "data: imagenet2012 train, 1,271,167 train, 10,000 calibration and 50,000" in said
        ((student, weights, teacher, taught),) = re.findall(
            r"^student: (\w+) \((.+)\), teacher: (\w+) \((.+)\)$", said, re.M
        )
        assert weights == scales.WEIGHTS[student] and taught == scales.WEIGHTS[teacher]
        students.add(student)
        teachers.add(teacher)
        tuned = int(re.search(r"^tuned ([\d,]+)", said, re.M)[1].replace(",", ""))
        if student in PAPER_TUNED and not run_name.startswith("budget_"):
            assert tuned == pytest.approx(1e6 * PAPER_TUNED[student], rel=0.01)
        changes = dict(dict(found.sweep.runs)[run_name])
        steps = STEPS[changes.get("augmented.fraction", 0.5)]
        assert f"distill: {steps:,} steps of 256, adam" in said
        if sets := re.search(r"^benchmarks: (.*)$", said, re.M):
            benchmarks |= {one.partition("=")[2] for one in sets[1].split(", ")}
    assert (students, teachers, benchmarks) == EXPECTED[name]


def test_settings_are_those_of_the_supplement():
    for name in NAMES:
        c = config(name, "imagenet")
        assert (c.distill.learning_rate, c.distill.optimizer) == (1e-3, "adam")
        assert (c.method.dropout, c.method.heads_share, c.selection.num_samples) == (0.25, 0.2, 10)
        assert (c.augmented.fraction, c.augmented.replicas) == (0.5, 1)
        for one in (c.augmented, c.teacher):  # DeepAugment and AugMix
            assert one.mixture.chained > one.mixture.deepaugment == one.mixture.clean == 0
        assert c.distort.networks == ("cae", "edsr")
        assert c.data.augment_ops.startswith("augmix(")


def test_the_papers_numbers_stand_where_the_setting_is_the_papers():
    numbers = {}
    for name in NAMES:
        assert all(cell[5] is None for cell in config(name, "small").sweep.cells), name
        cells = config(name, "imagenet").sweep.cells
        numbers[name] = {(row, column): paper for row, column, *_, paper in cells if paper}
    counts = {name: len(found) for name, found in numbers.items() if found}
    # Figures are drawn without numbers in the paper.
    assert counts == {
        "table1": 50, "table2": 18, "table3": 8, "table4": 18, "table5": 18, "table6": 8
    }  # fmt: skip
    assert numbers["table1"]["ours", "ImageNet-C"] == 0.649
    assert numbers["table1"]["ours w/o KD", "Flowers-102"] == 0.988
    assert numbers["table2"]["ours w/o U_mc", "ObjectNet"] == 0.61
    assert numbers["table3"]["clip_vit_b32, taught by vit_small_legacy48m", "ours"] == 0.571
    assert numbers["table4"]["resnet152", "student %"] == 0.597
    assert numbers["table5"]["clip_vit_l14_336", "tuned"] == 5.6e6
    assert numbers["table6"]["resnet34", "AugMix + DeepAugment"] == 0.416


@pytest.mark.parametrize("arg", ["imagenet", "small"])
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_measured_by_its_run(name, arg):
    found = config(name, arg)
    runs = {one.name: one.config for one in sweep_runs.expand(found)}
    for row, column, run_name, method, metric, _ in found.sweep.cells:
        c = runs[run_name]
        heads = {m for m, (student, _) in ROUTED.items() if student == "ours"}
        assert method in {"original", *heads, *c.baselines.methods}, (row, column)
        sets = {spec.partition("=")[0]: spec.partition("=")[2] for spec in c.evaluate.sets}
        for path in (metric,) if isinstance(metric, str) else metric:
            kind, *rest = path.split("/")
            if kind == "benchmarks":
                where = sets[rest[0]]
                corrupted = where.startswith(("tfds:imagenet2012_corrupted", "objectnet_c:"))
                wanted = "corrupted_accuracy" if corrupted else "accuracy"
                wanted = "mfr" if where.startswith("imagenet_p:") else wanted
                assert rest[1] in (wanted, "f_correct"), (row, column)
            elif kind == "transfer":
                assert rest[0] in dict(found.sweep.transfer)
                assert method in {"original", "ours", *before_after.WHOLE, *before_after.TUNED}
            elif kind in ("category", "corrupted_accuracy", "f_correct_shift", "routing_auroc"):
                assert c.evaluate.corruptions == ("all",), (row, column)
            elif kind == "mean_flip_probability":
                assert c.evaluate.perturbations == ("all",)
            elif kind in ("train_seconds", "compile_seconds", "train_flops"):
                assert method != "original" or row == "original"  # shown as "-"
            else:
                assert kind in ("clean_accuracy", "f_correct_clean", "tuned_params", "total_params")
            if "f_correct" in path or kind == "routing_auroc":
                assert method in ROUTED


@pytest.mark.parametrize("name", NAMES)
def test_weights_fit_their_networks(name):
    """What a run asks of weights, the model table says they have."""
    for one in sweep_runs.expand(config(name, "imagenet")):
        student = models.entry(one.config.student.name)
        assert student.weights and models.entry(one.config.teacher.name).weights
        classifier = one.config.student.classifier
        if classifier == "zero_shot":
            assert student.text_family and one.config.student.zero_shot_head
        else:
            assert classifier == ("probe" if student.text_family else "load")


def check_small(name, arg, workdir):
    """Runs a sweep, and checks that every number of its table and every figure is there."""
    found = config(name, arg)
    sweep.run(found, workdir, run)
    lines = (workdir / "report" / "table.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len({cell[0] for cell in found.sweep.cells})
    original = {"original"} & {cell[0] for cell in found.sweep.cells}
    for line in table[2:]:
        cells = [text.strip() for text in line.strip("|").split("|")]
        missing = [text for text in cells[1:] if text == "-"]
        assert not missing or cells[0] in original, line
    page = (workdir / "report" / "index.html").read_text()
    for stem, *_ in found.sweep.figures:
        assert f'src="{stem}.png"' in page
        assert (workdir / "report" / f"{stem}.pdf").stat().st_size > 2000
    _, *rows = map(json.loads, (workdir / "results.jsonl").read_text().splitlines())
    assert {row["seed"] for row in rows} == set(found.sweep.seeds)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_small_tables_and_figures(tmp_path, name):
    check_small(name, "small,runlocal", tmp_path / "w")
