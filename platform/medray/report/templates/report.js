"use strict";
(() => {
  const NS = "http://www.w3.org/2000/svg";
  const compact = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });
  const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 2, useGrouping: false }); // steps can be long
  const text = (value, format = compact) => format.format(value).replace("-", "−");

  function element(parent, name, className, content) {
    const made = document.createElement(name);
    made.className = className;
    if (content !== undefined) made.textContent = content;
    parent.append(made);
    return made;
  }

  // Hover and legend of the line charts. The curves themselves are in the page and need none of this.
  function enliven(figure) {
    const chart = JSON.parse(figure.querySelector("script").textContent);
    const svg = figure.querySelector("svg");
    const plot = figure.querySelector(".plot");
    const hidden = new Set();
    const [xLow, xHigh, left, right] = chart.x;
    const [yLow, yHigh, bottom, top] = chart.y;
    const shape = chart.log ? Math.log10 : (value) => value;
    const toX = (x) => left + ((x - xLow) / (xHigh - xLow)) * (right - left);
    const toY = (y) => bottom + ((shape(y) - shape(yLow)) / (shape(yHigh) - shape(yLow))) * (top - bottom);

    const ruler = document.createElementNS(NS, "line");
    ruler.setAttribute("class", "ruler");
    ruler.setAttribute("y1", top);
    ruler.setAttribute("y2", bottom);
    svg.append(ruler);
    const dots = chart.series.map((series) => {
      const dot = document.createElementNS(NS, "circle");
      dot.setAttribute("class", `hover s${series.color}`);
      dot.setAttribute("r", "4.5");
      svg.append(dot);
      return dot;
    });
    const tip = element(plot, "div", "tip");
    tip.setAttribute("role", "status");

    function nearest(series, x) {
      let best = -1;
      for (let i = 0; i < series.x.length; i++) {
        if (series.y[i] !== null && (best < 0 || Math.abs(series.x[i] - x) < Math.abs(series.x[best] - x))) best = i;
      }
      return best;
    }

    function clear() {
      figure.classList.remove("pointed");
      tip.textContent = "";
    }

    function show(x) {
      const shown = chart.series.map((series, k) => (hidden.has(k) ? -1 : nearest(series, x)));
      const places = shown.map((i, k) => (i < 0 ? Infinity : Math.abs(chart.series[k].x[i] - x)));
      const leader = places.indexOf(Math.min(...places));
      if (leader < 0 || shown[leader] < 0) return clear();
      const at = chart.series[leader].x[shown[leader]];
      figure.classList.add("pointed");
      ruler.setAttribute("x1", toX(at));
      ruler.setAttribute("x2", toX(at));
      tip.textContent = "";
      element(tip, "b", "", `${chart.xLabel} ${text(at, exact)}`);
      shown.forEach((i, k) => {
        // A curve that was not measured near here has nothing to say here.
        const near = i >= 0 && Math.abs(toX(chart.series[k].x[i]) - toX(at)) < 12;
        dots[k].classList.toggle("off", !near);
        if (!near) return;
        const value = chart.series[k].y[i];
        dots[k].setAttribute("cx", toX(chart.series[k].x[i]));
        dots[k].setAttribute("cy", toY(value));
        const line = element(tip, "span", `row s${chart.series[k].color}`);
        element(line, "span", "", chart.series[k].name);
        element(line, "span", "num", text(value) + (chart.unit ? ` ${chart.unit}` : ""));
      });
      const share = toX(at) / 480;
      tip.style.left = share < 0.5 ? `${share * 100 + 2}%` : "auto";
      tip.style.right = share < 0.5 ? "auto" : `${(1 - share) * 100 + 2}%`;
    }

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * 480;
      show(xLow + ((Math.min(Math.max(x, left), right) - left) / (right - left)) * (xHigh - xLow));
    });
    svg.addEventListener("pointerleave", clear);
    for (const key of figure.querySelectorAll(".key")) {
      key.addEventListener("click", () => {
        const k = Number(key.dataset.series);
        const off = !hidden.has(k);
        if (off) hidden.add(k);
        else hidden.delete(k);
        key.setAttribute("aria-pressed", String(!off));
        svg.querySelector(`g[data-series="${k}"]`).classList.toggle("off", off);
        clear();
      });
    }
    figure.dataset.live = "true";
  }

  // Tables whose headings sort: numbers by size with empty cells last, words by the alphabet.
  function sortable(table) {
    const body = table.tBodies[0];
    const headings = [...table.tHead.rows[0].cells];
    const value = (row, column) => {
      const cell = row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const size = Number(cell.replace("−", "-").replace("∞", "Infinity"));
      return cell === "" || Number.isNaN(size) ? cell : size;
    };
    const missing = (one) => one === "" || one === "–";
    headings.forEach((heading, column) => {
      const label = heading.textContent;
      heading.textContent = "";
      const button = element(heading, "button", "sort", label);
      button.type = "button";
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [value(row, column), row]);
        rows.sort(([a], [b]) => {
          if (missing(a) || missing(b)) return missing(a) - missing(b);
          const order =
            typeof a === "number" && typeof b === "number"
              ? a - b
              : String(a).localeCompare(String(b), "en", { numeric: true });
          return down ? -order : order;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  function lightbox() {
    const dialog = document.getElementById("lightbox");
    const image = dialog.querySelector("img");
    const caption = dialog.querySelector("p");
    const buttons = [...document.querySelectorAll(".zoom")];
    let current = 0;
    function show(index) {
      current = (index + buttons.length) % buttons.length;
      const figure = buttons[current].closest("figure");
      image.src = figure.querySelector("img").src;
      image.alt = figure.querySelector("img").alt;
      caption.textContent = figure.querySelector("figcaption").textContent;
      if (!dialog.open) dialog.showModal();
    }
    buttons.forEach((button, index) => button.addEventListener("click", () => show(index)));
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowRight") show(current + 1);
      if (event.key === "ArrowLeft") show(current - 1);
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target === image) dialog.close();
    });
  }

  function copyable(button) {
    const source = document.getElementById(button.dataset.copy);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source); // the browser forbids it: one key press is left to do
        button.textContent = "Press Ctrl+C";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }

  document.querySelectorAll("figure[data-chart]").forEach(enliven);
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("button.copy").forEach(copyable);
  if (document.getElementById("lightbox")) lightbox(); // the page of a sweep has no pictures

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => (one.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((one) => (one.open = false)));
  document.documentElement.dataset.ready = "true";
})();
