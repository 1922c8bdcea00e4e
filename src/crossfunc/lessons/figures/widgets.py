"""What a reader moves: references of two elements, how far training can carry them, epochs of a run, lessons 1 to 3.

Each is a piece of HTML that computes in the page: no server, no other host, sliders that a keyboard moves, results in
words beside the picture. Names from data are set as text.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import numpy as np


class Widget:
    """HTML that Jupyter and the book show as it is."""

    def __init__(self, html: str, words: str):
        self.html, self.words = html, words

    def _repr_mimebundle_(self, **_):
        return {"text/html": self.html, "text/plain": f"<interactive: {self.words}>"}


def two_references(table, elements, *, unit: str = "eV/atom") -> Widget:
    """Let a reader find the references of two elements by moving them, until the points lie on the diagonal.

    Parameters
    ----------
    table : DataFrame
        One row per material: `formula`, the atomic fraction of each of the two elements under its symbol, and
        `difference_ev`, what is left for the two of them to explain.
    elements : tuple of str
        Symbols of the two elements.
    unit : str

    Returns
    -------
    Widget
    """
    first, second = elements
    fractions = table[[first, second]].to_numpy(dtype=float)
    best, *_ = np.linalg.lstsq(fractions, table["difference_ev"].to_numpy(dtype=float), rcond=None)
    reach = float(np.ceil(2 * max(1.0, np.abs(best).max())))
    data = {
        "elements": [first, second],
        "points": [
            [str(formula), round(float(a), 5), round(float(b), 5), round(float(y), 5)]
            for formula, (a, b), y in zip(table["formula"], fractions, table["difference_ev"], strict=True)
        ],
        "best": [round(float(value), 3) for value in best],
        "reach": reach,
        "unit": unit,
    }
    words = f"move the references of {first} and {second} until their sum explains the difference of each material"
    return _widget(data, words, _TWO_REFERENCES)


def reach_of_references(needed_ev, *, learning_rate: float, n_steps: int) -> Widget:
    r"""Let a reader choose learning rate and steps, and see which references can arrive.

    Adam moves a parameter by about the learning rate per step, so under a cosine schedule from :math:`\eta` to zero no
    reference walks further than about :math:`\eta n / 2` in n steps, and one that few steps show not even that far.

    Parameters
    ----------
    needed_ev : Series
        Symbol -> what the learning rates have to add up to, eV; from `four_methods.rates_needed`.
    learning_rate : float
        Where the slider starts.
    n_steps : int

    Returns
    -------
    Widget
    """
    ordered = needed_ev.abs().sort_values()
    data = {
        "needed": [[str(symbol), round(float(value), 4)] for symbol, value in ordered.items()],
        "rate": float(np.log10(learning_rate)),
        "steps": float(np.log10(max(1, n_steps))),
    }
    words = "choose learning rate and steps, and see which element references can arrive"
    return _widget(data, words, _REACH)


def parity_over_epochs(runs, names, *, most_points: int = 150) -> Widget:
    """Let a reader play a run: energies and forces of held-out frames against their labels, epoch after epoch.

    Parameters
    ----------
    runs : dict of str to ParityRecorder
        Recorders of runs that were asked about the same frames at the same times.
    names : dict of str to str
        What each run is called.
    most_points : int
        At most so many points of each kind are drawn, evenly chosen; errors are of all.

    Returns
    -------
    Widget
    """
    kinds = [("energy", "energy (eV/atom)", "meV/atom"), ("forces", "force (eV/Å)", "meV/Å")]
    first = next(iter(runs.values()))
    chosen = {kind: _evenly(len(labels), most_points) for kind, labels in first.labels.items()}
    data = {
        "epochs": [round(row["epoch"], 3) for row in first.rows],
        "names": [names[key] for key in runs],
        "kinds": [
            {
                "title": title,
                "unit": unit,
                "labels": _short(first.labels[kind][chosen[kind]]),
                "predicted": [
                    [_short(np.asarray(row[kind])[chosen[kind]]) for row in run.rows] for run in runs.values()
                ],
                "errors": [
                    [round(1000 * float(np.abs(row[kind] - run.labels[kind]).mean()), 1) for row in run.rows]
                    for run in runs.values()
                ],
            }
            for kind, title, unit in kinds
        ],
    }
    words = f"play the epochs of {len(runs)} runs, and see what happens to the energies and forces of held-out frames"
    return _widget(data, words, _PLAYER)


def laboratory(sets: Iterable[Mapping[str, Any]]) -> Widget:
    """Let a reader repeat lessons 1 to 3: choose materials, subtract references, and see how far two functionals agree.

    Parameters
    ----------
    sets : iterable of dict
        Energies of one dataset each, from `crossfunc.lessons.laboratory.energies_for_page`; the first is shown first.

    Returns
    -------
    Widget
    """
    script = files("crossfunc.lessons.figures").joinpath("laboratory.js").read_text(encoding="utf-8")
    words = "choose materials and what is subtracted from their energies, and see how far two functionals agree"
    widget = _widget({"sets": list(sets)}, words, script)
    without = "<noscript><p>Here the page computes in your browser, which needs JavaScript.</p></noscript>"
    return Widget(widget.html + without, words)


def _evenly(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def _short(values) -> list[float]:
    return np.round(np.asarray(values, float), 3).tolist()


def _widget(data: dict, words: str, script: str) -> Widget:
    text = json.dumps(data, sort_keys=True, ensure_ascii=True)
    identity = "xf-widget-" + hashlib.sha256((text + words).encode()).hexdigest()[:12]
    page = (
        f'<div id="{identity}" class="xf-widget" role="group" aria-label="{words}"></div>\n'
        f"<script>(function () {{\nconst data = {text.replace('<', chr(92) + 'u003c')};\n"
        f'const box = document.getElementById("{identity}");\n{_COMMON}{script}}})();</script>'
    )
    return Widget(page, words)


_COMMON = """
const svgNS = "http://www.w3.org/2000/svg";
function add(parent, name, attributes, text) {
  const node = name === "svg" || parent.namespaceURI === svgNS
    ? document.createElementNS(svgNS, name) : document.createElement(name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}
function slider(label, from, to, step, value, show, changed) {
  const line = add(box, "label", {style: "display:block;margin:.3em 0"});
  const said = add(line, "span", {style: "display:inline-block;min-width:17em"});
  const input = add(line, "input", {type: "range", min: from, max: to, step: step, value: value,
    style: "width:min(20em,100%);vertical-align:middle"});
  function tell() {
    said.textContent = label + ": " + show(Number(input.value));
    input.setAttribute("aria-valuetext", show(Number(input.value)));
  }
  input.addEventListener("input", function () { tell(); changed(); });
  tell();
  return input;
}
"""
_TWO_REFERENCES = """
const sliders = data.elements.map(function (symbol) {
  return slider("shift of " + symbol, -data.reach, data.reach, 0.05, 0,
    function (v) { return v.toFixed(2) + " " + data.unit; }, draw);
});
const said = add(box, "p", {"aria-live": "polite", style: "margin:.4em 0"});
const solve = add(box, "button", {type: "button"}, "Solve by least squares");
solve.addEventListener("click", function () {
  sliders.forEach(function (s, i) { s.value = data.best[i]; s.dispatchEvent(new Event("input")); });
});
const picture = add(box, "svg", {viewBox: "0 0 420 300", width: "100%", style: "max-width:480px;display:block",
  role: "img", "aria-label": "difference of each material against what the two references explain"});
const all = data.points.map(function (p) { return p[3]; });
const low = Math.min(0, ...all), high = Math.max(0, ...all), pad = 0.08 * (high - low || 1);
const from = low - pad, to = high + pad;
function x(v) { return 50 + 350 * (Math.max(from, Math.min(to, v)) - from) / (to - from); }
function y(v) { return 260 - 240 * (Math.max(from, Math.min(to, v)) - from) / (to - from); }
add(picture, "line", {x1: x(from), y1: y(from), x2: x(to), y2: y(to), stroke: "currentColor",
  "stroke-dasharray": "5 4", opacity: 0.6});
add(picture, "line", {x1: 50, y1: 260, x2: 400, y2: 260, stroke: "currentColor"});
add(picture, "line", {x1: 50, y1: 20, x2: 50, y2: 260, stroke: "currentColor"});
add(picture, "text", {x: 225, y: 292, "text-anchor": "middle", "font-size": 12, fill: "currentColor"},
  "explained by the two references (" + data.unit + ")");
add(picture, "text", {x: 14, y: 140, "text-anchor": "middle", "font-size": 12, fill: "currentColor",
  transform: "rotate(-90 14 140)"}, "difference (" + data.unit + ")");
[from + pad, to - pad].forEach(function (v) {
  add(picture, "text", {x: x(v), y: 275, "text-anchor": "middle", "font-size": 11, fill: "currentColor"}, v.toFixed(1));
  add(picture, "text", {x: 45, y: y(v) + 4, "text-anchor": "end", "font-size": 11, fill: "currentColor"}, v.toFixed(1));
});
const dots = data.points.map(function (p) {
  const dot = add(picture, "circle", {r: 4, cy: y(p[3]), fill: "#2f7fc1", opacity: 0.8});
  add(dot, "title", {}, p[0]);
  return dot;
});
function draw() {
  const shift = sliders.map(function (s) { return Number(s.value); });
  let wrong = 0;
  data.points.forEach(function (p, i) {
    const explained = p[1] * shift[0] + p[2] * shift[1];
    wrong += Math.abs(p[3] - explained);
    dots[i].setAttribute("cx", x(explained));
  });
  said.textContent = "Mean error of " + data.points.length + " materials: " +
    (1000 * wrong / data.points.length).toFixed(0) + " m" + data.unit + ".";
}
draw();
"""
_REACH = """
const rate = slider("learning rate", -5, -1, 0.1, data.rate,
  function (v) { return Math.pow(10, v).toExponential(1); }, draw);
const steps = slider("optimiser steps", 1, 6, 0.1, data.steps,
  function (v) { return Math.round(Math.pow(10, v)).toLocaleString("en"); }, draw);
const said = add(box, "p", {"aria-live": "polite", style: "margin:.4em 0"});
const n = data.needed.length, most = Math.max(...data.needed.map(function (d) { return d[1]; }), 1e-3);
const picture = add(box, "svg", {viewBox: "0 0 420 260", width: "100%", style: "max-width:480px;display:block",
  role: "img", "aria-label": "what learning rates have to add up to for each element's reference, and what they do"});
function y(v) { return 225 - 205 * Math.min(1, v / (1.05 * most)); }
const bars = data.needed.map(function (d, i) {
  const bar = add(picture, "rect", {x: 45 + 360 * i / n, width: Math.max(1, 360 / n - 1), y: y(d[1]),
    height: 225 - y(d[1])});
  add(bar, "title", {}, d[0] + ": " + d[1].toFixed(2) + " eV");
  if (n <= 40) add(picture, "text", {x: 45 + 360 * (i + 0.5) / n, y: 238, "text-anchor": "middle", "font-size": 9,
    fill: "currentColor"}, d[0]);
  return bar;
});
const line = add(picture, "line", {x1: 45, x2: 405, stroke: "#c1440e", "stroke-width": 2});
add(picture, "text", {x: 225, y: 254, "text-anchor": "middle", "font-size": 12, fill: "currentColor"},
  "elements, by the sum of learning rates that they need");
add(picture, "text", {x: 12, y: 125, "text-anchor": "middle", "font-size": 12, fill: "currentColor",
  transform: "rotate(-90 12 125)"}, "eV");
add(picture, "text", {x: 40, y: y(most) + 4, "text-anchor": "end", "font-size": 11, fill: "currentColor"},
  most.toFixed(1));
add(picture, "text", {x: 40, y: 229, "text-anchor": "end", "font-size": 11, fill: "currentColor"}, "0");
function draw() {
  const reach = Math.pow(10, Number(rate.value)) * Math.round(Math.pow(10, Number(steps.value))) / 2;
  let arrived = 0;
  data.needed.forEach(function (d, i) {
    const there = d[1] <= reach;
    arrived += there;
    bars[i].setAttribute("fill", there ? "#2a8a68" : "#9a9a9a");
  });
  line.setAttribute("y1", y(reach));
  line.setAttribute("y2", y(reach));
  said.textContent = "The learning rates add up to " + reach.toPrecision(2) + " eV: " + arrived + " of " + n +
    " elements can arrive.";
}
draw();
"""
_PLAYER = """
const last = data.epochs.length - 1;
const when = slider("passes over the frames", 0, last, 1, 0,
  function (k) { return data.epochs[k].toLocaleString("en", {maximumFractionDigits: 2}); }, draw);
const play = add(box, "button", {type: "button"}, "Play");
let timer = null;
function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }
function show(k) { when.value = k; when.dispatchEvent(new Event("input")); }
play.addEventListener("click", function () {
  if (timer) { stop(); return; }
  if (Number(when.value) >= last) show(0);
  play.textContent = "Stop";
  timer = setInterval(function () {
    show(Number(when.value) + 1);
    if (Number(when.value) >= last) stop();
  }, 700);
});
const said = add(box, "p", {"aria-live": "polite", style: "margin:.4em 0"});
const n = data.names.length, side = 170, wide = 55 + n * (side + 15), high = 30 + 2 * (side + 50);
const picture = add(box, "svg", {viewBox: "0 0 " + wide + " " + high, width: "100%",
  style: "max-width:" + wide + "px;display:block", role: "img",
  "aria-label": "energies and forces of each run against their labels; points beyond a panel lie on its edge"});
