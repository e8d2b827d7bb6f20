// edgefer's own detector, the same as in `edgefer run` (edgefer/devices/faces/own.py): a finder on the whole frame, and a
// refiner on a crop of each candidate, which rejects false detections.
'use strict'

// Rounds to the nearest integer, ties to even, like Python.
function even(value) {
  const below = Math.floor(value), rest = value - below
  return below + (rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? 1 : 0)
}

const clamp = (value, most) => Math.max(-most, Math.min(most, value))

// Non-maximum suppression: indices of the boxes to keep, by descending score; none overlaps a box of higher score by an
// IoU above `most`, nor lies inside one.
function distinct(boxes, scores, most, nested, limit) {
  const area = ([x0, y0, x1, y1]) => Math.max((x1 - x0) * (y1 - y0), 1e-9), kept = []
  const order = boxes.map((_, at) => at).sort((a, b) => scores[b] - scores[a]).slice(0, limit)
  for (const at of order) {
    const alike = kept.some(other => {
      const a = boxes[at], b = boxes[other]
      const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1])
      const both = width > 0 && height > 0 ? width * height : 0
      return both > most * (area(a) + area(b) - both) || both > nested * Math.min(area(a), area(b))
    })
    if (!alike) kept.push(at)
  }
  return kept
}

class OwnDetector {
  constructor(engine, numbers) {
    Object.assign(this, { engine, numbers, finder: engine.networks.finder, refiner: engine.networks.refiner })
  }

  // Faces of a frame, largest first: [{ box, score, rollDeg, turn }].
  find(taken) {
    const { min_score, max_roll_deg, overlap, nested, max_boxes } = this.numbers
    const once = this.candidates(taken).map(one => this.refine(taken, one)).filter(face => face.score >= min_score)
    const tilted = face => Math.abs(face.rollDeg) > max_roll_deg
    const seen = once.map(face => tilted(face) ? { ...this.refine(taken, { ...face, logit: 0 }), score: face.score } : face)
    const kept = distinct(seen.map(face => face.edges), seen.map(face => face.score), overlap, nested, max_boxes)
    const faces = kept.map(at => ({ ...seen[at], box: seen[at].edges.map(even) }))
    return faces.sort((a, b) => side(b.box) - side(a.box))
  }

  candidates(taken) {
    const { side, multiple, alike, candidates, max_boxes } = this.numbers, { finder } = this
    const scale = Math.min(1, side / Math.max(taken.height, taken.width))
    const [height, width] = [taken.height, taken.width].map(edge => Math.max(1, even(edge * scale)))
    finder.resize(...[height, width].map(edge => multiple * Math.ceil(edge / multiple)))
    this.engine.bytes(finder.input, finder.inputBytes).fill(0)
    this.engine.calls.web_shrunk(...taken.named, height, width, finder.width, finder.input)
    const found = this.decode(finder.run())
    const kept = distinct(found.map(one => one.edges), found.map(one => one.logit), alike, 2, max_boxes).slice(0, candidates)
    const shrink = [width / taken.width, height / taken.height]
    return kept.map(at => ({ logit: found[at].logit, edges: found[at].edges.map((edge, axis) => edge / shrink[axis % 2]) }))
  }

  // Decodes the finder's output maps to boxes on its canvas, { edges, logit }.
  decode(answers) {
    const { strides, anchors, box_gain, min_logit } = this.numbers, { finder } = this, found = []
    let cell = 0
    strides.forEach((stride, map) => {
      const { scale, zero } = finder.outputs[map], columns = finder.width / stride, count = columns * finder.height / stride
      const least = min_logit / scale + zero
      for (let at = 0; at < count; at++, cell += 5) {
        if (!(answers[cell] > least)) continue
        const [logit, dx, dy, wide, high] = Array.from(answers.subarray(cell, cell + 5), answer => (answer - zero) * scale)
        const x = (at % columns + 0.5 + dx / box_gain) * stride, y = (Math.floor(at / columns) + 0.5 + dy / box_gain) * stride
        const [halfX, halfY] = [wide, high].map(size => 0.5 * anchors[map] * Math.exp(clamp(size / box_gain, 4)))
        found.push({ logit, edges: [x - halfX, y - halfY, x + halfX, y + halfY] })
      }
    })
    return found
  }

  refine(taken, { edges: [x0, y0, x1, y1], logit }) {
    const { margin, refiner_side, point_gain, size_gain } = this.numbers, { refiner } = this
    const wanted = Math.max(((x1 - x0) + (y1 - y0)) / 2, 2) * margin, step = Math.max(1, Math.floor(wanted / (2 * refiner_side)))
    const side = step * even(wanted / step), left = even((x0 + x1 - side) / 2), top = even((y0 + y1 - side) / 2)
    this.engine.calls.web_close_up(...taken.named, left, top, side, step, refiner_side, refiner.input)
    const { scale, zero } = refiner.outputs[0], half = side / 2, start = [left + half, top + half]
    const answers = Array.from(refiner.run(), answer => (answer - zero) * scale)
    const place = at => start.map((centre, axis) => centre + answers[at + axis] / point_gain * half)
    const [x, y] = place(1), size = at => side / margin * Math.exp(clamp(answers[at] / size_gain, 3))
    const sure = 1 / (1 + Math.exp(-clamp(answers[0], 30)))
    return {
      score: Math.sqrt(sure * (1 / (1 + Math.exp(-logit)))),
      edges: [x - size(3) / 2, y - size(4) / 2, x + size(3) / 2, y + size(4) / 2],
      rollDeg: Math.atan2(answers[15], answers[16]) * (180 / Math.PI),
      turn: turn(place(5), place(7), place(9)),
    }
  }
}

// Yaw of a head, in units of the distance between the eyes.
function turn(left, right, nose) {
  const across = [right[0] - left[0], right[1] - left[1]], gap = across[0] ** 2 + across[1] ** 2
  const off = [0, 1].map(axis => nose[axis] - (left[axis] + right[axis]) / 2)
  return gap ? Math.abs(off[0] * across[0] + off[1] * across[1]) / gap : 0
}

const side = ([x0, y0, x1, y1]) => ((x1 - x0) + (y1 - y0)) / 2

// No detector: the square in the middle of the frame.
class FrameDetector {
  find({ height, width }) {
    const side = Math.min(height, width), left = Math.floor((width - side) / 2), top = Math.floor((height - side) / 2)
    return [{ box: [left, top, left + side, top + side], score: 1, rollDeg: 0, turn: 0 }]
  }
}
