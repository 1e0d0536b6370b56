"""The report of a sweep: one static web page, its figures, and the table in Markdown.

Everything that comes from the sweep is escaped before it enters the HTML.
"""

from collections.abc import Iterable, Mapping
from html import escape
from itertools import product

from etils import epath

from robust_jax.report import sweep_plots, sweep_table, template
from robust_jax.report.sweep_table import Entries, Sweep

MARKS = {"bars": "Bars", "lines": "Lines", "scatter": "Points"}
SPACE, JOINER = "\N{NO-BREAK SPACE}", "\N{WORD JOINER}"  # no line ends at them


def write(
    directory: epath.PathLike,
    sweep: Sweep,
    entries: Entries,
    facts: Mapping[str, str],
    links: Iterable[tuple[str, str]],
) -> epath.Path:
    """Draws the figures, writes table.md and index.html, and returns the path of the page.

    Args:
        directory: where they go; a figure of an earlier report that has no data now is removed.
        sweep: the config's section `sweep`.
        entries: (run, seed) -> method -> its entry, as in summary.json.
        facts: what the page says first, name -> text.
        links: the text and the relative address of the report of every run.
    """
    target = epath.Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    for (name, *_), kind in product(sweep["figures"], ("png", "pdf")):
        (target / f"{name}.{kind}").unlink(missing_ok=True)
    figures, absent = "", []
    for figure in sweep["figures"]:
        name, kind, columns, xlabel, ylabel = figure
        title = _title(name)
        if said := sweep_plots.draw(sweep, entries, figure, target / f"{name}.png"):
            alt = (
                f"{MARKS[kind]}: {ylabel}{f' by {xlabel}' if xlabel else ''}; {', '.join(columns)}"
            )
            figures += template.figure(escape(name), escape(title), escape(alt), _text(said))
        else:
            absent.append(title)
    head, *lines = sweep_table.to_grid(sweep, entries)
    reading = _reading(sweep, entries, lines)
    note = [part for part in sweep["note"].split("\n\n") if part.strip()]
    parts = [f"<p>{_text(part)}</p>" for part in note]
    parts.append("<h2>Results</h2>")
    headings = [heading.replace(" %", f"{SPACE}%").replace("-", f"-{JOINER}") for heading in head]
    parts.append(template.table(headings, [[escape(cell) for cell in line] for line in lines]))
    parts += [f'<p class="note">{_text(" ".join(reading))}</p>', figures]
    if absent:
        parts.append(f'<p class="note">Not measured yet: {escape(", ".join(absent))}.</p>')
    if items := [f'<li><a href="{escape(at)}">{escape(text)}</a></li>' for text, at in links]:
        parts.append(f'<h2>Runs</h2><ul class="runs">{"".join(items)}</ul>')
    page = template.PAGE.substitute(
        title=escape(sweep["title"]), facts=template.facts(facts), body="\n".join(parts)
    )
    template.write(target / "index.html", page)
    table = sweep_table.markdown(sweep, entries)
    above = [sweep_table.plain(part) for part in (f"# {sweep['title']}", *note)]
    text = "\n\n".join([*above, table.strip(), " ".join(reading)])
    template.write(target / "table.md", f"{text}\n")
    return target / "index.html"


def _reading(sweep: Sweep, entries: Entries, lines: Iterable[list[str]]) -> list[str]:
    """How to read the numbers of the table, in sentences; only about what is in it."""
    filled = sweep_table.cells(sweep, entries).values()
    values = [cell.value for cell in filled if cell.value is not None]
    wanted, said = len(sweep["seeds"]), []
    if wanted == 1:
        said.append("Every number is of one seed, so it has no interval.")
    else:
        said.append(f"Every number is the mean over {wanted} seeds.")
        if any(value.half for value in values):
            said.append(
                "Behind ± stands half the width of its 95 % interval (Student's t over the seeds): "
                "it covers what changes when a run is repeated with another seed, not the choice "
                "of the test images."
            )
        if any(value.half == 0 for value in values):
            said.append("Without ±, all the seeds gave the same number.")
        if any(value.n < wanted for value in values):
            said.append("Where fewer seeds are finished, their number n stands behind.")
    if any(cell.paper is not None for cell in filled):
        said.append("The columns named “paper” hold what the paper prints.")
    if any("-" in line[1:] for line in lines):
        said.append("“-” means not measured, or not in the paper.")
    return said


def _title(name: str) -> str:
    """The heading of a figure from the name of its file."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _text(text: str) -> str:
    return escape(text).replace(" %", f"{SPACE}%")
