import importlib.metadata

import pytest

from robust_jax.zero_shot import prompts

METADATA = """
OPENAI_IMAGENET_TEMPLATES = (
    lambda c: f'a bad photo of a {c}.',
    lambda name: f"{name} in a {{box}}",
)
SIMPLE_IMAGENET_TEMPLATES = [lambda c: f'itap of a {c}.']
IMAGENET_CLASSNAMES = ("tench", 'great white shark', "missile", "missile")
raise SystemExit("executed")
"""


@pytest.fixture
def metadata(tmp_path, monkeypatch):
    path = tmp_path / "zero_shot_metadata.py"
    path.write_text(METADATA)
    monkeypatch.setattr(prompts, "installed_file", lambda *_: path)
    return path


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "lines.txt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def test_lists_are_read_without_executing_the_file(metadata):
    assert prompts.templates("openai_80") == ("a bad photo of a {}.", "{} in a {box}")
    assert prompts.templates("simple_7") == ("itap of a {}.",)
    assert prompts.class_names("imagenet") == ("tench", "great white shark", "missile", "missile")


@pytest.mark.parametrize(
    "text",
    [
        "OTHER = ()",
        "OPENAI_IMAGENET_TEMPLATES = make()",
        "OPENAI_IMAGENET_TEMPLATES = ('a {}.',)",
        "OPENAI_IMAGENET_TEMPLATES = (lambda c: f'a photo',)",
        "OPENAI_IMAGENET_TEMPLATES = (lambda c: f'{c} and {c}',)",
    ],
)
def test_a_file_written_otherwise_is_refused(metadata, text):
    metadata.write_text(text)
    with pytest.raises(ValueError, match="writes its lists in an unexpected way; got"):
        prompts.templates("openai_80")


def test_the_installed_lists():
    try:
        importlib.metadata.version("open_clip_torch")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("open_clip_torch is not installed")
    eighty, seven = prompts.templates("openai_80"), prompts.templates("simple_7")
    assert len(set(eighty)) == 80 and len(set(seven)) == 7
    assert all(template.count("{}") == 1 and "{c}" not in template for template in eighty)
    assert eighty[0] == "a bad photo of a {}." and eighty[-1] == "a tattoo of the {}."
    assert set(seven) <= {"itap of a {}.", "a origami {}.", *eighty}
    names = prompts.class_names("imagenet")
    assert len(names) == 1000
    assert names[0] == "tench" and names[-1] == "toilet paper"


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ValueError, match="run `pip install --no-deps open_clip_torch`"):
        prompts.templates("openai_80")


def test_named_templates_and_files_of_the_user(write):
    assert prompts.templates("none") == ("{}",)
    assert prompts.templates("photo") == ("a photo of a {}.",)
    assert prompts.templates(write("\ufeffa {}.\r\n{} outdoors\r\n")) == ("a {}.", "{} outdoors")


def test_class_names_of_the_user_and_their_prompts(write):
    names = prompts.class_names(write("cat, house cat\ndog\ncurly {x}"))
    assert names == ("cat, house cat", "dog", "curly {x}")
    assert prompts.prompts(names[0], ("a {}.", "{}")) == (
        "a cat.",
        "cat",
        "a house cat.",
        "house cat",
    )
    assert prompts.prompts(names[2], ("a {}.",)) == ("a curly {x}.",)


def test_mistakes_in_files_are_named(write):
    for text, message in (
        ("a {}\na photo\n", r"needs {} once.*got 'a photo' in line 2"),
        ("{} and {}\n", r"needs {} once.*got '{} and {}' in line 1"),
        ("a {}\n\nb {}\n", r"a blank line; got line 2 of"),
        ("a {}\nb {}\na {}\n", r"the same line twice; got 'a {}' in lines 1 and 3"),
        ("", r"an empty file; got .*openai_80, simple_7, none, photo"),
        (b"\xff\xfe{}", r"cannot read this file"),
    ):
        with pytest.raises(ValueError, match=message):
            prompts.templates(write(text))
    for text, message in (
        ("cat,\ndog", r"an empty alias; got 'cat,' in line 1"),
        ("cat\ndog\ncat", r"the same line twice"),
    ):
        with pytest.raises(ValueError, match=message):
            prompts.class_names(write(text))
    with pytest.raises(ValueError, match=r"cannot read this file .*got 'openai_8'; give templates"):
        prompts.templates("openai_8")


def test_canonical_texts_are_those_of_lits_evaluation():
    got = prompts.canonical(("A  photo of_a {}. {", "Itap, of {}!"), "{}")
    assert got == ("a photo of a {}", "itap of {}")
    assert prompts.canonical(("Shih-Tzu, T-Shirt's (red)",), ",") == ("shihtzu, tshirts red",)
    with pytest.raises(ValueError, match=r"nothing but punctuation; got '\?!'"):
        prompts.canonical(("cat", "?!"), ",")
