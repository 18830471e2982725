"use strict";
// The volume behind a figure: a rendering that turns, three planes, and the window of the heat over both.
(() => {
  const SIDE = 320; // pixels of the rendering; half of it while it turns
  const { make, slider, write } = planes;

  // The edges of the volume, and what the faces towards the viewer are called.
  function drawBox(context, volume, axes) {
    const half = volume.shape.map((length, axis) => (length * volume.spacing[axis]) / 2);
    const scale = SIDE / volume.diagonal;
    const place = (point) => [
      SIDE / 2 + scale * point.reduce((sum, mm, axis) => sum + mm * axes.right[axis], 0),
      SIDE / 2 + scale * point.reduce((sum, mm, axis) => sum + mm * axes.down[axis], 0),
    ];
    context.strokeStyle = "rgb(150 190 210 / .45)";
    context.lineWidth = 1;
    context.beginPath();
    for (let axis = 0; axis < 3; axis++) {
      for (const [one, other] of [[-1, -1], [-1, 1], [1, -1], [1, 1]]) {
        const point = [0, 0, 0];
        point[(axis + 1) % 3] = one * half[(axis + 1) % 3];
        point[(axis + 2) % 3] = other * half[(axis + 2) % 3];
        for (const sign of [-1, 1]) {
          point[axis] = sign * half[axis];
          context[sign < 0 ? "moveTo" : "lineTo"](...place(point));
        }
      }
    }
    context.stroke();
    volume.letters.forEach((pair, axis) =>
      pair.forEach((letter, end) => {
        const point = [0, 0, 0];
        point[axis] = (end ? 1 : -1) * half[axis];
        if (point[axis] * axes.away[axis] < 0) write(context, letter, ...place(point));
      })
    );
  }

  // The rendering: draws coarsely at once, finely in small pieces when nothing has moved for a moment.
  class Rendering {
    constructor(canvas, volume, view) {
      Object.assign(this, { canvas, volume, view, context: canvas.getContext("2d"), waiting: 0, piece: 0 });
      canvas.width = canvas.height = SIDE;
      this.small = document.createElement("canvas");
      this.small.width = this.small.height = SIDE / 2;
      this.coarse = this.small.getContext("2d").createImageData(SIDE / 2, SIDE / 2);
      this.fine = this.context.createImageData(SIDE, SIDE);
    }

    draw() {
      cancelAnimationFrame(this.piece);
      clearTimeout(this.waiting);
      this.piece = requestAnimationFrame(() => {
        const axes = rays.directions(this.view);
        rays.project(this.volume, axes, rays.windows(this.view), this.coarse.data, SIDE / 2, 0, SIDE / 2, false);
        this.small.getContext("2d").putImageData(this.coarse, 0, 0);
        this.context.drawImage(this.small, 0, 0, SIDE, SIDE);
        drawBox(this.context, this.volume, axes);
        this.canvas.dataset.drawn = "coarse";
        this.waiting = setTimeout(() => this.refine(axes, rays.windows(this.view), 0), 150);
      });
    }

    refine(axes, shades, row) {
      const deadline = performance.now() + 12;
      while (row < SIDE && performance.now() < deadline) {
        rays.project(this.volume, axes, shades, this.fine.data, SIDE, row, row + 4, true);
        row += 4;
      }
      if (row < SIDE) {
        this.piece = requestAnimationFrame(() => this.refine(axes, shades, row));
        return;
      }
      this.context.putImageData(this.fine, 0, 0);
      drawBox(this.context, this.volume, axes);
      this.canvas.dataset.drawn = "fine";
    }

    turn(right, down) {
      this.view.azimuth -= right;
      this.view.elevation = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, this.view.elevation + down));
      this.draw();
    }

    listen() {
      const { canvas } = this;
      let last = null;
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        last = [event.clientX, event.clientY];
      });
      canvas.addEventListener("pointermove", (event) => {
        if (last === null) return;
        this.turn((event.clientX - last[0]) / 100, (event.clientY - last[1]) / 100);
        last = [event.clientX, event.clientY];
      });
      for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
      const steps = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
      canvas.addEventListener("keydown", (event) => {
        if (!(event.key in steps)) return;
        event.preventDefault(); // the page would scroll
        this.turn(...steps[event.key]);
      });
    }
  }

  function build(figure, volume) {
    const view = { azimuth: 0.5, elevation: 0.25, from: 0.2, opacity: 0.8, brightness: 1, colors: rays.heatColors() };
    view.point = hottest(volume);
    const viewer = make(figure, "div", { class: "viewer", role: "group", "aria-label": "Volume of " + figure.querySelector("b").textContent });
    const left = make(viewer, "div", { class: "rendering" });
    const canvas = make(left, "canvas", { tabindex: "0", role: "application" });
    canvas.setAttribute("aria-label", "Rendering of the volume; drag it or press the arrow keys to turn it");
    const rendering = new Rendering(canvas, volume, view);
    rendering.listen();
    make(left, "p", { class: "note" }, "Drag or use the arrow keys to turn. Brightest gray and hottest color along each line of sight.");
    const right = make(viewer, "div", { class: "planes" });
    const shown = planes.AXES.map((axes) => new planes.Plane(right, volume, view, axes, drawPlanes));
    const controls = make(right, "div", { class: "controls" });
    function drawPlanes() {
      const shades = rays.windows(view);
      shown.forEach((plane) => plane.draw(shades));
    }
    function setting(name, key, low, high) {
      const percent = (value) => `${value} %`;
      const input = slider(controls, name, low, high, Math.round(100 * view[key]), 1, (value) => {
        view[key] = value / 100;
        drawPlanes();
        rendering.draw();
        return percent(value);
      });
      input.show(percent(Math.round(100 * view[key])));
    }
    setting("heat shown from", "from", 0, 95);
    setting("heat covers", "opacity", 0, 100);
    setting("brightness of the image", "brightness", 30, 300);
    const scale = make(controls, "p", { class: "scale" });
    for (const text of ["0", "", "1 (the map’s maximum)"]) make(scale, "span", {}, text);
    if (volume.mask) make(controls, "p", { class: "outline-note" }, "true outline");
    drawPlanes();
    rendering.draw();
    return { viewer, canvas };
  }

  // Where the heat is largest; the middle where there is none.
  function hottest({ heat, shape }) {
    let best = 0;
    for (let at = 1; at < heat.length; at++) if (heat[at] > heat[best]) best = at;
    if (heat[best] === 0) return shape.map((length) => length >> 1);
    const plane = shape[1] * shape[2];
    return [Math.floor(best / plane), Math.floor((best % plane) / shape[2]), best % shape[2]];
  }

  async function unpack(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function load(figure) {
    const record = JSON.parse(figure.querySelector("script").textContent);
    const [image, heat, mask] = await Promise.all(
      [record.image, record.heat, record.mask].map((text) => (text === null ? null : unpack(text)))
    );
    const diagonal = Math.hypot(...record.shape.map((length, axis) => length * record.spacing[axis]));
    return { image, heat, mask, diagonal, shape: record.shape, spacing: record.spacing, letters: record.letters };
  }

  for (const button of document.querySelectorAll(".open-scene")) {
    const figure = button.closest("figure");
    const label = button.firstChild.textContent;
    let shown = null;
    const close = () => {
      shown.viewer.remove();
      shown = null;
      figure.classList.remove("opened");
      button.setAttribute("aria-expanded", "false");
      button.firstChild.textContent = label;
      button.focus();
    };
    button.addEventListener("click", async () => {
      if (shown) return close();
      if (!("DecompressionStream" in window)) {
        button.firstChild.textContent = "This browser cannot unpack the volume";
        return;
      }
      button.disabled = true;
      const volume = await load(figure);
      button.disabled = false;
      figure.classList.add("opened");
      button.setAttribute("aria-expanded", "true");
      button.firstChild.textContent = "Close the volume";
      shown = build(figure, volume);
      shown.viewer.addEventListener("keydown", (event) => event.key === "Escape" && close());
      shown.canvas.focus({ preventScroll: true });
    });
  }
})();
