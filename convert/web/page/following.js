// Tracks a face by template matching over frames in which it is not detected, as `edgefer run` does (edgefer/devices/faces/tracking.py).
'use strict'

// For each of `count` output pixels along an axis of `size`, its source pixels and weights, { first, shares }: OpenCV's INTER_AREA.
function areas(size, count, shrinks) {
  const grown = count / size, scale = 1 / grown
  return Array.from({ length: count }, (_, at) => {
    const begin = at * scale, end = begin + scale, first = Math.floor(begin), whole = Math.min(scale, size - begin)
    if (!shrinks) {
      const part = first < size - 1 ? Math.max(0, Math.fround(at + 1 - (first + 1) * grown)) % 1 : 0
      const shares = [Math.fround(1 - part), part].map(share => even(2048 * share))
      return { first, shares: part ? shares : [2048] }
    }
    const parts = []
    for (let place = first; place < Math.min(end, size); place++) parts.push(Math.min(place + 1, end) - Math.max(place, begin))
    const skipped = parts[0] > 1e-3 ? 0 : 1
    return { first: first + skipped, shares: parts.slice(skipped).filter(part => part > 1e-3).map(part => Math.fround(part / whole)) }
  })
}

// One channel, uint8 [height][width], resized to uint8 [newHeight][newWidth] with OpenCV's exact arithmetic, since ties are common.
function resized(plane, height, width, newHeight, newWidth) {
  const shrinks = height >= newHeight && width >= newWidth, halves = height === 2 * newHeight && width === 2 * newWidth
  const across = new Float32Array(height * newWidth), out = new Uint8Array(newHeight * newWidth), { fround } = Math
  areas(width, newWidth, shrinks).forEach(({ first, shares }, x) => {
    for (let row = 0; row < height; row++) {
      let sum = 0
      for (let tap = 0; tap < shares.length; tap++) sum = fround(sum + fround(shares[tap] * plane[row * width + first + tap]))
      across[row * newWidth + x] = sum
    }
  })
  areas(height, newHeight, shrinks).forEach(({ first, shares }, y) => {
    for (let x = 0; x < newWidth; x++) {
      let sum = shrinks ? 0 : 2
      for (let tap = 0; tap < shares.length; tap++) {
        const value = across[(first + tap) * newWidth + x]
        sum = shrinks ? fround(sum + fround(shares[tap] * value)) : sum + (shares[tap] * (value >> 4) >> 16)
      }
      out[y * newWidth + x] = !shrinks ? sum >> 2 : halves ? Math.floor(sum + 0.5) : even(sum)
    }
  })
  return out
}

// The part of a frame, RGBA, in `box`, grown by so many of its sides each way, as gray whose face has rules.patch pixels a side:
// { gray, height, width, left, top, inset }; null where it lies outside the frame. inset: where it begins in the box, [x, y].
function patchOf(frame, box, grow, { patch }) {
  const edge = Math.max(1, side(box)), more = grow * edge, step = Math.max(1, Math.floor(edge / (2 * patch)))
  const left = Math.max(0, even(box[0] - more)), top = Math.max(0, even(box[1] - more))
  const right = Math.min(frame.width, even(box[2] + more)), bottom = Math.min(frame.height, even(box[3] + more))
  if (left >= right || top >= bottom) return null
  const [height, width] = [bottom - top, right - left].map(size => Math.max(1, even(size * patch / edge)))
  const rows = Math.ceil((bottom - top) / step), columns = Math.ceil((right - left) / step)
  const [red, green, blue] = [0, 1, 2].map(channel => {
    const plane = new Uint8Array(rows * columns)
    for (let y = 0, at = 0; y < rows; y++)
      for (let x = 0; x < columns; x++, at++) plane[at] = frame.pixels[4 * ((top + step * y) * frame.width + left + step * x) + channel]
    return resized(plane, rows, columns, height, width)
  })
  const gray = red.map((value, at) => (value * 9798 + green[at] * 19235 + blue[at] * 3735 + 16384) >> 15)
  return { gray, height, width, left, top, inset: [left - box[0], top - box[1]] }
}

// Normalized correlation of a patch with each position in a window, -1..1, [rows][columns]: OpenCV's TM_CCOEFF_NORMED.
function likeness(window, patch) {
  const rows = window.height - patch.height + 1, columns = window.width - patch.width + 1, count = patch.gray.length
  const mean = patch.gray.reduce((a, b) => a + b, 0) / count, norm = Math.sqrt(count) * deviation(patch.gray)
  const out = new Float64Array(rows * columns)
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) {
      let sum = 0, squares = 0, products = 0
      for (let row = 0, at = 0; row < patch.height; row++)
        for (let from = (y + row) * window.width + x, end = from + patch.width; from < end; from++, at++) {
          const value = window.gray[from]
          sum += value
          squares += value * value
          products += value * patch.gray[at]
        }
      const spread = Math.sqrt(Math.max(0, squares - sum * sum / count)) * norm
      out[y * columns + x] = spread ? (products - mean * sum) / spread : 0
    }
  return { values: out, rows, columns }
}

function deviation(gray) {
  const mean = gray.reduce((a, b) => a + b, 0) / gray.length
  return Math.sqrt(gray.reduce((sum, value) => sum + (value - mean) ** 2, 0) / gray.length)
}

// Displacement in a frame of the face of `patch`, last at `box`, [x, y] in pixels; null if nothing matches it.
function moveOf(frame, box, patch, rules) {
  const window = patchOf(frame, box, rules.reach, rules)
  if (!patch || !window || window.height < patch.height || window.width < patch.width) return null
  if (deviation(patch.gray) < rules.min_contrast) return null  // a patch without contrast matches everything
  const { values, rows, columns } = likeness(window, patch)
  const best = values.indexOf(values.reduce((a, b) => Math.max(a, b)))
  if (values[best] < rules.min_correlation) return null
  const row = Math.floor(best / columns), column = best % columns, pixel = Math.max(1, side(box)) / rules.patch
  const x = window.left + pixel * (column + peak(values, best, 1, column, columns))
  const y = window.top + pixel * (row + peak(values, best, columns, row, rows))
  return [x - (box[0] + patch.inset[0]), y - (box[1] + patch.inset[1])]
}

// Subpixel offset of the maximum, -0.5..0.5, by a parabola through it and its neighbours.
function peak(values, at, step, place, count) {
  if (place === 0 || place === count - 1) return 0
  const before = values[at - step], after = values[at + step], bend = before - 2 * values[at] + after
  return bend < 0 ? 0.5 * (before - after) / bend : 0
}
