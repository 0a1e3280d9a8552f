"""HTML of one file: the frame of a page, its style, and tables."""

from collections.abc import Sequence
from html import escape

from edgemeta.names import shown

NONE = "-"
# Colours of lines are told apart by people who see no red or green too (Okabe and Ito 2008), and dashes help on paper.
STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --back: #ffffff; --rule: #d0d7de;
  --raised: #f6f8fa;
  --c0: #0072b2; --c1: #d55e00; --c2: #007a5e; --c3: #b0479a; --c4: #8a6d00; --c5: #2f7fb5; --c6: #6b6b6b;
  --c7: #000000; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9da7b1; --back: #0d1117; --rule: #30363d;
  --raised: #161b22; --c0: #58a6ff; --c1: #ff8f4d; --c2: #3ddc97; --c3: #e58bd6; --c4: #f0d24a; --c5: #9fd3ff;
  --c6: #b0b0b0; --c7: #ffffff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--text); background: var(--back);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--rule); }
p, li { max-width: 46rem; }
.soft { color: var(--soft); font-size: .875rem; }
.wide { overflow-x: auto; }
.wide + .wide { margin-top: 1rem; }
table { border-collapse: collapse; font-size: .8125rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .25rem 0; }
th, td { padding: .3rem .4rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
thead th { background: var(--raised); white-space: normal; overflow-wrap: normal; }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--back); white-space: normal;
  min-width: 7rem; max-width: 14rem; }
thead tr > :first-child { background: var(--raised); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; }
figcaption { font-size: .875rem; font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--rule); stroke-width: 1; }
.key { list-style: none; padding: 0; margin: .5rem 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem;
  font-size: .875rem; }
.key svg { display: inline-block; width: 2rem; height: .75rem; vertical-align: middle; }
@media screen and (max-width: 36rem) { thead { display: none; } table, tbody, tr, td, caption { display: block; }
  tbody th { display: block; position: static !important; max-width: none !important; padding: .6rem 0 .2rem; }
  td { display: flex; justify-content: space-between; padding: .15rem 0; white-space: normal; }
  td.none { display: none; }
  td::before { content: attr(data-of); color: var(--soft); padding-right: 1rem; } }
@media print { :root { color-scheme: light; --text: #000; --soft: #444; --back: #fff; --rule: #bbb; --raised: #eee;
  --c0: #0072b2; --c1: #d55e00; --c2: #007a5e; --c3: #b0479a; --c4: #8a6d00; --c5: #2f7fb5; --c6: #6b6b6b;
  --c7: #000; }
  body { max-width: none; padding: 0; font-size: 9pt; }
  table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; } .wide { overflow: visible; }
  figure, table, li { break-inside: avoid; } h2 { break-after: avoid; } tr > :first-child { position: static; }
  .charts { grid-template-columns: 1fr 1fr; } }
"""


def document(title: str, body: Sequence[str]) -> str:
    """Return a whole page; body: HTML. It asks no network for anything, and runs nothing."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{STYLE}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def text(of: str) -> str:
    """Return text of others as HTML that shows it and does nothing else."""
    return escape(shown(of))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table whose first column names the rows; it scrolls sideways, and on a phone a row is a list."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    body = "".join(f'<tr><th scope="row">{text(name)}</th>{_cells(header[1:], cells)}</tr>' for name, *cells in rows)
    said = f"<caption>{text(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def listing(items: Sequence[str]) -> str:
    """Return sentences as a list."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def _cells(header: Sequence[str], cells: Sequence[str]) -> str:
    """Return a row's cells; NONE in one is nothing to a phone, where it would be a line."""
    kinds = [' class="none"' if cell == NONE else "" for cell in cells]
    found = zip(kinds, header, cells, strict=True)
    return "".join(f'<td{kind} data-of="{text(of)}">{text(cell)}</td>' for kind, of, cell in found)
