"use strict";
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const COLOURS = { light: ["#0072B2", "#D55E00", "#007F5F", "#A8528A", "#2C7FB8", "#9A6700", "#333333"], dark: ["#56B4E9", "#FF9248", "#3CCB9B", "#E39AC4", "#9CCBF0", "#F0C04C", "#DDDDDD"] };
  const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"];
  const DASHES = ["solid", "dash", "dashdot", "dot", "longdash"];
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const PANELS = 12, LINES = 8;
  const shown = new Set(D.keys.map((_, c) => c));               // configurations that the filters leave
  const drawn = {};                                             // by figure, the table of what it shows, for its CSV
  const text = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");     // plotly reads tags in texts
  const short = (value, most = 60) => (value.length > most ? value.slice(0, most - 1) + "\u2026" : value);
  const number = (value) => (value === null || value === undefined ? "" : Number(value.toPrecision(3)).toString());

  // --- tables: sort, filter

  const value = (row, column) => {
    const cell = row.cells[column];
    if (!("v" in cell.dataset)) return cell.textContent.trim();
    return cell.dataset.v === "" ? NaN : Number(cell.dataset.v);
  };
  const order = (a, b) => {
    const [x, y] = [a, b].map((v) => (typeof v === "string" && v !== "" && !isNaN(v) ? Number(v) : v));
    if (typeof x === "number" && typeof y === "number") return x - y;
    return String(x).localeCompare(String(y));
  };
  const isEmpty = (v) => v === "" || (typeof v === "number" && isNaN(v));
  function sort(table, column, way) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, i) => (i === column ? head.setAttribute("aria-sort", way) : head.removeAttribute("aria-sort")));
    const body = table.tBodies[0], sign = way === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row, i) => [value(row, column), i, row]);
    rows.sort((a, b) => isEmpty(a[0]) - isEmpty(b[0]) || sign * order(a[0], b[0]) || a[1] - b[1]);      // what is not known comes last, either way
    body.append(...rows.map((entry) => entry[2]));
  }
  $$("table.sortable").forEach((table) => [...table.tHead.rows[0].cells].forEach((head, i) => $("button", head).addEventListener("click", () => {
    sort(table, i, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
    keep();
  })));

  const filters = $("#filters");
  function filter() {
    const wanted = $$("select", filters).map((select) => [Number(select.dataset.axis), select.value]).filter(([, v]) => v !== "");
    const words = $("#text").value.toLowerCase().split(/\s+/).filter(Boolean);
    D.keys.forEach((key, c) => {
      const fits = wanted.every(([axis, v]) => key[axis] === v) && words.every((word) => D.labels[c].toLowerCase().includes(word));
      fits ? shown.add(c) : shown.delete(c);
    });
    $$("[data-c]").forEach((element) => (element.hidden = !shown.has(Number(element.dataset.c))));
    $("#count").textContent = `${shown.size} of ${D.keys.length} configurations`;
    redraw();
    keep();
  }
  if (filters) {
    filters.addEventListener("input", filter);
    filters.addEventListener("submit", (event) => event.preventDefault());
    filters.addEventListener("reset", () => setTimeout(filter));
  }

  // --- data of a table or figure

  // A text that a spreadsheet would run, or take for another number than it is, begins with an apostrophe, as in the files of the run.
  const isNumber = (s) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|^[+-]?inf$|^nan$/i.test(s);
  const guarded = (s) => (s === "-" || (isNumber(s) && (String(Number(s)) === s || /^-?\d(\.\d+)?e[+-]\d\d+$/.test(s)) && s.length < 17)
    || !(isNumber(s) || /^[\t\r\n']|^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(s)) ? s : `'${s}`);
  const quoted = (v) => {
    const s = v === null || v === undefined ? "" : typeof v === "string" ? guarded(v) : String(v);
    return /[",\n\r]/.test(s) ? `"${s.replace(/"/g, '""')}"` : s;
  };
  function save(name, table) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table.map((line) => line.map(quoted).join(",") + "\n").join("")], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  const TABLES = {
    quality: () => [["configuration", ...D.naming, "column", "seeds", "value", "low", "high", "conventional", "best", "may_be_best"],
      ...D.sheets.flatMap((s) => Object.entries(s.entries).filter(([c]) => shown.has(Number(c))).map(([c, e]) => [D.labels[c], ...D.keys[c], s.title, e.seeds, e.value, e.low, e.high, e.conventional, e.best, e.may]))],
    throughput: () => [["run", "configuration", ...D.naming, "images_per_second", "low", "high", "share_of_fastest", "noisy"],
      ...D.costs.filter((e) => shown.has(e.c)).map((e) => [e.run, D.labels[e.c], ...D.keys[e.c], e.rate, e.low, e.high, e.share, e.noisy])],
  };
  $$("[data-csv]").forEach((button) => button.addEventListener("click", () => {
    const name = button.dataset.csv;
    if (!TABLES[name] && !drawn[name]) draw(name);
    save(name, TABLES[name] ? TABLES[name]() : drawn[name]);
  }));

  // --- figures

  const isDark = () => (document.documentElement.dataset.scheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = () => COLOURS[isDark() ? "dark" : "light"];
  const styles = (names) => new Map([...new Set(names)].map((name, i) => [name, { color: palette()[i % 7], symbol: SYMBOLS[i % 8], dash: DASHES[i % 5] }]));
  const sheet = () => D.sheets[Number($("#metric").value)];
  const label = (s) => text(s.name) + (s.better ? `, ${s.better} is better` : "");
  function layout(more) {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--soft"), linecolor: colour("--line"), automargin: true };
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), size: 13 }, margin: { l: 60, r: 15, t: 25, b: 80 },
      hoverlabel: { bgcolor: colour("--band"), bordercolor: colour("--soft"), font: { color: colour("--ink") } }, legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" }, hovermode: "closest",
      ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis } };
  }
  const bars = (points, of = (p) => p.e) => ({ type: "data", symmetric: false, thickness: 1, width: 3,
    array: points.map((p) => (of(p).high === null ? 0 : Math.max(0, of(p).high - of(p).value))), arrayminus: points.map((p) => (of(p).low === null ? 0 : Math.max(0, of(p).value - of(p).low))) });
  const told = (c, e) => `${D.labels[c]}: ${number(e.value)}` + (e.low === null ? "" : ` (${number(e.low)} to ${number(e.high)})`);
  const entries = (s) => Object.entries(s.entries).map(([c, e]) => ({ c: Number(c), e, f: D.facts[c] })).filter((p) => shown.has(p.c) && p.f.trained && p.e.value !== null);
  // What tells configurations apart in some of the naming columns, those left out in which none of these differs.
  const tells = (points, axes) => axes.filter((i) => new Set(points.map((p) => D.keys[p.c][i])).size > 1);
  const words = (p, axes) => axes.map((i) => D.words[p.c][i]).filter(Boolean).join(", ");
  // Ticks of a logarithmic axis, as plain numbers.
  function ticks(type, low, high) {
    if (type !== "log") return {};
    for (const steps of [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5, 7], [1, 2, 5], [1]]) {
      const found = [];
      for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k++) found.push(...steps.map((v) => v * 10 ** k).filter((v) => v >= low * 0.97 && v <= high * 1.03));
      if (found.length <= 8 || steps.length === 1) return found.length > 1 ? { tickvals: found, ticktext: found.map((v) => number(v)) } : {};
    }
  }
  // The range of an axis: all points, and of their intervals what a logarithmic axis can show.
  function bounds(type, entries) {
    const values = entries.map((e) => e.value), [low, high] = spread([...values, ...entries.flatMap((e) => [e.low ?? e.value, e.high ?? e.value])]);
    if (type !== "log") return { range: [low - (high - low) / 20, high + (high - low) / 20] };
    const least = Math.max(low, Math.min(...values) / 2);
    return { range: [Math.log10(least) - 0.05, Math.log10(high) + 0.05], ...ticks(type, least, high) };
  }
  const spread = (values) => [Math.min(...values), Math.max(...values)];
  const scale = (values) => ($("#log").checked && values.every((v) => v > 0) ? "log" : "linear");

  const FIGURES = {
    scatter(div) {
      const s = sheet(), by = $("#cost").value, rate = new Map(D.costs.filter((e) => e.run === by).map((e) => [e.c, e]));
      const points = entries(s).map((p) => ({ ...p, cost: by === "nfe" ? p.f.nfe : rate.has(p.c) ? 1000 / rate.get(p.c).rate : null, t: by === "nfe" ? null : rate.get(p.c) })).filter((p) => p.cost !== null);
      points.sort((a, b) => a.cost - b.cost);
      const sign = s.better === "lower" ? 1 : -1;
      const front = points.filter((p) => !points.some((q) => (q.cost < p.cost && sign * q.e.value <= sign * p.e.value) || (q.cost <= p.cost && sign * q.e.value < sign * p.e.value)));
      const style = styles(D.facts.map((f) => f.scheduler)), unit = by === "nfe" ? "network evaluations per image (NFE)" : "sampling time per image, ms";
      const traces = [...group(points, (p) => p.f.scheduler)].map(([name, some]) => ({
        type: "scatter", mode: "markers", name: text(name), x: some.map((p) => p.cost), y: some.map((p) => p.e.value), error_y: { ...bars(some), color: style.get(name).color },
        error_x: by === "nfe" ? undefined : { type: "data", symmetric: false, thickness: 1, width: 0, color: style.get(name).color, array: some.map((p) => 1000 / p.t.low - p.cost), arrayminus: some.map((p) => p.cost - 1000 / p.t.high) },
        marker: { size: 9, color: style.get(name).color, symbol: some.map((p) => style.get(name).symbol + (p.t && p.t.noisy ? "-open" : "")) },
        ids: some.map((p) => p.c), customdata: some.map((p) => [text(told(p.c, p.e)), number(p.cost)]), hovertemplate: `%{customdata[0]}<br>${unit}: %{customdata[1]}<extra></extra>` }));
      if (front.length) traces.unshift({ type: "scatter", mode: "lines", name: "no other is better and cheaper", x: front.map((p) => p.cost), y: front.map((p) => p.e.value), line: { shape: "hv", width: 4, color: colour("--soft") }, opacity: 0.5, hoverinfo: "skip" });
      const ys = points.map((p) => p.e.value), log = scale(ys);
      if (s.floor !== null && (log === "linear" || s.floor > 0)) traces.push({ type: "scatter", mode: "lines", name: "held-out real images", x: points.length ? [points[0].cost, points[points.length - 1].cost] : [], y: [s.floor, s.floor], line: { dash: "dot", width: 1.5, color: colour("--soft") }, hoverinfo: "skip" });
      drawn.scatter = [["configuration", "cost", "quality", "low", "high", "on_the_front"], ...points.map((p) => [D.labels[p.c], p.cost, p.e.value, p.e.low, p.e.high, front.includes(p)])];
      plot(div, traces, layout({ height: 460, xaxis: { title: { text: unit }, type: scale(points.map((p) => p.cost)), ...ticks(scale(points.map((p) => p.cost)), ...spread(points.map((p) => p.cost))) }, yaxis: { title: { text: label(s) }, type: log, ...(points.length ? bounds(log, [...points.map((p) => p.e), ...(s.floor !== null && (log === "linear" || s.floor > 0) ? [{ value: s.floor, low: null, high: null }] : [])]) : {}) } }));
    },
    effects(div) {
      const s = sheet(), lines = s.axes.flatMap((axis) => axis.effects.filter((e) => e.difference !== null).map((e) => ({ ...e, value: e.difference, axis: axis.name, best: axis.best }))).reverse();
      const names = lines.map((e) => text(short(`${e.axis}: ${e.level}${e.nfe ? ` \u00b7 ${e.nfe}` : ""} \u2212 ${e.best}`, matchMedia("(max-width: 600px)").matches ? 34 : 70)));
      const traces = [true, false].map((sure) => [sure, lines.map((e, i) => ({ ...e, i })).filter((e) => e.sure === sure)]).filter(([, some]) => some.length).map(([sure, some]) => ({
        type: "scatter", mode: "markers", name: sure ? "significant" : "cannot tell", x: some.map((e) => e.value), y: some.map((e) => e.i), error_x: { ...bars(some, (e) => e), color: palette()[0] },
        marker: { size: 9, color: palette()[0], symbol: sure ? "circle" : "circle-open" }, customdata: some.map((e) => [text(`${e.axis}: ${e.level} minus ${e.best}${e.unequal ? `, ${e.unequal}` : ""}`), number(e.low), number(e.high), number(e.p)]),
        hovertemplate: "%{customdata[0]}<br>%{x:+.3g} (%{customdata[1]} to %{customdata[2]}), p %{customdata[3]}<extra></extra>" }));
      drawn.effects = [["axis", "level", "versus", "configurations", "difference", "low", "high", "p_holm"], ...s.axes.flatMap((axis) => axis.effects.map((e) => [axis.name, e.level, axis.best, e.configurations, e.difference, e.low, e.high, e.p]))];
      plot(div, traces, layout({ height: 140 + 26 * Math.max(3, lines.length), xaxis: { title: { text: `difference of ${text(s.name)}, with its 95 % interval (${s.better === "lower" ? "left" : "right"} of 0 is better)` }, zeroline: true },
        yaxis: { tickvals: lines.map((_, i) => i), ticktext: names, range: [-0.7, lines.length - 0.3], zeroline: false }, showlegend: true, legend: { orientation: "h", yref: "paper", yanchor: "bottom", y: 1.02, x: 0 } }));
    },
    nfe(div) {
      const s = sheet(), points = entries(s), sign = s.better === "lower" ? 1 : -1;
      const others = tells(points, D.naming.map((_, i) => i).filter((i) => !/^(scheduler|steps)(\.|$)/.test(D.naming[i])));
      const panels = [...group(points, (p) => words(p, others))];
      const mean = (some) => some.reduce((sum, p) => sum + sign * p.e.value, 0) / some.length;
      const best = new Set(panels.map(([name, some]) => [mean(some), name]).sort((a, b) => a[0] - b[0]).slice(0, PANELS).map(([, name]) => name));
      const style = styles(D.facts.map((f) => f.scheduler)), chosen = panels.filter(([name]) => best.has(name)), ys = chosen.flatMap(([, some]) => some.map((p) => p.e.value));
      const nfes = chosen.flatMap(([, some]) => some.map((p) => p.f.nfe)), type = scale(ys), bound = ys.length ? bounds(type, chosen.flatMap(([, some]) => some.map((p) => p.e))) : {};
      drawn.nfe = [["panel", "configuration", "scheduler", "nfe", "quality", "low", "high"], ...chosen.flatMap(([name, some]) => some.map((p) => [name, D.labels[p.c], p.f.scheduler, p.f.nfe, p.e.value, p.e.low, p.e.high]))];
      $$(".plotted", div).forEach((old) => Plotly.purge(old));
      div.replaceChildren();
      div.className = "plot panels";
      chosen.forEach(([name, some], i) => {
        const panel = div.appendChild(document.createElement("div"));
        const traces = [...group(some, (p) => p.f.scheduler)].map(([scheduler, line]) => {
          line.sort((a, b) => a.f.nfe - b.f.nfe);
          const { color, symbol, dash } = style.get(scheduler);
          return { type: "scatter", mode: line.length > 1 ? "lines+markers" : "markers", name: text(scheduler), x: line.map((p) => p.f.nfe), y: line.map((p) => p.e.value), error_y: { ...bars(line), color },
            line: { color, dash, width: 1.5 }, marker: { color, symbol, size: 7 }, ids: line.map((p) => p.c), customdata: line.map((p) => text(told(p.c, p.e))), hovertemplate: "%{customdata}<br>NFE %{x}<extra></extra>" };
        });
        plot(panel, traces, layout({ height: 300, title: { text: text(short(name, 44)), font: { size: 13 }, x: 0.5, xanchor: "center" }, margin: { l: 45, r: 10, t: 40, b: 70 }, showlegend: true, legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: { size: 11 } },
          xaxis: { title: { text: "NFE", standoff: 4 }, type: scale(nfes), range: scale(nfes) === "log" ? [Math.log10(spread(nfes)[0]) - 0.08, Math.log10(spread(nfes)[1]) + 0.08] : undefined, ...ticks(scale(nfes), ...spread(nfes)) }, yaxis: { type, ...bound } }));
      });
      div.setAttribute("data-panels", `${chosen.length} of ${panels.length}`);
      $(`[data-told="nfe"]`).textContent = chosen.length < panels.length ? `The best ${chosen.length} of ${panels.length} configurations; filter for others.` : "";
    },
    guidance(div) {
      const ranked = D.sheets.filter((s) => s.better), chosen = sheet();
      const first = [chosen, ...ranked.filter((s) => s !== chosen && s.column !== chosen.column).sort((a, b) => (b.column === "class_accuracy") - (a.column === "class_accuracy"))].slice(0, 2);
      drawn.guidance = [["column", "configuration", "scale", "quality", "low", "high"]];
      $$(".plotted", div).forEach((old) => Plotly.purge(old));
      div.replaceChildren();
      div.className = "plot panels";
      const others = tells(entries(chosen), D.naming.map((_, i) => i).filter((i) => !/^conditioning\..*scale$/.test(D.naming[i]))), lineOf = (p) => words(p, others);
      const lead = [...group(entries(chosen).filter((p) => p.f.scale !== null), lineOf)].filter(([, some]) => new Set(some.map((p) => p.f.scale)).size > 1), sign = chosen.better === "lower" ? 1 : -1;
      const names = lead.map(([name, some]) => [Math.min(...some.map((p) => sign * p.e.value)), name]).sort((a, b) => a[0] - b[0]).slice(0, LINES).map(([, name]) => name), style = styles(names);
      for (const s of first) {
        const panel = div.appendChild(document.createElement("div"));
        const lines = group(entries(s).filter((p) => p.f.scale !== null), lineOf);
        const traces = names.filter((name) => lines.has(name)).map((name) => {
          const line = lines.get(name).sort((a, b) => a.f.scale - b.f.scale), { color, symbol, dash } = style.get(name);
          line.forEach((p) => drawn.guidance.push([s.title, D.labels[p.c], p.f.scale, p.e.value, p.e.low, p.e.high]));
          return { type: "scatter", mode: "lines+markers", name: text(short(name, 40)), x: line.map((p) => p.f.scale), y: line.map((p) => p.e.value), error_y: { ...bars(line), color }, line: { color, dash, width: 1.5 }, marker: { color, symbol, size: 7 },
            ids: line.map((p) => p.c), customdata: line.map((p) => text(told(p.c, p.e))), hovertemplate: "%{customdata}<br>scale %{x}<extra></extra>" };
        });
        plot(panel, traces, layout({ height: 330 + 19 * names.length, title: { text: label(s), font: { size: 13 } }, margin: { l: 45, r: 10, t: 40, b: 70 + 19 * names.length }, showlegend: true, xaxis: { title: { text: "guidance scale", standoff: 4 } },
          legend: { orientation: "v", yref: "container", y: 0, yanchor: "bottom", x: 0, font: { size: 11 } } }));
      }
      $(`[data-told="guidance"]`).textContent = names.length < lead.length ? `The best ${names.length} of ${lead.length} configurations; filter for others.` : names.length ? "" : "No configuration that the filters leave has several scales.";
    },
    curves(div) {
      const traces = D.curves.map((c, i) => ({ type: "scatter", mode: "lines", name: text(short(c.label, 70)), x: c.steps, y: c.loss, line: { color: palette()[i % 7], dash: DASHES[Math.floor(i / 7) % 5], width: 1.5 }, hovertemplate: `${text(c.label)}<br>step %{x}: %{y:.4g}<extra></extra>` }));
      drawn.curves = [["training", "key", "step", "loss"], ...D.curves.flatMap((c) => c.steps.map((step, i) => [c.label, c.key, step, c.loss[i]]))];
      plot(div, traces, layout({ height: 420, showlegend: D.curves.length <= 12, xaxis: { title: { text: "steps" } }, yaxis: { title: { text: "training loss" }, type: D.curves.every((c) => c.loss.every((v) => v > 0)) ? "log" : "linear" } }));
    },
  };
  function group(list, by) {
    const found = new Map();
    for (const item of list) {
      const key = by(item);
      found.has(key) ? found.get(key).push(item) : found.set(key, [item]);
    }
    return found;
  }
  function plot(div, traces, how) {
    const isNew = !div.classList.contains("plotted");
    div.classList.add("plotted");
    Plotly.react(div, traces, how, CONFIG);
    if (isNew) div.on("plotly_click", (event) => go(event.points[0].data, event.points[0].pointNumber));
  }
  // From a point to the row of its configuration; the browser's way back leads to the figure again.
  function go(trace, point) {
    if (trace.ids) location.hash = `row${trace.ids[point]}`;
  }
  const seen = new Set(), stale = new Set();
  // Plotly's script is read when the first figure comes into view: the page opens without waiting for it.
  function plotly() {
    if (window.Plotly) return;
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.body.append(script);
  }
  function draw(name) {
    plotly();
    const div = $(`[data-plot="${name}"]`);
    FIGURES[name](div);
    seen.add(name);
    stale.delete(name);
  }
  const inView = new IntersectionObserver((found) => found.forEach((entry) => {
    const name = entry.target.dataset.plot;
    if (entry.isIntersecting && (!seen.has(name) || stale.has(name))) draw(name);
  }), { rootMargin: "300px" });
  function redraw() {
    $$("[data-plot]").forEach((div) => {
      if (!seen.has(div.dataset.plot)) return;
      stale.add(div.dataset.plot);
      inView.unobserve(div);
      inView.observe(div);                                      // draws it now where it is in view, else when it comes
    });
  }
  $$("[data-plot]").forEach((div) => {
    inView.observe(div);
    div.addEventListener("keydown", (event) => step(div, event));
  });
  ["#metric", "#cost", "#log"].forEach((id) => $(id) && $(id).addEventListener("change", () => { redraw(); keep(); }));

  // The arrow keys go through the points of a chart of one panel, and through those of the panels one after the other; Enter leads to the row.
  function step(div, event) {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Enter: 0 }[event.key];
    if (way === undefined || event.target !== div) return;
    event.preventDefault();
    const charts = div.classList.contains("panels") ? $$(".plotted", div) : [div];
    const points = charts.flatMap((chart) => (chart.data || []).flatMap((trace, i) => (trace.hoverinfo === "skip" ? [] : trace.x.map((_, j) => ({ chart, curveNumber: i, pointNumber: j })))));
    if (!points.length || (!way && div.dataset.at === undefined)) return;
    const at = (Number(div.dataset.at ?? (way > 0 ? -1 : 0)) + way + points.length) % points.length;
    div.dataset.at = at;
    const point = points[at], trace = point.chart.data[point.curveNumber];
    if (!way) return go(trace, point.pointNumber);
    charts.forEach((chart) => Plotly.Fx.unhover(chart));
    Plotly.Fx.hover(point.chart, [{ curveNumber: point.curveNumber, pointNumber: point.pointNumber }]);
    const said = trace.customdata ? [trace.customdata[point.pointNumber]].flat()[0] : `${trace.name}: ${trace.x[point.pointNumber]}, ${number(trace.y[point.pointNumber])}`;
    const plain = document.createElement("textarea");
    plain.innerHTML = said;                                     // entities back to the text they stand for; nothing in a textarea is markup
    $(`[data-told="${div.dataset.plot}"]`).textContent = plain.value;
  }

  // --- films

  $$(".film").forEach((film) => {
    const frame = $(".frame", film), picture = $("img", frame), slider = $("input", film), button = $(".play", film);
    const count = Number(film.dataset.frames), width = (Number(frame.dataset.width) - 2) / count, zoom = Math.max(1, Math.round(96 / width));
    frame.style.width = `${zoom * width}px`;
    picture.style.width = `${zoom * Number(frame.dataset.width)}px`;
    picture.style.height = "auto";
    const show = () => (picture.style.transform = `translateX(${-zoom * (1 + (slider.value - 1) * width)}px)`);
    let timer = null;
    const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; };
    slider.addEventListener("input", () => { stop(); show(); });
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(slider.value) === count) slider.value = 1;
      button.textContent = "Stop";
      show();
      timer = setInterval(() => { if (Number(slider.value) === count) return stop(); slider.value = Number(slider.value) + 1; show(); }, 350);
    });
    show();
  });

  // --- light and dark

  const scheme = $("#scheme");
  const press = () => scheme.setAttribute("aria-pressed", String(isDark()));
  scheme.addEventListener("click", () => { document.documentElement.dataset.scheme = isDark() ? "light" : "dark"; press(); redraw(); keep(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { press(); redraw(); });
  press();

  // --- a page that follows a run: what the reader set stays through a reload

  const isLive = "live" in document.body.dataset;
  function keep() {
    if (!isLive) return;
    const sorted = $$("table.sortable").map((table) => [...table.tHead.rows[0].cells].map((head, i) => [i, head.getAttribute("aria-sort")]).find(([, way]) => way) || null);
    const axes = Object.fromEntries($$("#filters select").map((select) => [D.naming[Number(select.dataset.axis)], select.value]));
    sessionStorage.setItem("diffbench", JSON.stringify({ y: scrollY, sorted, axes, text: $("#text")?.value, metric: $("#metric")?.value, cost: $("#cost")?.value, log: $("#log")?.checked, scheme: document.documentElement.dataset.scheme }));
  }
  function restore() {
    const said = sessionStorage.getItem("diffbench");
    if (!said) return;
    const was = JSON.parse(said);
    if (was.scheme) document.documentElement.dataset.scheme = was.scheme;
    for (const [id, v] of [["#text", was.text], ["#metric", was.metric], ["#cost", was.cost]]) if (v !== undefined && $(id)) { const before = $(id).value; $(id).value = v; if ($(id).value !== v) $(id).value = before; }
    if ($("#log") && was.log !== undefined) $("#log").checked = was.log;
    $$("#filters select").forEach((select) => { const v = was.axes[D.naming[Number(select.dataset.axis)]]; if ([...select.options].some((option) => option.value === v)) select.value = v; });
    was.sorted.forEach((how, i) => { const table = $$("table.sortable")[i]; if (how && table && how[0] < table.tHead.rows[0].cells.length) sort(table, ...how); });
    if (filters) filter();
    press();
    scrollTo(0, was.y);
  }
  if (isLive) {
    restore();
    let state = null;
    const ask = async () => {
      try {
        const answer = await fetch("state", { cache: "no-store" }), now = await answer.text();
        if (state !== null && now !== state) { keep(); return location.reload(); }
        state = now;
        $("#live").textContent = now.startsWith("ended") ? "The run has ended." : "This page follows the run.";
      } catch { $("#live").textContent = "The server has stopped; this is what it showed last."; }
      setTimeout(ask, 2000);
    };
    ask();
    addEventListener("scroll", () => keep(), { passive: true });
  }
})();
