// Checks, before any camera is opened, that this is the exported network and that it gives the stored outputs in this browser.
'use strict'

// Number of values in which two lists differ; missing ones count as different.
const differing = (a, b) => Math.abs(a.length - b.length) + Array.from(a).slice(0, b.length).filter((value, at) => value !== b[at]).length

class Tally {
  constructor() { this.rows = new Map() }

  add(name, wrong, of) {
    const row = this.rows.get(name) ?? { name, wrong: 0, of: 0 }
    this.rows.set(name, { name, wrong: row.wrong + wrong, of: row.of + of })
  }

  // Compared by the exported CRC-32 alone: all of them count as different, or none.
  sum(name, engine, values, crc) { this.add(name, engine.crc(values) === crc ? 0 : values.length, values.length) }
}

// [{ name, wrong, of }]: number of differences and of values compared; passes only if all are equal.
async function prove(engine, bundle) {
  const asked = bundle.questions, tally = new Tally()
  for (const network of Object.values(engine.networks)) tally.add('Networks and settings', network.whole() ? 0 : 1, 1)
  tally.add('Networks and settings', engine.crc(new TextEncoder().encode(bundle.settings)) === bundle.settings_crc ? 0 : 1, 1)
  const stored = { pixels: tinted(await unpack(asked.frame)), height: asked.height, width: asked.width }
  const frame = engine.take({ ...stored, format: 'bgr' })
  asked.boxes.forEach((box, row) => asked.rolls_deg.forEach((roll, column) =>
    tally.sum('Pixels', engine, engine.face(frame, box, asked.crop, roll), asked.crops[row][column])))
  asked.views.forEach((view, number) => proveFaces(engine, bundle, viewOf(stored, view), asked.faces[number], tally))
  await proveAnswers(engine, asked, tally)
  if (engine.networks.finder) await proveFinder(engine, asked, tally)
  return [...tally.rows.values()]
}

// The faces of one frame: their boxes, input pixels and network outputs.
function proveFaces(engine, bundle, frame, expected, tally) {
  const taken = engine.take(frame), found = engine.detector.find(taken)
  tally.add('Box edges', differing(found.flatMap(face => face.box), expected.flatMap(face => face.box)), 4 * expected.length)
  found.slice(0, expected.length).forEach((face, number) => {
    const pixels = engine.face(taken, face.box, bundle.detector.crop, face.rollDeg), { answers } = expected[number]
    tally.sum('Pixels', engine, pixels, expected[number].pixels)
    tally.add('Answers', differing(engine.reader.run(pixels), answers), answers.length)
  })
}

async function proveAnswers(engine, asked, tally) {
  const { reader } = engine, { height, width, channels } = engine.spec, pixels = await unpack(asked.pixels)
  const answers = new Int8Array((await unpack(asked.answers)).buffer), images = pixels.length / reader.inputBytes
  const each = answers.length / (images + asked.generated)
  for (let number = 0; number < images + asked.generated; number++) {
    const image = number < images ? pixels.subarray(number * reader.inputBytes, (number + 1) * reader.inputBytes)
      : noise(number - images, height, width, channels)
    tally.add('Answers', differing(reader.run(image), answers.subarray(number * each, (number + 1) * each)), each)
  }
}

async function proveFinder(engine, asked, tally) {
  const { finder, refiner } = engine.networks, answers = new Int8Array((await unpack(asked.refiner)).buffer)
  const each = refiner.header[8]
  for (let number = 0; number * each < answers.length; number++) {
    const given = refiner.run(noise(number, refiner.height, refiner.width, 1))
    tally.add("Detector's answers", differing(given, answers.subarray(number * each, (number + 1) * each)), each)
  }
  asked.finder.sizes.forEach(([height, width], number) => {
    finder.resize(height, width)
    tally.sum("Detector's answers", engine, finder.run(noise(number, height, width, 1)).slice(), asked.finder.crcs[number])
  })
}
