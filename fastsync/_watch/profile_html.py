"""A Recording of fastsync.profile as one HTML page that needs nothing else, no network either."""

import html
import json

from fastsync._watch.profile_report import calls, duration, headline, place, rows, title


def _tree(data, entries):
    """Return nested [name, ns, children] of the stacks of these entries, outermost call first."""
    root = ["all", 0.0, {}]
    for lock, _, stack, *_, ns in entries:
        at = root
        at[1] += ns
        row = data["locks"][lock]
        label = f"{row['kind']} {row['name']!r}" if row["name"] else row["kind"]
        for name in [*calls(data["stacks"][stack]), f"{label} #{lock + 1}"]:
            at = at[2].setdefault(name, [name, 0.0, {}])
            at[1] += ns
    return _listed(root)


def _listed(node):
    name, ns, children = node
    return [name, round(ns), [_listed(child) for child in children.values()]]


def _shown(data):
    """Return what the page's program draws."""
    directory = data["directory"]
    found = rows(data)
    locks = []
    for row in found:
        locks.append(
            {
                "index": row["index"],
                "title": title(row, directory),
                "work": row["work"],
                "waits": row["waits"],
                "numbers": [row[key] for key in ("total", "mean", "p50", "p99", "longest")],
                "threads": row["threads"],
                "going_on": row["going_on"],
                "waiting": _listed_places(row["waiting"], directory),
                "holding": _listed_places(row["holding"], directory),
                "pairs": [[a, b, ns] for a, b, ns in row["pairs"][:20]],
            }
        )
    threads = {}
    for lock, thread, _, count, ns in data["waits"]:
        who = data["threads"][thread]
        key = f"{who['name']} ({who['pid']})" if len(data["pids"]) > 1 else who["name"]
        sums = threads.setdefault(key, [key, 0.0, 0.0, 0.0, 0])
        sums[2 if data["locks"][lock]["work"] else 1] += ns / 1e9
        sums[4] += round(count)
    for _, thread, _, _, ns in (entry for entry in data["holders"]):
        who = data["threads"][thread]
        key = f"{who['name']} ({who['pid']})" if len(data["pids"]) > 1 else who["name"]
        threads.setdefault(key, [key, 0.0, 0.0, 0.0, 0])[3] += ns / 1e9
    real = [entry for entry in data["waits"] if not data["locks"][entry[0]]["work"]]
    held = [entry for entry in data["holders"] if not data["locks"][entry[0]]["work"]]
    return {
        "locks": locks,
        "threads": sorted(threads.values(), key=lambda sums: -sums[1]),
        "waiters": _tree(data, real),
        "holders": _tree(data, held),
        "slots": data["slots"],
        "slot": data["slot_ns"] / 1e9,
        "elapsed": data["elapsed_ns"] / 1e9,
    }


def _listed_places(places, directory):
    return [
        [place(site, directory), ", ".join(who[:6]), seconds, share]
        for site, who, seconds, share in places[:20]
    ]


def page(data):
    """Return the page."""
    found = rows(data)
    shown = json.dumps(_shown(data), separators=(",", ":"))
    shown = shown.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    processes = len(data["pids"])
    facts = [
        f"{duration(data['elapsed_ns'] / 1e9)} recorded",
        f"{processes} process{'es' * (processes > 1)}",
        f"{data['kept']:,.0f} waits kept at a rate of {duration(data['rate_ns'] / 1e9)}",
        data["program"],
    ]
    return (
        _PAGE.replace("@TITLE@", html.escape(f"Contention: {data['program']}"))
        .replace("@HEADLINE@", html.escape(headline(data, found)))
        .replace("@FACTS@", html.escape(" \u00b7 ".join(facts)))
        .replace("@DATA@", shown)
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title>
<style>
:root { --ink: #1d2733; --dim: #66727f; --line: #dfe4ea; --lock: #c2410c; --work: #2563a8;
  --paper: #fff; --soft: #f5f7f9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --dim: #98a4b0; --line: #38424d;
  --lock: #f0843c; --work: #6aa9e9; --paper: #161b21; --soft: #1f262e; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1200px; margin: 0 auto; padding: 16px 24px 60px; overflow-wrap: anywhere; }
h1 { font-size: 20px; margin: 8px 0 2px; font-weight: 600; }
h2 { font-size: 15px; margin: 28px 0 8px; }
.facts, .note { color: var(--dim); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: 4px 8px; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; font-variant-numeric: tabular-nums; }
th { font-weight: 600; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--work); }
th[aria-sort] button::after { content: " \\25BE"; }
th[aria-sort=ascending] button::after { content: " \\25B4"; }
td.text, th.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tbody tr.lock { cursor: pointer; }
tbody tr.lock:hover, tr.detail { background: var(--soft); }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 6px; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 4px 28px; text-align: left; }
.columns b { display: block; font-weight: 600; margin-top: 4px; }
.scroll { overflow-x: auto; }
@media (max-width: 700px) { body { padding: 12px 12px 40px; }
  .columns { grid-template-columns: 1fr; } td.text { min-width: 14em; } }