data.names.forEach(function (name, j) {
  add(picture, "text", {x: 55 + j * (side + 15) + side / 2, y: 16, "text-anchor": "middle", "font-size": 13,
    fill: "currentColor"}, name);
});
const panels = data.kinds.map(function (kind, i) {
  const every = kind.predicted.flat(2).concat(kind.labels).sort(function (a, b) { return a - b; });
  const from = Math.min(every[Math.floor(0.005 * every.length)], ...kind.labels);
  const to = Math.max(every[Math.ceil(0.995 * every.length) - 1], ...kind.labels);
  const pad = 0.05 * (to - from || 1), top = 28 + i * (side + 50);
  function at(v) { return side * (Math.max(from - pad, Math.min(to + pad, v)) - from + pad) / (to - from + 2 * pad); }
  add(picture, "text", {x: 14, y: top + side / 2, "text-anchor": "middle", "font-size": 12, fill: "currentColor",
    transform: "rotate(-90 14 " + (top + side / 2) + ")"}, "predicted " + kind.title);
  return data.names.map(function (name, j) {
    const x = 55 + j * (side + 15);
    add(picture, "rect", {x: x, y: top, width: side, height: side, fill: "none", stroke: "currentColor",
      opacity: 0.5});
    add(picture, "line", {x1: x, y1: top + side, x2: x + side, y2: top, stroke: "currentColor",
      "stroke-dasharray": "5 4", opacity: 0.6});
    add(picture, "text", {x: x + side / 2, y: top + side + 28, "text-anchor": "middle", "font-size": 12,
      fill: "currentColor"}, kind.title);
    [from, to].forEach(function (v) {
      add(picture, "text", {x: x + at(v), y: top + side + 13, "text-anchor": v === from ? "start" : "end",
        "font-size": 10, fill: "currentColor"}, v.toFixed(1));
      if (j === 0) add(picture, "text", {x: x - 4, y: top + side - at(v) + 3, "text-anchor": "end", "font-size": 10,
        fill: "currentColor"}, v.toFixed(1));
    });
    const dots = kind.labels.map(function (v) {
      return add(picture, "circle", {cx: x + at(v), r: 2.5, fill: ["#2f7fc1", "#c1440e"][i], opacity: 0.6});
    });
    return function (k) {
      kind.predicted[j][k].forEach(function (v, m) { dots[m].setAttribute("cy", top + side - at(v)); });
    };
  });
});
function draw() {
  const k = Number(when.value);
  panels.flat().forEach(function (move) { move(k); });
  said.textContent = "Mean errors: " + data.names.map(function (name, j) {
    return name + " " + data.kinds.map(function (kind) {
      return Math.round(kind.errors[j][k]).toLocaleString("en") + " " + kind.unit;
    }).join(" and ");
  }).join("; ") + ".";
}
draw();
"""
