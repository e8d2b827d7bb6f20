// Generates the test frames and images of the page's proof, the same as in the export (edgefer/convert/web/questions.py).
'use strict'

// Synthetic noise image `number`: squares of 1, 2, 4 or 8 pixels.
function noise(number, height, width, channels) {
  const fold = number % 4, pixels = new Uint8Array(height * width * channels)
  let at = 0
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < channels; c++) {
        let mixed = Math.imul((number << 22) + (y >> fold) * 2048 + (x >> fold) * 4 + c, 0x9E3779B1)
        mixed = Math.imul(mixed ^ mixed >>> 15, 0x85EBCA6B)
        mixed = Math.imul(mixed ^ mixed >>> 15, 0xC2B2AE35)
        pixels[at++] = mixed >>> 24
      }
  return pixels
}

// The stored gray frame as BGR with different channels.
function tinted(gray) {
  const pixels = new Uint8Array(3 * gray.length)
  gray.forEach((value, at) => pixels.set([value - (value >> 2), value, value + (255 - value >> 2)], 3 * at))
  return pixels
}

// A variation of the stored BGR frame: [mirrored, left, width, times, tiles], see View in questions.py.
function viewOf(stored, [mirrored, left, part, times, tiles]) {
  const columns = part || stored.width - left, height = stored.height * times * tiles, width = columns * times * tiles
  const pixels = new Uint8Array(height * width * 3)
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 3) {
      const column = left + Math.floor(x / times) % columns
      const from = 3 * (Math.floor(y / times) % stored.height * stored.width + (mirrored ? stored.width - 1 - column : column))
      pixels[at] = stored.pixels[from]
      pixels[at + 1] = stored.pixels[from + 1]
      pixels[at + 2] = stored.pixels[from + 2]
    }
  return { pixels, height, width, format: 'bgr' }
}