.bar { display: inline-block; height: 8px; background: var(--lock); margin-right: 6px; }
svg { display: block; width: 100%; background: var(--soft); }
svg text { font: 11px system-ui, sans-serif; pointer-events: none; }
svg rect { stroke: var(--paper); stroke-width: .5; }
svg g.call { cursor: pointer; }
#tip { position: fixed; background: var(--ink); color: var(--paper); padding: 3px 8px;
  pointer-events: none; display: none; max-width: 70vw; border-radius: 3px; }
</style>
</head>
<body>
<h1 id="headline">@HEADLINE@</h1>
<div class="facts">@FACTS@</div>
<h2>Locks</h2>
<div class="scroll"><table id="locks"><thead></thead><tbody></tbody></table></div>
<p class="note">Click a row for who waited and who held, a heading to sort.
Blue: waiting for work, which is no contention.</p>
<h2>Time line: threads that waited for a lock, on average</h2>
<svg id="time" height="120" role="img" aria-label="time line"></svg>
<h2>Who lost time: stacks of the waits <button class="reset" hidden>whole</button></h2>
<svg id="waiters" role="img" aria-label="flame graph of the waiters"></svg>
<h2>Who made them wait: stacks of the sections' ends
<button class="reset" hidden>whole</button></h2>
<svg id="holders" role="img" aria-label="flame graph of the holders"></svg>
<h2>Threads</h2>
<div class="scroll"><table id="threads"><thead></thead><tbody></tbody></table></div>
<div id="tip"></div>
<script id="data" type="application/json">@DATA@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const tip = document.getElementById("tip");

function duration(s) {
  for (const [unit, size] of [["s", 1], ["ms", 1e-3], ["\\u00b5s", 1e-6]])
    if (s >= size) {
      const value = s / size;
      return (value < 1000 ? Number(value.toPrecision(3)) : Math.round(value)) + " " + unit;
    }
  return s > 0 ? Math.round(s * 1e9) + " ns" : "0";
}

function element(parent, name, attributes, text) {
  const made = parent.namespaceURI === SVG || name === "svg"
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
}

function showTip(node, text) {
  node.addEventListener("mousemove", event => {
    tip.textContent = text;
    tip.style.display = "block";
    tip.style.left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = event.clientY + 16 + "px";
  });
  node.addEventListener("mouseleave", () => { tip.style.display = "none"; });
}

// A table whose headings sort it.  columns: [heading, value of a row, text of a row or null].
function table(id, columns, rows, decorate) {
  const head = document.querySelector(`#${id} thead`);
  const body = document.querySelector(`#${id} tbody`);
  const line = element(head, "tr");
  let sorted = null, down = true;
  function fill() {
    body.replaceChildren();
    for (const row of rows) {
      const tr = element(body, "tr");
      for (const [, value, text] of columns) {
        const td = element(tr, "td", text ? {} : {class: "text"}, (text || value)(row));
        td.dataset.value = value(row);
      }
      if (decorate) decorate(tr, row);
    }
  }
  for (const [index, [heading, value, text]] of columns.entries()) {
    const th = element(line, "th", text ? {} : {class: "text"});
    element(th, "button", {}, heading).addEventListener("click", () => {
      down = sorted === index ? !down : Boolean(text);
      sorted = index;
      for (const other of line.children) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => {
        const x = value(a), y = value(b), order = x < y ? -1 : x > y ? 1 : 0;
        return down ? -order : order;
      });
      fill();
    });
  }
  fill();
}

const number = index => [row => row.numbers[index], row => duration(row.numbers[index])];
table("locks", [
  ["lock", row => row.title + (row.going_on ? ` (${row.going_on} still waiting)` : ""), null],
  ["waited", ...number(0)], ["waits", row => row.waits, row => row.waits.toLocaleString("en")],
  ["mean", ...number(1)], ["p50", ...number(2)], ["p99", ...number(3)],
  ["longest", ...number(4)], ["threads", row => row.threads, row => row.threads],
], data.locks, (tr, row) => {
  tr.className = "lock";
  tr.tabIndex = 0;
  const dot = document.createElement("span");
  dot.className = "dot";
  dot.style.background = row.work ? "var(--work)" : "var(--lock)";
  tr.firstChild.prepend(dot);
  const toggle = () => {
    const next = tr.nextElementSibling;
    if (next && next.className === "detail") { next.remove(); return; }
    const detail = document.createElement("tr");
    detail.className = "detail";
    tr.after(detail);
    const cell = element(detail, "td", {colspan: 8, class: "text"});
    const columns = element(cell, "div", {class: "columns"});
    const held = row.work ? "given at" : "held at (the end of the section)";
    const sides = [["waited at", row.waiting], [held, row.holding]];
    for (const [heading, places] of sides) {
      const column = element(columns, "div");
      element(column, "b", {}, heading);
      for (const [where, who, seconds, share] of places) {
        const entry = element(column, "div");
        element(entry, "span", {class: "bar", style: `width:${Math.max(1, share * 80)}px`});
        entry.append(`${Math.round(share * 100)} %  ${duration(seconds)}  ${where}  [${who}]`);
      }
    }
    element(cell, "b", {}, row.pairs.length ? "who made whom wait" : "");
    for (const [holder, waiter, seconds] of row.pairs)
      element(cell, "div", {}, `${duration(seconds)}  ${holder} \\u2192 ${waiter}`);
  };
  tr.addEventListener("click", toggle);
  tr.addEventListener("keydown", event => { if (event.key === "Enter") toggle(); });
});

