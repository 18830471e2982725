"use strict";
// A small volume (image, heat, shape, spacing in mm, diagonal in mm) as pixels: windows, colors, and rays through it.
const rays = (() => {
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

  // Maximum-intensity projection along parallel rays, rows from first to last, dimmer with depth. Nearest voxels are
  // enough while it turns; between them it is smooth once it rests.
  function project(volume, axes, shades, pixels, side, first, last, smooth) {
    const { image, heat, shape, spacing, diagonal } = volume;
    const [depth, height, width] = shape;
    const plane = height * width;
    const pixel = diagonal / side;
    const step = Math.min(...spacing) * (smooth ? 0.75 : 1);
    const along = axes.away.map((one, axis) => (one * step) / spacing[axis]);
    const ends = [depth - 1, height - 1, width - 1];
    const start = [0, 0, 0];
    for (let row = first; row < last; row++) {
      for (let column = 0; column < side; column++) {
        let near = -1e9;
        let far = 1e9;
        for (let axis = 0; axis < 3; axis++) {
          const mm = axes.down[axis] * (row + 0.5 - side / 2) * pixel + axes.right[axis] * (column + 0.5 - side / 2) * pixel;
          start[axis] = ends[axis] / 2 + mm / spacing[axis];
          if (Math.abs(along[axis]) < 1e-6) {
            if (start[axis] < 0 || start[axis] > ends[axis]) far = -1e9;
            continue;
          }
          const one = -start[axis] / along[axis];
          const other = (ends[axis] - start[axis]) / along[axis];
          near = Math.max(near, Math.min(one, other));
          far = Math.min(far, Math.max(one, other));
        }
        let brightest = 0;
        let hottest = 0;
        const count = Math.floor(far - near);
        let z = start[0] + near * along[0];
        let y = start[1] + near * along[1];
        let x = start[2] + near * along[2];
        let weight = 1 - (0.45 * (near * step + diagonal / 2)) / diagonal;
        const fade = (0.45 * step) / diagonal;
        for (let k = 0; k <= count; k++) {
          let gray;
          let hot;
          if (smooth) {
            const z0 = Math.min(Math.max(z | 0, 0), depth - 2);
            const y0 = Math.min(Math.max(y | 0, 0), height - 2);
            const x0 = Math.min(Math.max(x | 0, 0), width - 2);
            const [dz, dy, dx] = [z - z0, y - y0, x - x0];
            const at = z0 * plane + y0 * width + x0;
            gray = between(image, at, width, plane, dz, dy, dx);
            hot = between(heat, at, width, plane, dz, dy, dx);
          } else {
            const at = ((z + 0.5) | 0) * plane + ((y + 0.5) | 0) * width + ((x + 0.5) | 0);
            gray = image[at];
            hot = heat[at];
          }
          gray *= weight;
          if (gray > brightest) brightest = gray;
          if (hot > hottest) hottest = hot;
          z += along[0];
          y += along[1];
          x += along[2];
          weight -= fade;
        }
        paint(pixels, 4 * (row * side + column), shades.gray[brightest | 0], (hottest + 0.5) | 0, shades);
      }
    }
  }

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
