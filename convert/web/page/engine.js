// The WebAssembly of edgefer's C, and what it runs: the network, the pixels of a face, the detector.
'use strict'

// The smallest module with an instruction of SIMD128: a browser that takes it runs the faster engine.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11)
const FORMAT = { gray: 1, bgr: 3, rgba: 4 }, COLOR = { gray: 0, rgb: 1, bgr: 2 }
const MAX_FACES = 32

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), letter => letter.charCodeAt(0))
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

class Engine {
  // simd: whether to use SIMD128; where left out, if the browser has it.
  static async start(bundle, simd = WebAssembly.validate(SIMD)) {
    const engine = new Engine()
    const code = await unpack(simd ? bundle.engine_simd : bundle.engine)
    engine.simd = simd
    engine.card = bundle.card
    engine.detector = bundle.detector
    engine.calls = (await WebAssembly.instantiate(code, {})).instance.exports
    engine.network = engine.keep(await unpack(bundle.network))
    engine.words = bundle.network_words
    engine.cascade = bundle.cascade ? engine.keep(await unpack(bundle.cascade)) : 0
    const { height, width, channels } = bundle.card.input
    engine.inputBytes = height * width * channels
    engine.input = engine.room(engine.inputBytes)
    engine.answers = engine.room(bundle.card.labels.length)
    engine.arena = engine.room(engine.calls.edgefer_arena_bytes(engine.network))
    engine.box = engine.room(16)
    engine.boxes = engine.room(16 * MAX_FACES)
    engine.rooms = {}
    return engine
  }

  room(bytes) {
    const place = this.calls.web_allocate(bytes) >>> 0
    if (!place) throw new Error('This browser gives the page no more memory: close other tabs and load it again.')
    return place
  }

  keep(bytes) {
    const place = this.room(bytes.length)
    this.bytes(place, bytes.length).set(bytes)
    return place
  }

  // A named place of at least so many bytes, taken again only when more are asked for.
  reuse(name, bytes) {
    const had = this.rooms[name]
    if (!had || had.bytes < bytes) this.rooms[name] = { place: this.room(bytes), bytes }
    return this.rooms[name].place
  }

  bytes(place, length) { return new Uint8Array(this.calls.memory.buffer, place, length) }
  integers(place, length) { return new Int32Array(this.calls.memory.buffer, place, length) }

  whole() { return this.calls.edgefer_check(this.network, this.words) === 0 && this.crc() === BUNDLE.network_crc }
  crc() { return new Uint32Array(this.calls.memory.buffer, this.network, 3)[2] }

  // The network's int8 answers to pixels as it takes them.
  run(pixels) {
    this.bytes(this.input, this.inputBytes).set(pixels)
    this.calls.edgefer_run(this.network, this.input, this.arena, this.answers)
    return new Int8Array(this.calls.memory.buffer, this.answers, this.card.labels.length).slice()
  }

  // A frame: { pixels, height, width, format } put into the engine's memory.
  take(frame) {
    const place = this.reuse('frame', frame.pixels.length)
    this.bytes(place, frame.pixels.length).set(frame.pixels)
    return { place, height: frame.height, width: frame.width, format: FORMAT[frame.format] }
  }

  // One face's pixels, by the crop of the card: { scale, dx, dy }.
  face(taken, box, crop) {
    const { height, width, color } = this.card.input
    this.integers(this.box, 4).set(box)
    this.calls.web_face(taken.place, taken.height, taken.width, taken.format, this.box, crop.scale, crop.dx, crop.dy,
      height, width, COLOR[color], this.input)
    return this.bytes(this.input, this.inputBytes).slice()
  }

  // Boxes of faces, the largest first; limit: pixels to which the width is shrunk before.
  find(taken, limit) {
    if (!this.cascade) {
      const side = Math.min(taken.height, taken.width)
      const left = Math.floor((taken.width - side) / 2), top = Math.floor((taken.height - side) / 2)
      return [[left, top, left + side, top + side]]
    }
    const shrink = Math.min(1, limit / taken.width)
    const height = Math.max(1, Math.round(taken.height * shrink)), width = Math.max(1, Math.round(taken.width * shrink))
    const gray = this.reuse('gray', height * width)
    this.calls.web_gray(taken.place, taken.height, taken.width, taken.format, height, width, gray)
    const work = this.reuse('work', this.calls.edgefer_faces_bytes(height, width))
    const smallest = Math.max(this.detector.window, Math.round(this.detector.share * Math.min(height, width)))
    const count = this.calls.edgefer_faces(this.cascade, gray, height, width, smallest, work, this.boxes, MAX_FACES)
    const edges = Array.from(this.integers(this.boxes, 4 * count), edge => Math.round(edge / shrink))
    const found = Array.from({ length: count }, (_, at) => edges.slice(4 * at, 4 * at + 4))
    return found.sort((a, b) => (b[2] - b[0]) * (b[3] - b[1]) - (a[2] - a[0]) * (a[3] - a[1]))
  }
}