table("threads", [
  ["thread", row => row[0], null],
  ["waited for locks", row => row[1], row => duration(row[1])],
  ["made others wait", row => row[3], row => duration(row[3])],
  ["waited for work", row => row[2], row => duration(row[2])],
  ["waits", row => row[4], row => row[4].toLocaleString("en")],
], data.threads);

function colour(text) {
  let hash = 7;
  for (const letter of text) hash = (hash * 31 + letter.charCodeAt(0)) >>> 0;
  return `hsl(${10 + hash % 45} ${55 + hash % 30}% ${58 + (hash >> 8) % 14}%)`;
}

function flame(id, root) {
  const svg = document.getElementById(id), HEIGHT = 18;
  const reset = svg.previousElementSibling.querySelector(".reset");
  let focus = root;
  function depth(node) { return 1 + Math.max(0, ...node[2].map(depth)); }
  function draw() {
    svg.replaceChildren();
    const width = svg.clientWidth || 1100;
    svg.setAttribute("height", Math.max(1, depth(focus)) * HEIGHT);
    reset.hidden = focus === root;
    if (!focus[1]) {
      element(svg, "text", {x: 8, y: 13, fill: "currentColor"}, "nothing");
      return;
    }
    const place = (node, x, level) => {
      const w = node[1] / focus[1] * width;
      if (w < 0.5) return;
      const g = element(svg, "g", {class: "call"});
      const fill = colour(node[0]);
      element(g, "rect", {x, y: level * HEIGHT, width: w, height: HEIGHT - 1, fill});
      if (w > 40)
        element(g, "text", {x: x + 4, y: level * HEIGHT + 13, fill: "#1d2733"},
                node[0].slice(0, Math.floor(w / 6.2)));
      const share = (100 * node[1] / root[1]).toFixed(1);
      showTip(g, `${node[0]}: ${duration(node[1] / 1e9)}, ${share} %`);
      g.addEventListener("click", () => { focus = node; draw(); });
      for (const child of [...node[2]].sort((a, b) => b[1] - a[1])) {
        place(child, x, level + 1);
        x += child[1] / focus[1] * width;
      }
    };
    place(focus, 0, 0);
  }
  reset.addEventListener("click", () => { focus = root; draw(); });
  addEventListener("resize", draw);
  draw();
}
flame("waiters", data.waiters);
flame("holders", data.holders);

function timeLine() {
  const svg = document.getElementById("time");
  const width = svg.clientWidth || 1100, height = 120, foot = 18;
  svg.replaceChildren();
  const count = Math.max(1, Math.ceil(data.elapsed / data.slot));
  const work = new Set(data.locks.filter(row => row.work).map(row => row.index));
  const sums = new Array(count).fill(0);
  for (const [lock, slot, ns] of data.slots)
    if (!work.has(lock) && slot < count) sums[slot] += ns / 1e9 / data.slot;
  const most = Math.max(1, ...sums);
  sums.forEach((value, slot) => {
    const h = value / most * (height - foot - 12);
    const bar = element(svg, "rect", {x: slot / count * width, y: height - foot - h,
      width: Math.max(1, width / count), height: h, fill: "var(--lock)"});
    showTip(bar, `${(slot * data.slot).toFixed(2)} s: ${value.toFixed(2)} threads waited`);
  });
  for (let i = 0; i <= 5; i++)
    element(svg, "text", {x: Math.min(i / 5 * width, width - 2), y: height - 5,
      fill: "currentColor", "text-anchor": i === 0 ? "start" : i === 5 ? "end" : "middle"},
      duration(i / 5 * data.elapsed));
  element(svg, "text", {x: 4, y: 11, fill: "currentColor"}, most.toFixed(1) + " threads");
}
addEventListener("resize", timeLine);
timeLine();
</script>
</body>
</html>
"""
