// The WebAssembly build of edgefer's C code: runs networks and computes their input pixels.
'use strict'

Object.assign(BUNDLE, JSON.parse(BUNDLE.settings))  // card, rules and so on: as text, so that the proof can take its CRC-32

// The smallest module with a SIMD128 instruction: a browser that validates it runs the faster engine.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11)
const FORMAT = { gray: 1, bgr: 3, rgba: 4 }, COLOR = { gray: 0, rgb: 1, bgr: 2 }

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), letter => letter.charCodeAt(0))
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

const radians = degrees => degrees * (Math.PI / 180)

// A network in the engine's memory. `input`: address of its input pixels; outputs: scale and zero point of each.
class Network {
  constructor(engine, words, { count, crc, outputs }) {
    Object.assign(this, { engine, count, crc, outputs, place: engine.keep(words) })
    this.header = new Uint32Array(words.buffer, 0, 16).slice()
    this.height = this.header[11]
    this.width = this.header[12]
    this.inputBytes = this.header[6]
    this.input = engine.room(this.inputBytes)
    this.answers = engine.room(this.header[8])
    this.arena = engine.room(this.header[3])
  }

  // Whether it is the exported network; valid only before the first resize.
  whole() { return this.header[2] === this.crc && this.engine.calls.edgefer_check(this.place, this.count) === 0 }

  // Changes the input size, to at most the exported one.
  resize(height, width) {
    if (height === this.height && width === this.width) return
    this.engine.calls.edgefer_resize_network(this.place, height, width)
    Object.assign(this, { height, width, inputBytes: height * width * this.header[13] })
  }

  // int8 outputs for pixels, by default those already at `input`; a view that the next run overwrites.
  run(pixels) {
    const { calls } = this.engine
    if (pixels) this.engine.bytes(this.input, this.inputBytes).set(pixels)
    calls.edgefer_run(this.place, this.input, this.arena, this.answers)
    return new Int8Array(calls.memory.buffer, this.answers, calls.edgefer_output_bytes(this.place))
  }
}

class Engine {
  // simd: whether to use SIMD128; by default if the browser supports it.
  static async start(bundle, simd = WebAssembly.validate(SIMD)) {
    const engine = new Engine()
    const code = await unpack(simd ? bundle.engine_simd : bundle.engine)
    engine.simd = simd
    engine.spec = bundle.card.input
    engine.calls = (await WebAssembly.instantiate(code, {})).instance.exports
    engine.rooms = {}
    engine.box = engine.room(16)
    engine.networks = {}
    for (const [name, facts] of Object.entries(bundle.networks))
      engine.networks[name] = new Network(engine, await unpack(facts.words), { ...facts, outputs: bundle.outputs[name] })
    engine.reader = engine.networks.reader
    engine.detector = bundle.networks.finder ? new OwnDetector(engine, bundle.detector) : new FrameDetector()
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

  // A named buffer of at least so many bytes, reallocated only to grow.
  reuse(name, bytes) {
    const had = this.rooms[name]
    if (!had || had.bytes < bytes) this.rooms[name] = { place: this.room(bytes), bytes }
    return this.rooms[name].place
  }

  bytes(place, length) { return new Uint8Array(this.calls.memory.buffer, place, length) }

  crc(bytes) {
    const place = this.reuse('crc', bytes.length)
    this.bytes(place, bytes.length).set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length))
    return this.calls.edgefer_crc32(place, bytes.length) >>> 0
  }

  // Copies a frame, { pixels, height, width, format }, into the engine's memory; returns its handle for the calls below.
  take({ pixels, height, width, format }) {
    const place = this.reuse('frame', pixels.length)
    this.bytes(place, pixels.length).set(pixels)
    return { height, width, named: [place, height, width, FORMAT[format]] }
  }

  // One face's input pixels: the card's crop, { scale, dx, dy }, rotated to level the head's roll.
  face(taken, box, crop, rollDeg = 0) {
    const { height, width, color } = this.spec, { input, inputBytes } = this.reader
    new Int32Array(this.calls.memory.buffer, this.box, 4).set(box)
    this.calls.web_face(...taken.named, this.box, crop.scale, crop.dx, crop.dy, Math.cos(radians(rollDeg)),
      Math.sin(radians(rollDeg)), height, width, COLOR[color], input)
    return this.bytes(input, inputBytes).slice()
  }
}
