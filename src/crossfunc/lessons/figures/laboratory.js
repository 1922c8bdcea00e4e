/* Lessons 1 to 3 in a page: choose materials, subtract references, compare. `_widget` gives data, box, add, slider. */
const SHARES = [1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100];  // percent of the materials fitted to
const FURTHEST = 4;
const sum = values => values.reduce((total, value) => total + value, 0);
const mean = values => sum(values) / values.length;
const dot = (parts, energies) => sum(parts.map(([j, share]) => share * energies[j]));

/* --- least squares, as crossfunc.fit_atomref does it: the shortest of the best solutions --- */

/* Rows of `vectors` are the eigenvectors of a symmetric matrix, found by Jacobi's rotations. */
function eigen(a) {
  const n = a.length, vectors = a.map((row, i) => row.map((_, j) => Number(i === j)));
  for (let sweep = 0; sweep < 60; sweep++) {
    const off = sum(a.map((row, i) => sum(row.map((x, j) => i === j ? 0 : x * x))));
    if (off <= 1e-30 * sum(a.map((row, i) => row[i] * row[i]))) break;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) {
      if (a[p][q] === 0) continue;
      const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
      const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
      const c = 1 / Math.hypot(t, 1), s = t * c;
      for (let k = 0; k < n; k++) {
        const x = a[k][p], y = a[k][q];
        a[k][p] = c * x - s * y;
        a[k][q] = s * x + c * y;
      }
      for (const rows of [a, vectors]) for (let k = 0; k < n; k++) {
        const x = rows[p][k], y = rows[q][k];
        rows[p][k] = c * x - s * y;
        rows[q][k] = s * x + c * y;
      }
    }
  }
  return {values: a.map((row, i) => row[i]), vectors: vectors};
}

/* Element references of both functionals, and what the rows leave open: changes of them that no row can see. */
function fit(rows) {
  const columns = [...new Set(rows.flatMap(row => row.parts.map(part => part[0])))].sort((i, j) => i - j);
  const place = new Map(columns.map((j, k) => [j, k]));
  const local = row => row.parts.map(([j, share]) => [place.get(j), share]);
  const gram = columns.map(() => new Float64Array(columns.length));
  for (const row of rows) for (const [i, x] of local(row)) for (const [j, y] of local(row)) gram[i][j] += x * y;
  const {values, vectors} = eigen(gram), isSeen = values.map(value => value > 1e-10 * Math.max(...values));
  const open = vectors.filter((_, k) => !isSeen[k]);
  function solve(energies) {
    const c = columns.map(() => 0);
    for (let round = 0; round < 2; round++) {  // the second mends what rounding left
      const b = columns.map(() => 0);
      rows.forEach((row, i) => {
        const missing = energies[i] - dot(local(row), c);
        local(row).forEach(([k, share]) => { b[k] += share * missing; });
      });
      vectors.forEach((vector, k) => {
        const along = isSeen[k] ? sum(vector.map((x, i) => x * b[i])) / values[k] : 0;
        vector.forEach((x, i) => { c[i] += along * x; });
      });
    }
    return Object.fromEntries(columns.map((j, k) => [j, c[k]]));
  }
  return {
    low: solve(rows.map(row => row.low)),
    high: solve(rows.map(row => row.high)),
    isDetermined: j => place.has(j) && open.every(vector => Math.abs(vector[place.get(j)]) < 1e-6),
    isDeterminedFor: row => row.parts.every(part => place.has(part[0])) &&
      open.every(vector => Math.abs(dot(local(row), vector)) < 1e-6),
    rank: columns.length - open.length,
    nElements: columns.length,
  };
}

/* --- the materials --- */

function read(set) {
  const index = new Map(set.elements.map((element, j) => [element[0], j]));
  set.rows ??= set.formulas.split(" ").map((formula, i) => {
    const counts = [...formula.matchAll(/([A-Z][a-z]?)(\d*)/g)].map(m => [index.get(m[1]), Number(m[2] || 1)]);
    const atoms = sum(counts.map(count => count[1]));
    const kind = set.prototypes[set.prototype[i]];
    return {id: i, formula: formula, name: kind ? formula + " (" + kind + ")" : formula, low: set.low[i],
      high: set.high[i], parts: counts.map(([j, n]) => [j, n / atoms])};
  });
  return set;
}

