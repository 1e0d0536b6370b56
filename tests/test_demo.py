"""The demo page: what it shows; the page itself where Gradio and Chromium are installed."""

import importlib.util
import shutil

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import robust_jax
from robust_jax import demo
from robust_jax.corruptions import corrupt
from robust_jax.validation import CHOICES

pytest_plugins = ["finished_run"]


@pytest.fixture(scope="module")
def classifier(finished):
    return robust_jax.load(finished)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def test_a_look_is_what_both_models_say(classifier, image):
    seen = classifier.prepare(image, "x")
    plain = demo.look(classifier, image, demo.NONE, 5)
    np.testing.assert_array_equal(plain.image, seen)
    np.testing.assert_array_equal(
        demo.look(classifier, image, "gaussian_noise", 0).image, plain.image
    )
    noisy = demo.look(classifier, image, "gaussian_noise", 4)
    np.testing.assert_array_equal(noisy.image, corrupt(seen[None], "gaussian_noise", 4, ids=[0])[0])
    np.testing.assert_allclose(noisy.original, classifier.original(noisy.image[None])[0])
    np.testing.assert_allclose(noisy.ours.probs, classifier.answer(noisy.image[None]).probs)
    assert not np.array_equal(noisy.original, plain.original)
    with pytest.raises(ValueError, match=r"unknown corruption"):
        demo.look(classifier, image, "rain", 1)


def test_the_original_is_what_the_student_was(finished, classifier, image):
    from runs import networks

    from robust_jax.models import normalise

    found = networks(finished)
    pixels = classifier.prepare(image, "x")[None]
    model, entry = found.network("student")
    logits = model.apply(found.variables("pretrain"), normalise(pixels, entry))
    wanted = np.exp(np.asarray(logits)) / np.exp(np.asarray(logits)).sum()
    np.testing.assert_allclose(classifier.original(pixels), wanted, rtol=1e-4)


def test_every_rule_has_its_words():
    assert set(demo.RULES) == set(CHOICES["selection.score"])


def test_words(classifier, image):
    said = demo.look(classifier, image, "fog", 3)
    names = demo.likely(classifier.class_names, said.original)
    assert len(names) == demo.SHOWN
    assert list(names.values()) == sorted(said.original.tolist(), reverse=True)[: demo.SHOWN]
    assert demo.likely(("a", "a", "b"), np.array([0.2, 0.7, 0.1])) == pytest.approx(
        {"a (1)": 0.7, "a (0)": 0.2, "b": 0.1}
    )
    rows = demo.why(said.ours)
    assert [row[0].split()[0] for row in rows] == ["clean", "unclean", "combined"]
    assert [row[0].endswith("(answered)") for row in rows].index(True) == said.ours.head[0]
    assert sum("answered" in row[0] for row in rows) == 1
    assert rows[2][2] == "reference"
    looks = [demo.look(classifier, image, "fog", severity) for severity in range(6)]
    figure = demo.sweep(looks, "fog", classifier.class_names)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    ours = axes.lines[1].get_ydata()
    chosen = looks[0].ours.label[0]
    assert ours[3] == pytest.approx(said.ours.probs[0, chosen])
    assert len(ours) == 6


def test_small_images_are_enlarged():
    small = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    large = demo.enlarged(small)
    assert large.shape == (4 * 42, 6 * 42, 3)
    np.testing.assert_array_equal(large[::42, ::42], small)
    assert demo.enlarged(large) is not small and demo.enlarged(large).shape == large.shape


def test_mistakes_of_the_command_line(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"the demo needs Gradio; .* requirements-demo.txt"):
        demo.main([str(finished)])
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ValueError, match=r"--examples is not a folder"):
        demo.main([str(finished), "--examples", str(tmp_path / "none")])


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_in_a_browser(classifier, image, tmp_path, width):
    for needed in ("gradio", "playwright"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed (requirements-demo.txt)")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    from PIL import Image
    from playwright.sync_api import expect, sync_playwright

    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    app = demo.page(classifier, [str(path)])
    _, address, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        with sync_playwright() as started:
            browser = started.chromium.launch(
                executable_path=CHROMIUM,
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
            tab = browser.new_page(viewport={"width": width, "height": 900})
            errors = []
            tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else 0)
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.goto(address)
            tab.set_input_files("input[type=file]", str(path))
            label = tab.locator("[data-testid=label-output-value]").nth(1)
            expect(label).to_be_visible(timeout=60_000)
            before = tab.locator("body").inner_text()
            tab.get_by_label("corruption").click()
            tab.get_by_role("option", name="contrast", exact=True).click()
            tab.get_by_label("number input for severity").fill("5")
            tab.keyboard.press("Enter")
            expect(tab.locator(".matplotlib img, .plot-container img").first).to_be_visible(
                timeout=60_000
            )
            tab.wait_for_function("text => document.body.innerText !== text", arg=before)
            expect(tab.get_by_text("processing")).to_have_count(0, timeout=60_000)
            wide = tab.evaluate("document.documentElement.scrollWidth")
            tab.screenshot(path=str(tmp_path / f"demo_{width}.png"), full_page=True)
            browser.close()
        assert wide <= width
        # What a page without a network cannot fetch is no error of the page.
        assert [e for e in errors if "net::ERR" not in e] == []
    finally:
        app.close()
