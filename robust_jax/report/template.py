"""What all pages share: the page around tables and figures, a table, a figure; $NAME is filled in.

No script, no font and no address from elsewhere: a page opens without a network.
"""

from collections.abc import Iterable, Mapping
from html import escape
from string import Template

from etils import epath

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --page: #fdfdfc; --ink: #1d1f21; --soft: #5b6066;
  --line: #dcdcd8; --band: #f3f3ef; --link: #005a9c; }
@media (prefers-color-scheme: dark) { :root { --page: #17191b; --ink: #e4e4e0; --soft: #a3a8ad;
  --line: #3a3e42; --band: #212427; --link: #7cbcf0; } }
body { margin: 0 auto; padding: 2rem 1.1rem 4rem; max-width: 56rem; background: var(--page);
  color: var(--ink); font: 1.0625rem/1.6 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.6rem 0 .6rem; }
* { box-sizing: border-box; } p, dl { max-width: 44rem; margin: .6rem 0; }
.note, figcaption { color: var(--soft); font-size: .94rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .8rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-top: 1px solid var(--line); font-size: .95rem; line-height: 1.35; }
thead th { background: var(--band); white-space: normal; vertical-align: bottom; border: 0; }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
thead tr > :first-child { background: var(--band); }
tbody th { font-weight: 500; min-width: min(12rem, 30vw); white-space: normal; }
small { color: var(--soft); display: block; font-size: .82rem; }
figure { margin: 0; max-width: 44rem; } a { color: var(--link); } summary { cursor: pointer; }
figure img { display: block; width: 100%; background: #fff; padding: .5rem; margin: .8rem 0; }
pre { overflow-x: auto; background: var(--band); padding: 1rem; font: .85rem/1.45 monospace; }
.scroll, img, pre { border: 1px solid var(--line); border-radius: 6px; }
.runs { columns: 15rem; padding-left: 1.1rem; overflow-wrap: anywhere; }
</style></head><body><h1>$title</h1>
<dl>$facts</dl>
$body</body></html>
""")

RUN = Template("""<h2>Conclusion</h2>$conclusion
<h2>All methods</h2>$methods
<p class="note">Under an accuracy stands its 95&nbsp;% Wilson interval. A star marks the best value
of a column, and only where its interval lies above every other one. Each image counts once, however
many corruptions and seeds it was shown with. The intervals cover the choice of test images, not the
differences between training runs. “-” means not measured. F_correct is the share of clean images
answered by the clean head and of corrupted images answered by the unclean head.</p>
$categories$figures
<h2>Configuration</h2>
<details><summary>Every setting of this run</summary><pre>$config</pre></details>
$absent""")


def write(path: epath.Path, text: str) -> None:
    """Writes a page as UTF-8; what has no code there, as in the names of some files, as \\udc80."""
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def facts(known: Mapping[str, str]) -> str:
    """The terms and definitions of a page, from text."""
    return "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in known.items()
    )


def table(headings: Iterable[str], rows: Iterable[list[str]]) -> str:
    """A table that scrolls in its own box; headings are text, cells are HTML."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def figure(name: str, title: str, alt: str, caption: str) -> str:
    """A figure with its heading and a link to its PDF; all of it HTML."""
    return (
        f'<h2>{title}</h2><figure><a href="{name}.png"><img src="{name}.png" alt="{alt}"></a>'
        f'<figcaption>{caption} <a href="{name}.pdf">PDF</a></figcaption></figure>'
    )
