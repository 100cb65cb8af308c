"""Style sheet and script of the HTML report."""

STYLE = """
:root { color-scheme: light; --ink: #1c2127; --soft: #5b6570; --line: #e2e6ea; --paper: #ffffff; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 60px; }
header h1 { margin: 0; font-size: 26px; letter-spacing: -0.01em; }
header p { margin: 4px 0 18px; color: var(--soft); overflow-wrap: anywhere; }
h2 { margin: 0 0 2px; font-size: 17px; }
h3 { margin: 0; font-size: 15px; }
section, .facts { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin: 0 0 18px; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.note { margin: 0 0 12px; color: var(--soft); font-size: 13.5px; }
.columns { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.15fr); gap: 18px; }
.columns section { min-width: 0; overflow-x: auto; }
@media (max-width: 900px) { .columns { grid-template-columns: minmax(0, 1fr); gap: 0; } }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; }
th:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 500; }
.figures { min-width: 60%; }
.figures [colspan] { text-align: center; color: var(--ink); }
.figures td.main { font-weight: 700; color: var(--accent); }
.images { width: 100%; }
.images tbody th { font-weight: 500; }
.images tbody tr:hover { background: #f4f8fb; }
.images button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
.images button:hover, .images th[aria-sort] button { color: var(--accent); }
.images th[aria-sort="ascending"] button::after { content: " \\2191"; }
.images th[aria-sort="descending"] button::after { content: " \\2193"; }
.wide { overflow-x: auto; }
article { border-top: 1px solid var(--line); padding: 14px 0 16px; }
article p { margin: 0 0 8px; color: var(--soft); font-size: 13.5px; }
article b { color: var(--ink); font-weight: 600; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 46%), 1fr)); gap: 10px; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; max-height: 300px; object-fit: contain; background: #1c1e22;
  border-radius: 6px; }
figcaption { color: var(--soft); font-size: 12.5px; text-align: center; padding-top: 3px; }
.legend { white-space: nowrap; }
.legend i { display: inline-block; width: 110px; height: 10px; border-radius: 3px; vertical-align: -1px; }
.chart { width: 100%; height: auto; display: block; }
.chart .grid { stroke: var(--line); }
.chart .tick { font-size: 12px; fill: var(--soft); }
.chart .axis { font-size: 12.5px; fill: var(--soft); }
.chart .name { font-size: 13px; font-weight: 600; }
@media print { body { background: none; } section, article { break-inside: avoid; } }
"""

SCRIPT = """
document.querySelectorAll("table.images").forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => { const text = row.cells[column].textContent; return column ? parseFloat(text) : text; };
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (column && (isNaN(x) || isNaN(y))) return isNaN(x) - isNaN(y);
      return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
    };
    [...body.rows].sort(order).forEach(row => body.append(row));
  }));
});
"""
