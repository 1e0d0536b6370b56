import re

import pytest
from page_reader import Reader
from PIL import Image

from robust_jax.report import page


def cells(text, label):
    """The table rows of a method, as lists of text."""
    rows = re.findall(rf'<th scope="row">{re.escape(label)}</th>(.*?)</tr>', text)
    return [
        [re.sub("<.*?>", " ", c).split() for c in re.findall("<td>(.*?)</td>", r)] for r in rows
    ]


def test_whole_page(run, arrays, write_run):
    root = write_run(*run, arrays)
    path = page.write(root)
    assert str(path) == str(root / "report" / "index.html")
    text = path.read_text()
    reader = Reader(text)
    pngs = [link for link in reader.links if link.endswith(".png")]
    assert len(set(pngs)) == 6
    for link in reader.links:
        assert (root / "report" / link).is_file()
    for png in set(pngs):
        with Image.open(root / "report" / png) as image:
            image.load()
    for fact in ("digits", "2: zero, one", "400, in 228 measurements", "31 to 36 s", "&quot;seed"):
        assert fact in text
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text and "script" not in reader.tags
    assert "Not measured in this run" not in text


def test_intervals_and_stars(run, write_run):
    summary, results = run
    text = page.write(write_run(summary, results)).read_text()
    assert "★" not in text.replace("A star", "")  # APT and ours overlap
    assert cells(text, "ours")[0][1] == ["68.0", "63.3", "to", "72.4"]  # scipy's Wilson, 272 of 400
    summary["methods"]["ours"]["corrupted_accuracy"] = 0.9
    text = page.write(write_run(summary, results)).read_text()
    assert cells(text, "ours")[0][1][:2] == ["★", "90.0"]
    assert text.count("★") == 1


def test_absent_metrics_are_dashes(run, write_run):
    summary, results = run
    text = page.write(write_run(summary, results)).read_text()
    assert cells(text, "original")[1][2:] == [["-"], ["0", "/", "21.7M"], ["-"]]
    for heading in ("mCE", "mFR", "routing AUROC"):
        assert heading not in text
    summary["methods"] = {"original": {"clean_accuracy": 0.9}}
    text = page.write(write_run(summary, results[:1])).read_text()
    assert cells(text, "original") == [[["90.0", "86.7", "to", "92.6"], ["-"], ["-"], ["-"], ["-"]]]
    assert "nothing to compare" in text and "not timed" in text
    assert "<img" not in text


def test_parts_without_data_are_left_out_and_named(run, arrays, write_run):
    root = write_run(*run, arrays)
    page.write(root)
    (root / "evaluate" / "routing.npz").unlink()
    text = page.write(root).read_text()
    assert "routing.png" not in text and "examples.png" in text
    assert "Not measured in this run: routing between the heads." in text
    assert not (root / "report" / "routing.png").exists()  # the earlier report's


def test_everything_from_the_run_is_escaped(run, arrays, write_run):
    summary, results = run
    evil = "<script>alert('$name')</script>"
    summary["dataset"] |= {"name": evil, "classes": [evil, "one"]}
    summary["config"][evil] = evil
    summary["methods"][evil] = dict(summary["methods"]["ours"])
    summary["methods"]["ours"]["accuracy_by_corruption"][evil] = [0.5]
    arrays["examples"]["caption"][:] = evil[:15]
    text = page.write(write_run(summary, results, arrays)).read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#x27;$name&#x27;)") >= 5
    Reader(text)


def test_what_is_missing_is_said(run, write_run, tmp_path):
    with pytest.raises(
        ValueError, match=r"needs summary.json; got none in .*; run the stage evalu"
    ):
        page.write(tmp_path / "nothing")
    summary, results = run
    del results[4]["n"], results[4]["severity"]
    with pytest.raises(ValueError, match=r"got line 5 without \['n', 'severity'\]"):
        page.write(write_run(summary, results))
