"""The notebooks of colabs/: their form and what they name; slow: from start to end."""

import ast
import base64
import importlib.util
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from runs import ROOT

from robust_jax import config as config_lib

NAMES = ("pretrained", "quickstart", "read_the_report", "your_folder")
REPOSITORY = r'REPOSITORY = "https://github.com/(.+)"\n'
MAGIC = re.compile(r"^(\s*)[!%].*$", re.MULTILINE)
every_notebook = pytest.mark.parametrize("name", NAMES)


def read(name):
    return json.loads((ROOT / "colabs" / f"{name}.ipynb").read_text())


def sources(name, kind):
    return ["".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == kind]


@every_notebook
def test_is_a_notebook_of_4_5_without_outputs(name):
    book = read(name)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in book["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", one) for one in ids)
    for cell in book["cells"]:
        code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell["cell_type"] in ("code", "markdown")
        assert cell.keys() == {"cell_type", "id", "metadata", "source", *code}
        assert (cell.get("execution_count"), cell.get("outputs", [])) == (None, [])
        text = "".join(cell["source"])
        assert text.strip("\n") == text != ""
        assert text.splitlines(keepends=True) == cell["source"]


@every_notebook
def test_code_is_short_and_parses_without_its_magics(name):
    cells = sources(name, "code")
    lines = [line for cell in cells for line in cell.splitlines() if line.strip()]
    assert 10 < len(lines) < 40
    for cell in cells:
        ast.parse(MAGIC.sub(r"\1pass", cell))


@every_notebook
def test_no_command_may_fail_unseen(name):
    for cell in sources(name, "code"):
        commands = re.findall(r"^\s*!.*", cell, re.MULTILINE)
        assert len(re.findall(r"!.*\n\s*assert _exit_code == 0, \"", cell)) == len(commands)


@every_notebook
def test_parameters_stand_alone_behind_the_installation(name):
    install, parameters, *_ = [c for c in read(name)["cells"] if c["cell_type"] == "code"]
    assert (parameters["id"], parameters["metadata"]["tags"]) == ("parameters", ["parameters"])
    tree = ast.parse("".join(parameters["source"]))
    assert all(isinstance(line, ast.Assign) for line in tree.body)
    values = {line.targets[0].id: ast.literal_eval(line.value) for line in tree.body}
    assert values["argument"] == "runlocal"
    assert values["workdir"].startswith("runs/")
    assert "find_spec" in "".join(install["source"])


