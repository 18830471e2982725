"use strict";
// A small volume (image, heat, shape, spacing in mm, diagonal in mm) as pixels: windows, colors, and rays through it.
const rays = (() => {
  const FADE = 0.45; // of the brightness, over the volume's diagonal
  const HEAT = [[127, 30, 108], [168, 46, 95], [204, 66, 72], [234, 99, 42], [249, 142, 9], [251, 190, 35], [241, 239, 117]];

  // Color of each of 256 levels of heat, red green blue.
  function heatColors() {
    const colors = new Float32Array(3 * 256);
    for (let level = 0; level < 256; level++) {
      const place = (level / 255) * (HEAT.length - 1);
      const low = Math.min(Math.floor(place), HEAT.length - 2);
      for (let k = 0; k < 3; k++) colors[3 * level + k] = HEAT[low][k] + (place - low) * (HEAT[low + 1][k] - HEAT[low][k]);
    }
    return colors;
  }

  // How much of what lies below each level of heat covers, and the brightness of each level of gray.
  function windows(view) {
    const alpha = new Float32Array(256);
    const gray = new Float32Array(256);
    for (let level = 0; level < 256; level++) {
      const above = (level / 255 - view.from) / Math.max(1 - view.from, 0.01);
      alpha[level] = above > 0 ? view.opacity * Math.min(1, 1.6 * above) : 0;
      gray[level] = Math.min(255, level * view.brightness);
    }
    return { alpha, gray, colors: view.colors };
  }

  function paint(pixels, at, gray, heat, { alpha, colors }) {
    const cover = alpha[heat];
    pixels[at] = gray + cover * (colors[3 * heat] - gray);
    pixels[at + 1] = gray + cover * (colors[3 * heat + 1] - gray);
    pixels[at + 2] = gray + cover * (colors[3 * heat + 2] - gray);
    pixels[at + 3] = 255;
  }

  // The picture's away, down and right as unit vectors along the volume's axes, in mm.
  function directions({ azimuth, elevation }) {
    const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
    return { away: [se, ce * ca, -ce * sa], down: [ce, -se * ca, se * sa], right: [0, sa, ca] };
  }

  // Where a ray enters and leaves the box from 0 to ends, in steps from its start; it leaves before it enters where it
  // misses the box. Written into `span`: nothing may be made anew for every pixel.
  function cross(start, along, ends, span) {
    [span[0], span[1]] = [-1e9, 1e9];
    for (let axis = 0; axis < 3; axis++) {
      if (Math.abs(along[axis]) < 1e-6) {
        if (start[axis] < 0 || start[axis] > ends[axis]) span[1] = -1e9;
        continue;
      }
      const one = -start[axis] / along[axis];
      const other = (ends[axis] - start[axis]) / along[axis];
      span[0] = Math.max(span[0], Math.min(one, other));
      span[1] = Math.min(span[1], Math.max(one, other));
    }
  }

  // Maximum-intensity projection along parallel rays, dimmer with depth, of the rows from first to last. Nearest voxels
  // are enough while it turns; between them it is smooth once it rests.
  function project(volume, axes, shades, pixels, side, first, last, smooth) {
    const { shape, spacing, diagonal } = volume;
    const pixel = diagonal / side;
    const step = Math.min(...spacing) * (smooth ? 0.75 : 1);
    const along = axes.away.map((one, axis) => (one * step) / spacing[axis]);
    const ends = shape.map((length) => length - 1);
    const [start, span, found] = [[0, 0, 0], [0, 0], [0, 0]];
    const fade = (FADE * step) / diagonal;
    for (let row = first; row < last; row++) {
      for (let column = 0; column < side; column++) {
        const [down, right] = [(row + 0.5 - side / 2) * pixel, (column + 0.5 - side / 2) * pixel];
        for (let axis = 0; axis < 3; axis++) {
          start[axis] = ends[axis] / 2 + (axes.down[axis] * down + axes.right[axis] * right) / spacing[axis];
        }
        cross(start, along, ends, span);
        follow(volume, start, along, span, 1 - FADE / 2 - fade * span[0], fade, smooth, found);
        paint(pixels, 4 * (row * side + column), shades.gray[found[0] | 0], (found[1] + 0.5) | 0, shades);
      }
    }
  }

  // The brightest gray, dimmed by depth, and the hottest place along one ray, into `found`.
  function follow({ image, heat, shape }, start, along, span, weight, fade, smooth, found) {
    const [depth, height, width] = shape;
    const plane = height * width;
    const [dz, dy, dx] = along;
    let [z, y, x] = [start[0] + span[0] * dz, start[1] + span[0] * dy, start[2] + span[0] * dx];
    let [brightest, hottest] = [0, 0];
    for (let left = Math.floor(span[1] - span[0]); left >= 0; left--) {
      let gray;
      let hot;
      if (smooth) {
        const z0 = Math.min(Math.max(z | 0, 0), depth - 2);
        const y0 = Math.min(Math.max(y | 0, 0), height - 2);
        const x0 = Math.min(Math.max(x | 0, 0), width - 2);
        const at = z0 * plane + y0 * width + x0;
        gray = between(image, at, width, plane, z - z0, y - y0, x - x0);
        hot = between(heat, at, width, plane, z - z0, y - y0, x - x0);
      } else {
        const at = ((z + 0.5) | 0) * plane + ((y + 0.5) | 0) * width + ((x + 0.5) | 0);
        gray = image[at];
        hot = heat[at];
      }
      if (gray * weight > brightest) brightest = gray * weight;
      if (hot > hottest) hottest = hot;
      z += dz;
      y += dy;
      x += dx;
      weight -= fade;
    }
    [found[0], found[1]] = [brightest, hottest];
  }

  // Linear interpolation in the cell whose first corner is `at`.
  function between(values, at, width, plane, dz, dy, dx) {
    const low = values[at] + dx * (values[at + 1] - values[at]);
    const right = at + width;
    const high = values[right] + dx * (values[right + 1] - values[right]);
    const back = at + plane;
    const lower = values[back] + dx * (values[back + 1] - values[back]);
    const corner = back + width;
    const upper = values[corner] + dx * (values[corner + 1] - values[corner]);
    const front = low + dy * (high - low);
    return front + dz * (lower + dy * (upper - lower) - front);
  }

  return { heatColors, windows, paint, directions, project };
})();
