"""The page around the tables and figures of a report; $NAME is filled in."""

from string import Template

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Robustness report: $name</title>
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
thead tr > :first-child { background: var(--band); } tbody th { font-weight: 500; }
small { color: var(--soft); display: block; font-size: .82rem; }
figure { margin: 0; max-width: 44rem; } a { color: var(--link); } summary { cursor: pointer; }
figure img { display: block; width: 100%; background: #fff; padding: .5rem; margin: .8rem 0; }
pre { overflow-x: auto; background: var(--band); padding: 1rem; font: .85rem/1.45 monospace; }
.scroll, img, pre { border: 1px solid var(--line); border-radius: 6px; }
</style></head><body><h1>Robustness report: $name</h1>
<dl>$facts</dl>
<h2>Conclusion</h2>$conclusion
<h2>All methods</h2>$methods
<p class="note">Under an accuracy stands its 95&nbsp;% Wilson interval. A star marks the best value
of a column, and only where its interval lies above every other one. Each image counts once, however
many corruptions and seeds it was shown with. The intervals cover the choice of test images, not the
differences between training runs. “-” means not measured. F_correct is the share of clean images
answered by the clean head and of corrupted images answered by the unclean head.</p>
$categories$figures
<h2>Configuration</h2>
<details><summary>Every setting of this run</summary><pre>$config</pre></details>
$absent</body></html>
""")