/* A shuffled copy, the same for the same seed (mulberry32): each row gets a number at random, and they are sorted. */
function shuffle(rows, seed) {
  let state = seed;
  function random() {
    state = (state + 0x6D2B79F5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }
  return rows.map(row => [random(), row]).sort((a, b) => a[0] - b[0]).map(entry => entry[1]);
}

function compare(points) {
  const x = points.map(p => p.high), y = points.map(p => p.low), meanX = mean(x), meanY = mean(y);
  const moment = (a, b) => sum(a.map((v, i) => (v - (a === x ? meanX : meanY)) * (b[i] - (b === x ? meanX : meanY))));
  return {
    r: points.length > 2 ? moment(x, y) / Math.sqrt(moment(x, x) * moment(y, y)) : NaN,
    difference: mean(points.map(p => Math.abs(p.high - p.low))),
  };
}

/* --- words and numbers --- */

const minus = text => text.replace("-", "\u2212");
const counted = (n, word) => n.toLocaleString("en") + " " + word + (n === 1 ? "" : "s");
const energy = v => minus(Math.abs(v) < 0.9995 ? (1000 * v).toFixed(0) + " meV/atom" : v.toFixed(2) + " eV/atom");
function correlation(r) {
  if (!isFinite(r)) return "too few materials";
  let digits = 3;
  while (1 - Math.abs(r) > 5e-9 && digits < 8 && Math.abs(Number(r.toFixed(digits))) === 1) digits++;
  return minus(r.toFixed(digits));
}

/* --- controls --- */

add(box, "style", {}, `
.xf-lab { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
.xf-lab > *, .xf-lab fieldset { min-width: 0; flex: 1 1 18rem; }
.xf-lab fieldset { border: 1px solid #8888; border-radius: .3rem; margin: 0 0 .7rem; padding: .2rem .8rem .5rem; }
.xf-lab legend { float: none; width: auto; font-size: 1em; font-weight: 600; padding: 0 .4em; margin: 0; }
.xf-lab label, .xf-lab small { display: block; margin: .25em 0; }
.xf-lab select { max-width: 100%; }
.xf-lab label:has([type=radio]) { padding-left: 1.6em; text-indent: -1.6em; }
.xf-lab table { width: 100%; border-collapse: collapse; margin: .3em 0; }
.xf-lab :is(th, td) { text-align: right; padding: .2em .4em; border-bottom: 1px solid #8886; font-weight: normal;
  font-variant-numeric: tabular-nums; }
.xf-lab :is(th, td):first-child { text-align: left; padding-left: 0; }
.xf-lab td { white-space: nowrap; }
.xf-lab tr:last-child :is(th, td) { font-weight: 600; }
.xf-lab > .xf-lab-wide { flex-basis: 100%; }
.xf-lab-table { overflow-x: auto; padding: 3px 3px .4rem; }
.xf-lab-elements { display: grid; grid-template-columns: repeat(18, minmax(2.1rem, 1fr)); gap: 2px; min-width: 40rem; }
.xf-lab-elements button { font: inherit; font-size: .8rem; line-height: 1.15; padding: .15rem 0; min-width: 0;
  border: 1px solid #767676; border-radius: 2px; color: #111; background: #fff; cursor: pointer; }
.xf-lab-elements button[aria-pressed="true"] { background: #555; color: #fff; text-decoration: line-through; }
.xf-lab-elements span { display: block; font-size: .68rem; min-height: 1.15em; }
`);
const grid = add(box, "div", {class: "xf-lab"});
const controls = add(grid, "div"), results = add(grid, "div");

function group(title, parent = controls) {
  const field = add(parent, "fieldset");
  add(field, "legend", {}, title);
  return field;
}
function choice(parent, label, names) {
  const select = add(add(parent, "label", {}, label + " "), "select");
  names.forEach((name, k) => add(select, "option", {value: k}, name));
  select.addEventListener("change", draw);
  return select;
}
function button(parent, name, pressed) {
  const made = add(parent, "button", {type: "button"}, name);
  made.addEventListener("click", pressed);
  return made;
}

let seed = 1, out = new Set(), set = read(data.sets[0]);
const ofMaterials = group("1. Materials"), dataset = choice(ofMaterials, "dataset", data.sets.map(one => one.name));
const notice = add(ofMaterials, "small");
const heaviest = slider("heaviest element", 1, 100, 1, 100, v => set.elements[limit(v)][0], draw);
ofMaterials.append(heaviest.parentNode);
const ofModes = group("2. Subtract from each energy");
const modes = [0, 1, 2, 3].map(k => {
  const line = add(ofModes, "label");
  const input = add(line, "input", {type: "radio", name: box.id, value: k});
  input.checked = k === 0;
  input.addEventListener("change", draw);
  return {input: input, words: add(line, "span")};
});
const ofFit = group("3. Fit the references to");
const share = slider("share of the materials", 0, SHARES.length - 1, 1, 13, k => SHARES[k] + " %", draw);
ofFit.append(share.parentNode);
const again = button(ofFit, "Draw other materials", () => { seed++; draw(); }), hint = add(ofFit, "small");

const picture = add(results, "svg", {viewBox: "0 0 420 400", width: "100%", style: "max-width:480px;display:block",
  role: "img"});
const table = add(results, "table"), said = add(results, "p", {"aria-live": "polite"}), furthest = add(results, "p");

const elements = group("4. Leave elements out", add(grid, "div", {class: "xf-lab-wide"}));
const shown = choice(elements, "each tile shows", ["", "", ""]);
const back = button(elements, "Put all elements back", () => { out.clear(); draw(); });
add(elements, "small", {}, "Press a tile to leave out every material with its element; Tab reaches the table, arrow " +
  "keys move in it. A question mark: the fit fixes this element only together with others. No number: not in the fit.");
const tiles = add(add(elements, "div", {class: "xf-lab-table"}), "div", {class: "xf-lab-elements", role: "group",
  "aria-label": "periodic table of the dataset's elements, to leave some out"});

function limit(v) { return Math.min(set.elements.length - 1, v - 1); }

/* Tiles of a dataset's elements: one stop of the Tab key, arrow keys inside. */
function layTiles() {
  tiles.replaceChildren();
  set.elements.forEach(([symbol, row, column], j) => {
    const tile = button(tiles, symbol, () => {
      if (!out.delete(symbol)) out.add(symbol);
      draw();
    });
    tile.style.gridArea = row + " / " + column;
    tile.tabIndex = j === 0 ? 0 : -1;
    add(tile, "span");
    tile.addEventListener("keydown", event => {
      const aside = {ArrowLeft: -1, ArrowRight: 1}[event.key], down = {ArrowUp: -1, ArrowDown: 1}[event.key];
      if (!aside && !down) return;
      event.preventDefault();
      const [below] = set.elements.map((e, k) => [(e[1] - row) * down, k])
        .filter(([far, k]) => set.elements[k][2] === column && far > 0).sort((a, b) => a[0] - b[0]);
      const next = tiles.children[aside ? j + aside : below ? below[1] : j];
      if (!next) return;
      tile.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
}

/* --- what is shown --- */

function drawPoints(points, names) {
  picture.replaceChildren();
  const all = points.flatMap(p => [p.low, p.high]), pad = 0.04 * (Math.max(...all) - Math.min(...all) || 1);
  const from = Math.min(...all) - pad, to = Math.max(...all) + pad;
  const x = v => 62 + 345 * (v - from) / (to - from), y = v => 350 - 340 * (v - from) / (to - from);
  const power = Math.pow(10, Math.floor(Math.log10((to - from) / 4)));
  const step = power * [5, 2, 1].find(k => k * power <= (to - from) / 4);
  add(picture, "path", {d: "M62 10h345v340h-345z", fill: "none", stroke: "currentColor"});
  add(picture, "path", {d: "M62 350L407 10", stroke: "currentColor", "stroke-dasharray": "5 4", opacity: 0.6});
  const word = (at, text) => add(picture, "text", {"font-size": 12, fill: "currentColor", ...at}, minus(text));
  for (let k = Math.ceil(from / step); k * step <= to; k++) {
    const text = (k * step).toFixed(Math.max(0, -Math.floor(Math.log10(step))));
    word({x: x(k * step), y: 366, "text-anchor": "middle"}, text);
    word({x: 57, y: y(k * step) + 4, "text-anchor": "end"}, text);
  }
  word({x: 234, y: 388, "text-anchor": "middle"}, names[1]);
  word({x: 14, y: 180, "text-anchor": "middle", transform: "rotate(-90 14 180)"}, names[0]);
  const place = p => x(p.high).toFixed(1) + " " + y(p.low).toFixed(1);
  add(picture, "path", {d: points.map(p => "M" + place(p) + "h0").join(""), fill: "none", stroke: "#2f7fc1",
    "stroke-width": points.length > 500 ? 4 : 6, "stroke-linecap": "round", opacity: 0.7});
  points.slice(0, FURTHEST).forEach((p, k) => {
    add(picture, "circle", {cx: x(p.high), cy: y(p.low), r: 6, fill: "none", stroke: "#c1440e", "stroke-width": 1.5});
    const isRight = x(p.high) > 300;
    word({x: x(p.high) + (isRight ? -8 : 8), y: y(p.low) + (k % 2 ? 13 : -5), "text-anchor": isRight ? "end" : "start",
      "font-size": 11}, p.row.formula);
  });
}

function drawTiles(kept, points, fitted, fits) {
  const has = j => entry => entry.parts.some(part => part[0] === j);
  const of = set.elements.map((element, j) => {
    const left = points.filter(p => has(j)(p.row)).map(p => Math.abs(p.high - p.low));
    return {
      n: kept.filter(has(j)).length,
      shift: fits.high[j] - fits.low[j],
      left: left.length ? 1000 * mean(left) : NaN,
      isSeen: fitted.some(has(j)), isDetermined: fits.isDetermined(j),
    };
  });
  const measure = ["shift", "left", "n"][shown.value];
  const most = Math.max(...of.map(one => Math.abs(one[measure]) || 0)) || 1;
  set.elements.forEach(([symbol], j) => {
    const tile = tiles.children[j], one = of[j], isOut = out.has(symbol) || j > limit(heaviest.value);
    const isOpen = measure === "shift" && one.isSeen && !one.isDetermined;
    const isKnown = !isOut && !isOpen && isFinite(one[measure]);
    const text = isKnown ? minus(one[measure].toFixed(measure === "shift" ? 1 : 0)) : isOpen && !isOut ? "?" : "";
    const depth = Math.round(100 * Math.abs(one[measure]) / most), color = one[measure] > 0 ? "#e68c46" : "#4696dc";
    tile.lastChild.textContent = text;
    tile.style.background = isKnown ? `color-mix(in srgb, ${color} ${depth}%, #fff)` : "";
    tile.setAttribute("aria-pressed", isOut);
    tile.title = symbol + ": " + (isOut ? "left out" : counted(one.n, "material") +
      (one.isDetermined ? ", shift " + minus(one.shift.toFixed(2)) + " eV" : ", shift not fixed") +
      (isFinite(one.left) ? ", mean difference " + one.left.toFixed(0) + " meV/atom" : ""));
    tile.setAttribute("aria-label", tile.title);
  });
  return of;
}

function draw() {
  if (set !== data.sets[dataset.value] || !tiles.children.length) {
    set = read(data.sets[dataset.value]);
    out.clear();
    layTiles();
    heaviest.max = set.elements.length;
    heaviest.value = set.elements.length;
    heaviest.dispatchEvent(new Event("input"));  // its words; comes back here
    return;
  }
  const mode = modes.findIndex(one => one.input.checked), isFitted = mode > 1, {low, high} = set.names;
  notice.textContent = set.notice;
  hint.textContent = isFitted ? "Judged are the other materials; at 100 %, those that were fitted." :
    "This is for the two choices above that fit references.";
  ["nothing: total energies", "the elements' ground states: formation energies",
    "references fitted in each functional", "references fitted in " + low + ", from both"]
    .forEach((words, k) => { modes[k].words.textContent = " " + words; });
  ["shift of the reference, " + high + " − " + low + " (eV)", "mean difference of materials with it (meV/atom)",
    "number of materials"].forEach((words, k) => { shown.options[k].textContent = words; });
  share.disabled = again.disabled = !isFitted;

  const isIn = row => row.parts.every(([j]) => j <= limit(heaviest.value) && !out.has(set.elements[j][0]));
  const kept = shuffle(set.rows, seed).filter(isIn);
  const n = isFitted ? Math.max(1, Math.round(kept.length * SHARES[share.value] / 100)) : kept.length;
  const fitted = kept.slice(0, n), others = n < kept.length ? kept.slice(n) : fitted;
  const fits = fit(fitted);
  const taken = [null, set.ground, fits, {low: fits.low, high: fits.low}][mode];
  const judged = others.filter(row => isFitted ? fits.isDeterminedFor(row) : true);
  const points = judged.map(row => ({
    row: row,
    low: row.low - (taken ? dot(row.parts, taken.low) : 0),
    high: row.high - (taken ? dot(row.parts, taken.high) : 0),
  })).sort((a, b) => Math.abs(b.high - b.low) - Math.abs(a.high - a.low));
  const of = drawTiles(kept, points, fitted, fits);
  box.state = {fitted: fitted.map(row => row.id), judged: judged.map(row => row.id), rank: fits.rank, tiles: of,
    symbols: set.elements.map(element => element[0]), low: fits.low, high: fits.high};
  table.replaceChildren();
  furthest.textContent = "";
  if (!points.length) {
    picture.replaceChildren();
    said.textContent = kept.length ? "The fit to " + counted(n, "material") + " fixes the energy of no other." :
      "No material is left.";
    return;
  }
  const before = compare(judged), now = compare(points);
  Object.assign(box.state, {r: now.r, difference: now.difference, before: before,
    furthest: points.slice(0, FURTHEST).map(p => p.row.id)});
  const kind = name => [`total energy in ${name}`, `formation energy in ${name}`, `energy in ${name} − its reference`,
    `energy in ${name} − reference of ${low}`][mode];
  drawPoints(points, [low, high].map(name => kind(name) + " (eV/atom)"));
  const many = counted(points.length, "material");
  picture.setAttribute("aria-label", `${kind(low)} against ${kind(high)}, ${many}, and the line on which both agree`);
  const named = ["total energies", "formation energies", "minus own references", `minus references of ${low}`];
  const lines = [[many, "Pearson's r", "mean difference"]].concat([[0, before], [mode, now]].slice(0, mode ? 2 : 1)
    .map(([k, found]) => [named[k], correlation(found.r), energy(found.difference)]));
  lines.forEach((cells, i) => {
    const row = add(table, "tr");
    cells.forEach((cell, k) => i && k ? add(row, "td", {}, cell) : add(row, "th", {scope: i ? "row" : "col"}, cell));
  });
  const isSame = energy(before.difference) === energy(now.difference);
  const whose = !isFitted ? "" : `References of ${counted(fits.nElements, "element")} were fitted to ` +
    counted(n, "material") + (others === fitted ? ", and judged on the same, which flatters them. " :
    `; judged are ${points.length.toLocaleString("en")} of the other ${others.length.toLocaleString("en")}` +
    (others.length === points.length ? ". " : ", for the rest hold an element or a combination that the fit " +
    "does not fix. "));
  const effect = isSame ? `leaves the mean difference at ${energy(now.difference)}` :
    `takes the mean difference from ${energy(before.difference)} to ${energy(now.difference)}`;
  said.textContent = whose + (mode ? `What is subtracted ${effect}, and takes r from ${correlation(before.r)} to ` +
    `${correlation(now.r)}.` : `Total energies of ${many} in ${low} and ${high} differ by ${energy(now.difference)} ` +
    `on average; r = ${correlation(now.r)}.`);
  furthest.textContent = "Furthest apart: " + points.slice(0, FURTHEST).map(p => p.row.name + " " +
    (p.high > p.low ? "+" : "") + energy(p.high - p.low)).join("; ") + ".";
}
draw();
