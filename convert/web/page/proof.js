// Is this the network that was exported, and does it answer here as it did there? Asked before any camera is opened.
'use strict'

// [{ name, wrong, of }]: how many differ, of how many; nothing may.
async function prove(engine, bundle) {
  const stored = bundle.vectors, { crops, labels } = { crops: await unpack(stored.crops), labels: bundle.card.labels.length }
  const frames = await unpack(stored.frames), pixels = await unpack(stored.pixels)
  const answers = new Int8Array((await unpack(stored.answers)).buffer)
  const rows = [{ name: 'Network', wrong: engine.whole() ? 0 : 1, of: 1 }]
  const size = frames.length / stored.boxes.length
  let wrong = 0
  stored.boxes.forEach((box, number) => {
    const frame = { pixels: frames.subarray(number * size, (number + 1) * size), height: stored.height, width: stored.width, format: 'bgr' }
    const seen = engine.face(engine.take(frame), box, stored.crop)
    wrong += seen.filter((value, at) => value !== crops[number * engine.inputBytes + at]).length
  })
  rows.push({ name: 'Pixels', wrong, of: crops.length })
  wrong = 0
  for (let number = 0; number * labels < answers.length; number++) {
    const given = engine.run(pixels.subarray(number * engine.inputBytes, (number + 1) * engine.inputBytes))
    wrong += given.filter((value, at) => value !== answers[number * labels + at]).length
  }
  rows.push({ name: 'Answers', wrong, of: answers.length })
  return rows
}
