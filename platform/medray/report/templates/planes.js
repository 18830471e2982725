"use strict";
// What the viewer of a volume is made of: elements, sliders, words on canvases, and the three planes.
const planes = (() => {
  const LONGEST = 230; // pixels of the longest edge of a volume
  const AXES = [
    { through: 0, down: 1, across: 2, name: "axial" },
    { through: 1, down: 0, across: 2, name: "coronal" },
    { through: 2, down: 0, across: 1, name: "sagittal" },
  ];

  function make(parent, name, attributes = {}, text = "") {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  function slider(parent, name, low, high, value, step, changed) {
    const label = make(parent, "label", { class: "slide" });
    make(label, "span", {}, name);
    const output = make(label, "output");
    const input = make(label, "input", { type: "range", min: low, max: high, step, value, "aria-label": name });
    input.show = (text) => {
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    input.addEventListener("input", () => input.show(changed(Number(input.value))));
    return input;
  }

  function write(context, text, x, y, align = "center") {
    context.font = "bold 12px system-ui, sans-serif";
    context.textAlign = align;
    context.textBaseline = "middle";
    context.lineWidth = 3;
    context.strokeStyle = "#000";
    context.strokeText(text, x, y);
    context.fillStyle = "#fff";
    context.fillText(text, x, y);
  }

  // One plane with its slider; a click in it moves the other two.
  class Plane {
    constructor(parent, volume, view, axes, moved) {
      Object.assign(this, { volume, view, axes, moved });
      const { shape, spacing } = volume;
      const longest = Math.max(...shape.map((length, axis) => length * spacing[axis]));
      this.scale = LONGEST / longest; // px per mm, the same in all planes
      const box = make(parent, "div", { class: "plane" });
      this.canvas = make(box, "canvas", { role: "img" });
      this.canvas.width = Math.round(shape[axes.across] * spacing[axes.across] * this.scale);
      this.canvas.height = Math.round(shape[axes.down] * spacing[axes.down] * this.scale);
      this.name = volume.letters.length ? axes.name : `plane through axis ${axes.through}`;
      this.context = this.canvas.getContext("2d");
      this.small = document.createElement("canvas");
      [this.small.width, this.small.height] = [shape[axes.across], shape[axes.down]];
      this.data = this.small.getContext("2d").createImageData(this.small.width, this.small.height);
      this.slider = slider(box, this.name, 0, shape[axes.through] - 1, view.point[axes.through], 1, (value) => {
        view.point[axes.through] = value;
        moved();
        return `${value + 1} of ${shape[axes.through]}`;
      });
      this.canvas.addEventListener("pointerdown", (event) => this.pick(event));
      this.canvas.addEventListener("pointermove", (event) => event.buttons && this.pick(event));
    }

    pick(event) {
      const box = this.canvas.getBoundingClientRect();
      const { shape } = this.volume;
      const share = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
      [this.axes.down, this.axes.across].forEach((axis, k) => {
        this.view.point[axis] = Math.max(0, Math.min(shape[axis] - 1, Math.floor(share[k] * shape[axis])));
      });
      this.moved();
    }

    at(row, column) {
      const index = [0, 0, 0];
      index[this.axes.through] = this.view.point[this.axes.through];
      index[this.axes.down] = row;
      index[this.axes.across] = column;
      return (index[0] * this.volume.shape[1] + index[1]) * this.volume.shape[2] + index[2];
    }

    draw(shades) {
      const { context, canvas, small, data, volume, axes, view } = this;
      for (let row = 0; row < small.height; row++) {
        for (let column = 0; column < small.width; column++) {
          const at = this.at(row, column);
          rays.paint(data.data, 4 * (row * small.width + column), shades.gray[volume.image[at]], volume.heat[at], shades);
        }
      }
      small.getContext("2d").putImageData(data, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, canvas.width, canvas.height);
      const [wide, high] = [canvas.width / small.width, canvas.height / small.height];
      if (volume.mask) this.drawMask(wide, high);
      context.fillStyle = "rgb(86 180 233 / .8)";
      context.fillRect((view.point[axes.across] + 0.5) * wide - 0.5, 0, 1, canvas.height);
      context.fillRect(0, (view.point[axes.down] + 0.5) * high - 0.5, canvas.width, 1);
      if (volume.letters.length) {
        write(context, volume.letters[axes.across][0], 8, canvas.height / 2);
        write(context, volume.letters[axes.across][1], canvas.width - 8, canvas.height / 2);
        write(context, volume.letters[axes.down][0], canvas.width / 2, 9);
        write(context, volume.letters[axes.down][1], canvas.width / 2, canvas.height - 9);
      }
      this.drawBar();
      const place = view.point[axes.through];
      if (Number(this.slider.value) !== place) this.slider.value = place;
      this.slider.show(`${place + 1} of ${volume.shape[axes.through]}`);
      canvas.setAttribute("aria-label", `${this.name}, ${place + 1} of ${volume.shape[axes.through]}`);
    }

    drawMask(wide, high) {
      const { context, small, volume } = this;
      const inside = (row, column) =>
        row >= 0 && column >= 0 && row < small.height && column < small.width && volume.mask[this.at(row, column)] > 0;
      context.fillStyle = "#00e0a0";
      for (let row = 0; row < small.height; row++) {
        for (let column = 0; column < small.width; column++) {
          if (!inside(row, column)) continue;
          const [x, y] = [column * wide, row * high];
          if (!inside(row - 1, column)) context.fillRect(x, y - 0.75, wide, 1.5);
          if (!inside(row + 1, column)) context.fillRect(x, y + high - 0.75, wide, 1.5);
          if (!inside(row, column - 1)) context.fillRect(x - 0.75, y, 1.5, high);
          if (!inside(row, column + 1)) context.fillRect(x + wide - 0.75, y, 1.5, high);
        }
      }
    }

    drawBar() {
      const { context, canvas, scale } = this;
      const length = [100, 50, 20, 10, 5, 2, 1].find((mm) => mm * scale <= 0.3 * canvas.width) ?? 1;
      const [x, y] = [canvas.width - 8, canvas.height - 8];
      context.fillStyle = "#000";
      context.fillRect(x - length * scale - 1, y - 1, length * scale + 2, 4);
      context.fillStyle = "#fff";
      context.fillRect(x - length * scale, y, length * scale, 2);
      write(context, `${length} mm`, x, y - 9, "right");
    }
  }

  return { AXES, make, slider, write, Plane };
})();
