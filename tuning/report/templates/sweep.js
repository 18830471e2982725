"use strict";
(() => {
  const about = JSON.parse(document.getElementById("about-trials").textContent);
  const figures = [...document.querySelectorAll("figure.drawn")];
  const rows = [...document.querySelectorAll("table.trials tbody tr")];
  const config = { responsive: true, displaylogo: false, showSendToCloud: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
  let chosen = null; // number of the trial that all figures show
  let kept = null; // numbers inside the ranges of the parallel coordinates

  const escaped = (text) => text.replace(/[&<>"']/g, (found) => `&#${found.charCodeAt(0)};`); // plotly reads tags in labels
  const told = (number) => about[number].map((line, i) => (i ? escaped(line) : `<b>${escaped(line)}</b>`)).join("<br>");

  // Colors come by name, since light and dark have their own.
  function painted(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((one) => painted(one, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, painted(one, style)]));
  }

  function layoutOf(given, style) {
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: color("--line"), linecolor: color("--line"), zerolinecolor: color("--line"), automargin: true };
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("--ink") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 56, r: 16, t: 36, b: 46 },
      hovermode: "closest",
      hoverlabel: { bgcolor: color("--card"), bordercolor: color("--soft"), align: "left", font: { color: color("--ink") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--soft"), activecolor: color("--accent") },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      ...given,
      xaxis: { ...axis, ...given.xaxis },
      yaxis: { ...axis, ...given.yaxis },
    };
  }

  function draw(figure) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const style = getComputedStyle(document.documentElement);
    const data = painted(spec.data, style);
    for (const trace of data) {
      if (trace.meta?.trials) trace.text = trace.meta.trials.map(told);
      if (trace.meta?.trial !== undefined) trace.text = trace.x.map(() => told(trace.meta.trial));
    }
    const box = figure.querySelector(".plotly");
    Plotly.react(box, data, layoutOf(painted(spec.layout, style), style), config);
    if (!figure.dataset.live) box.on("plotly_click", ({ points: [point] }) => choose(trialOf(point)));
    figure.dataset.live = "true";
    emphasize(figure);
  }

  const visible = (figure) => figure.closest("[hidden]") === null;
  const drawVisible = () => figures.filter((one) => visible(one) && !one.dataset.live).forEach(draw);

  function trialOf(point) {
    const meta = point.data.meta;
    return meta?.trials ? meta.trials[point.pointIndex] : meta?.trial;
  }

  // The chosen trial stands out, the others step back.
  function emphasize(figure) {
    const box = figure.querySelector(".plotly");
    box.data.forEach((trace, index) => {
      if (trace.meta?.trials) {
        const found = trace.meta.trials.flatMap((number, i) => (number === chosen ? [i] : []));
        Plotly.restyle(box, { selectedpoints: [chosen === null ? null : found] }, [index]);
      } else if (trace.meta?.trial !== undefined) {
        const opacity = chosen === null ? trace.opacity : trace.meta.trial === chosen ? 1 : 0.12;
        trace.meta.usual ??= trace.opacity;
        Plotly.restyle(box, { opacity: chosen === null ? trace.meta.usual : opacity }, [index]);
      }
    });
  }

  function choose(number) {
    if (number === undefined) return;
    chosen = number === chosen ? null : number;
    for (const row of rows) {
      const is = Number(row.dataset.trial) === chosen;
      row.classList.toggle("chosen", is);
      row.querySelector(".pick").setAttribute("aria-pressed", String(is));
    }
    for (const path of document.querySelectorAll(".run")) {
      path.classList.toggle("chosen", Number(path.dataset.trial) === chosen);
      path.classList.toggle("dim", chosen !== null && Number(path.dataset.trial) !== chosen);
    }
    figures.filter((figure) => figure.dataset.live).forEach(emphasize);
  }

  // Text box and state; together with the ranges of the parallel coordinates they say which rows are shown.
  function filterable() {
    const find = document.getElementById("find");
    const state = document.getElementById("state");
    const mine = [...document.querySelectorAll("#all-trials tbody tr")];
    function filter() {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of mine) {
        const text = row.textContent.toLowerCase();
        const fits = words.every((word) => text.includes(word)) && (!state.value || row.dataset.state === state.value);
        row.hidden = !fits || (kept !== null && !kept.has(row.dataset.trial));
      }
      const shown = mine.filter((row) => !row.hidden).length;
      document.getElementById("count").textContent = `${shown} of ${mine.length} trials`;
    }
    find.addEventListener("input", filter);
    state.addEventListener("change", filter);
    return filter;
  }

  function brushable(svg, changed) {
    const runs = [...svg.querySelectorAll(".run")].map((path) => ({
      path,
      number: path.dataset.trial,
      ys: path.dataset.ys.split(" ").map(Number),
    }));
    const dimensions = [...svg.querySelectorAll(".dimension")];
    const xs = dimensions.map((one) => Number(one.dataset.x));
    const [top, bottom] = [Number(svg.dataset.top), Number(svg.dataset.bottom)];
    const ranges = dimensions.map(() => null);
    const inside = (value) => Math.min(Math.max(value, top - 6), bottom + 6);

    function place(event) {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return [point.x, point.y];
    }

    function apply() {
      dimensions.forEach((dimension, k) => {
        const mark = dimension.querySelector(".range");
        const [low, high] = ranges[k] ?? [0, 0];
        mark.setAttribute("y", low);
        mark.setAttribute("height", high - low);
      });
      const fits = ({ ys }) => ranges.every((range, k) => range === null || (ys[k] >= range[0] && ys[k] <= range[1]));
      runs.forEach((run) => run.path.classList.toggle("out", !fits(run)));
      kept = ranges.some(Boolean) ? new Set(runs.filter(fits).map((run) => run.number)) : null;
      changed();
    }

    dimensions.forEach((dimension, k) => {
      const grip = dimension.querySelector(".grip");
      let start = null;
      grip.addEventListener("pointerdown", (event) => {
        grip.setPointerCapture(event.pointerId);
        start = inside(place(event)[1]);
      });
      function reach(event) {
        if (start === null) return;
        const at = inside(place(event)[1]);
        ranges[k] = Math.abs(at - start) < 3 ? null : [Math.min(start, at), Math.max(start, at)]; // a click clears
        apply();
      }
      grip.addEventListener("pointermove", reach);
      grip.addEventListener("pointerup", (event) => {
        reach(event);
        start = null;
      });
      grip.addEventListener("pointercancel", () => (start = null));
      dimension.addEventListener("keydown", (event) => {
        const step = (bottom - top) / 20;
        const [low, high] = ranges[k] ?? [top - 6, top - 6 + 5 * step];
        const moved = {
          ArrowUp: [low - step, high - step],
          ArrowDown: ranges[k] ? [low + step, high + step] : [low, high],
          "+": [low - step, high + step],
          "-": [low + step, high - step],
        }[event.key];
        if (event.key === "Escape") ranges[k] = null;
        else if (moved && moved[1] > moved[0]) ranges[k] = moved.map(inside);
        else return;
        event.preventDefault();
        apply();
      });
    });

    // The line nearest to the pointer, told beside it.
    const tip = document.createElement("div");
    tip.className = "tip";
    svg.parentElement.append(tip);
    function nearest(event) {
      const [x, y] = place(event);
      const k = Math.min(Math.max(xs.findIndex((one) => one > x) - 1, 0), xs.length - 2);
      const share = (x - xs[k]) / (xs[k + 1] - xs[k]);
      const far = ({ ys }) => Math.abs(ys[k] + share * (ys[k + 1] - ys[k]) - y);
      const open = runs.filter((run) => !run.path.classList.contains("out"));
      const best = open.reduce((one, other) => (one && far(one) <= far(other) ? one : other), null);
      return best && far(best) < 10 && share >= 0 && share <= 1 ? best : null;
    }
    function show(best, event) {
      runs.forEach((run) => run.path.classList.toggle("near", run === best));
      tip.textContent = "";
      if (!best) return;
      about[best.number].forEach((line, i) => {
        const part = document.createElement(i ? "div" : "b");
        part.textContent = line;
        tip.append(part);
      });
      const box = svg.parentElement.getBoundingClientRect();
      const [x, right] = [event.clientX - box.left + svg.parentElement.scrollLeft, event.clientX - box.left > box.width / 2];
      tip.style.left = right ? "auto" : `${x + 14}px`;
      tip.style.right = right ? `${box.width - (event.clientX - box.left) + 14}px` : "auto";
    }
    svg.addEventListener("pointermove", (event) => show(nearest(event), event));
    svg.addEventListener("pointerleave", () => show(null));
    svg.addEventListener("click", (event) => {
      const best = event.target.closest(".grip") ? null : nearest(event);
      if (best) choose(Number(best.number));
    });
    return () => {
      ranges.fill(null);
      apply();
    };
  }

  for (const select of document.querySelectorAll("[data-choose]")) {
    const sets = [...document.querySelectorAll(`[data-set="${select.dataset.choose}"]`)];
    select.addEventListener("change", () => {
      sets.forEach((one, index) => (one.hidden = index !== Number(select.value)));
      drawVisible();
      sets[Number(select.value)].querySelectorAll(".plotly").forEach((box) => Plotly.Plots.resize(box));
    });
  }
  for (const row of rows) row.querySelector(".pick").addEventListener("click", () => choose(Number(row.dataset.trial)));
  drawVisible();
  if (rows.length) {
    const filter = filterable();
    const svg = document.querySelector(".parallel");
    const clear = svg ? brushable(svg, filter) : filter;
    document.getElementById("clear").addEventListener("click", () => {
      document.getElementById("find").value = "";
      document.getElementById("state").value = "";
      clear();
    });
    filter();
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    figures.filter((figure) => figure.dataset.live).forEach(draw);
  });
  document.documentElement.dataset.drawn = "true";
})();