@every_notebook
def test_installs_what_the_package_offers(name):
    extras = re.findall(r"^(\w+) = \{ file", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    text = "\n".join(sources(name, "markdown") + sources(name, "code"))
    for named in re.findall(r"robust_jax\[(.+?)\]", text):
        assert set(named.split(",")) <= set(extras)
    for file in re.findall(r"requirements[\w-]*\.txt", text):
        assert (ROOT / file).exists(), file
    # The same for all of them.
    (owner,) = {one for n in NAMES for one in re.findall(REPOSITORY, sources(n, "code")[0])}
    links = re.findall(r"\]\((.+?)\)", text)
    place = f"https://colab.research.google.com/github/{owner}/blob/main/colabs"
    assert links == [f"{place}/{name}.ipynb"]
    assert set(re.findall(r"(?<!/)\b(\w+)\.ipynb", text)) <= set(NAMES)


@every_notebook
def test_commands_options_configs_keys_and_documents_exist(name):
    text = "\n".join(sources(name, "markdown") + sources(name, "code"))
    commands = re.findall(r"!python -m (robust_jax\.\w+)(.*)", text)
    assert commands
    for module, rest in commands:
        file = Path(importlib.util.find_spec(module).origin)
        known = file.with_name("__main__.py" if file.name == "__init__.py" else file.name)
        for option in re.findall(r"\s--(\w+)", rest):
            assert re.search(rf'"(--)?{option}"', known.read_text()) or option == "config", rest
    (config,) = set(re.findall(r"__path__\[0\]\}/(\w+\.py:)\{argument\}", text))
    for argument in ("", "runlocal"):
        found = config_lib.load(f"{ROOT}/configs/{config}{argument}")
        assert (found.pretrain.total_steps == 4) == bool(argument)
    named = set(re.findall(r"--config\.([\w.]*\w)", text))
    assert named <= config_lib.flatten(config_lib.base()).keys()
    for file in re.findall(r"\bdocs/[\w/.]+\w", text):
        assert (ROOT / file).exists(), file


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the notebooks run, one after another, as they would for a user."""
    pytest.importorskip("ipykernel")
    pytest.importorskip("nbclient")
    place = tmp_path_factory.mktemp("colabs")
    program = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": program, "display_name": "this Python", "language": "python"}
    (place / "kernels" / "this").mkdir(parents=True)
    (place / "kernels" / "this" / "kernel.json").write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(place / name.lower()))
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.delenv("MPLBACKEND", raising=False)
        yield place


def execute(name, place, changes="", until=None):
    """Runs a notebook with changed parameters; returns the outputs of its cells by their ids."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    book = nbformat.read(ROOT / "colabs" / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    ids = [cell.id for cell in book.cells]
    del book.cells[ids.index(until) + 1 if until else len(ids) :]
    book.cells.insert(ids.index("parameters") + 1, nbformat.v4.new_code_cell(changes))
    specs = KernelSpecManager(kernel_dirs=[str(place / "kernels")])
    manager = AsyncKernelManager(kernel_name="this", kernel_spec_manager=specs)
    where = {"metadata": {"path": str(place)}}
    NotebookClient(book, manager, timeout=900, resources=where).execute(cleanup_kc=True)
    said = {cell.id: cell.outputs for cell in book.cells if cell.cell_type == "code"}
    assert not [one for outputs in said.values() for one in outputs if one.output_type == "error"]
    return said


def text(outputs):
    return "".join(one.text for one in outputs if one.get("name") == "stdout")


def picture(outputs):
    """The shorter side of the one picture, in pixels."""
    (png,) = [one.data["image/png"] for one in outputs if "image/png" in one.get("data", {})]
    return min(Image.open(io.BytesIO(base64.b64decode(png))).size)


def summary(place, workdir):
    """What was measured in a workdir, which has a report."""
    assert (place / workdir / "report" / "index.html").exists()
    return json.loads((place / workdir / "summary.json").read_text())["methods"]


@pytest.mark.slow
def test_quickstart(place):
    said = execute("quickstart", place)
    methods = summary(place, "runs/quickstart_runlocal")
    assert {"original", "teacher", "apt", "ours"} <= methods.keys()
    assert re.search(r"^ours \(w/o KD\) ", text(said["run"]), re.MULTILINE)
    rows = [line.replace("/", "").split() for line in text(said["predict"]).splitlines()[1:]]
    assert [row[0] for row in rows] == list("012345")
    assert all(sum(map(int, row[3:])) == 360 for row in rows)
    before = re.search(r"pretrain: clean accuracy (\S+) on 360 images", text(said["run"]))[1]
    assert float(rows[0][1]) == pytest.approx(100 * float(before), abs=0.06)
    assert picture(said["heads"]) > 800


@pytest.mark.slow
def test_read_the_report(place):
    said = execute("read_the_report", place)
    methods = summary(place, "runs/quickstart_runlocal")
    assert text(said["summary"]).count("\n") == len(methods) + 2
    assert "'metric': 'accuracy_unclean_head'" in said["rows"][0].data["text/plain"]
    assert picture(said["corruptions"]) > 300
    differences = text(said["differences"])
    assert len(re.findall(r"^(clean|corrupted) (original|teacher|apt) ", differences, re.M)) == 6
    assert f"ours: {methods['ours']['routing_auroc']:.3f}, from" in text(said["routing"])
    page = said["page"][0].data["text/html"]
    drawn = list((place / "runs/quickstart_runlocal/report").glob("*.png"))
    assert page.count("data:image/png;base64,") == len(drawn) > 3
    assert "src=&quot;by_corruption.png" not in page


@pytest.mark.slow
def test_your_folder(place):
    said = execute("your_folder", place)
    assert "1,294 train, 143 calibration and 360 evaluation images" in text(said["plan"])
    assert "ours" in summary(place, "runs/your_folder_runlocal")
    config = json.loads((place / "runs/your_folder_runlocal/config.json").read_text())
    assert config["data.train_ops"] == "decode|resize({resize})|random_crop({size}, pad=2)"
    lines = (place / "runs/your_folder_runlocal/val.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    wrong = sum(f"/{one['class']}/" not in one["image"] for one in answers)
    assert f"{wrong} of 360 images of val are answered wrongly" in text(said["mistakes"])
    assert picture(said["mistakes"]) > 400


@pytest.mark.slow
def test_pretrained(place):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768)
    transformers.ViTForImageClassification(config).save_pretrained(place / "a vit")
    said = execute("pretrained", place, 'weights, options = "a vit", "--config.data.image_size=64"')
    assert "student: a vit (huggingface): loaded 198 arrays" in text(said["run"])
    assert "ours" in summary(place, "runs/pretrained_runlocal")
    assert (place / "runs/pretrained_runlocal/converted/model.safetensors").exists()
    assert "clean, in the format huggingface" in text(said["export"])
    assert picture(said["examples"]) > 600


@pytest.mark.slow
def test_pretrained_with_clip(place):
    transformers = pytest.importorskip("transformers")
    if importlib.util.find_spec("open_clip") is None:
        pytest.skip("CLIP's vocabulary is a file of open_clip_torch, which is not installed")
    transformers.CLIPModel(transformers.CLIPConfig()).save_pretrained(place / "clip")
    changes = 'student, weights, classifier = "clip_vit_b32", "clip", "zero_shot"'
    said = execute("pretrained", place, changes, until="plan")
    shutil.rmtree(place / "clip")  # 0.6 GB
    assert (place / "names.txt").read_text().split() == list("0123456789")
    assert "wrote head.npz: 10 classes, 1 templates" in text(said["head"])
    assert "pretrain: clip, classifier: zero_shot" in text(said["plan"])


@pytest.mark.slow
def test_a_command_that_fails_stops_the_notebook(place):
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match=r"the run stopped; its last message says why"):
        execute("quickstart", place, 'workdir, argument = "runs/none", "nonsense"', until="run")
    assert not (place / "runs/none").exists()
