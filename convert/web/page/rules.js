// Postprocessing of outputs: probabilities, face tracking, label smoothing, and quality checks. The same rules as
// `edgefer run`, with the same parameters, which the export provides.
'use strict'

const UNSURE = 'unsure'

// int8 outputs -> probabilities.
function softmax(answers, card) {
  const values = Array.from(answers, answer => (answer - card.output_zero) * card.output_scale / card.temperature)
  const top = Math.max(...values), powers = values.map(value => Math.exp(value - top))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map(power => power / sum)
}

// The label of a face that cannot be read, in brackets where the network has one of that name, as in `edgefer run`.
function unsureLabel(labels) {
  let word = UNSURE
  while (labels.includes(word)) word = `(${word})`
  return word
}

const largest = scores => scores.indexOf(Math.max(...scores))

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1])
  if (width <= 0 || height <= 0) return 0
  const both = width * height, area = box => (box[2] - box[0]) * (box[3] - box[1])
  return both / (area(a) + area(b) - both)
}

const middle = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2]

// Whether a box may be the same face as a lost track.
function near(one, other, rules) {
  const [ax, ay] = middle(one), [bx, by] = middle(other), ratio = side(one) / Math.max(side(other), 1e-9)
  return ratio > 0.5 && ratio < 2 && Math.hypot(ax - bx, ay - by) < rules.max_shift * Math.max(side(one), side(other))
}

// Exponential moving average of a head's roll, in degrees, along the shorter arc.
function smoothedRoll(roll, before, apart_s, rules) {
  const step = ((roll - before + 180) % 360 + 360) % 360 - 180
  return before + (1 - Math.exp(-apart_s / rules.level_s)) * step
}

class Tracker {
  constructor(rules, count = 0) { Object.assign(this, { rules, count, tracks: [], gaps: [], last_s: null }) }

  // The faces of one frame, { box, score, rollDeg, turn } -> those to show, the largest first, each with its number in `id`.
  follow(faces, time_s, frame) {
    const { min_hits, max_misses, forget_s, min_new_score } = this.rules
    const gap = this.last_s === null ? Infinity : time_s - this.last_s, fresh = !(gap >= 0 && gap < forget_s)
    const forgotten_s = this.forgottenAfter(gap)
    if (!(gap >= 0 && gap < forgotten_s)) this.tracks = []
    this.last_s = time_s
    const pairs = this.pairs(this.tracks.filter(track => !track.lost), faces), taken = new Set(pairs.values())
    const rest = this.tracks.filter(track => !pairs.has(track))
    for (const track of rest) if (!track.lost) this.move(track, time_s, frame)
    for (const [track, face] of this.pairs(rest, faces.filter(face => !taken.has(face)))) pairs.set(track, face)
    for (const track of this.tracks)
      if (!pairs.has(track)) track.lost = ++track.misses >= max_misses || track.hits < min_hits || track.lost
    for (const [track, face] of pairs) {
      const rollDeg = track.lost ? face.rollDeg : smoothedRoll(face.rollDeg, track.face.rollDeg, time_s - track.seen_s, this.rules)
      const best = Math.max(track.best, face.score), seen = { frame, box: face.box }
      Object.assign(track, { face: { ...face, rollDeg }, best, hits: track.hits + 1, misses: 0, lost: false, seen_s: time_s, seen })
    }
    const known = new Set(pairs.values())
    for (const face of faces)
      if (!known.has(face)) {
        const hits = fresh ? min_hits : 1, seen = { frame, box: face.box }
        this.tracks.push({ id: ++this.count, face, best: face.score, hits, misses: 0, lost: false, seen_s: time_s, seen })
      }
    this.tracks = this.tracks.filter(t => time_s - t.seen_s < forgotten_s && !(t.lost && t.hits < min_hits))
    const shown = this.tracks.filter(t => t.hits >= min_hits && !t.lost && t.best >= (fresh ? 0 : min_new_score))
    return shown.map(({ id, face }) => ({ ...face, id })).sort((a, b) => side(b.box) - side(a.box))
  }

  // When a face is forgotten, in seconds: later where frames are far apart, by the median of the latest gaps.
  forgottenAfter(gap) {
    const { forget_s, forget_frames, gaps } = this.rules, sorted = [...this.gaps].sort((a, b) => a - b)
    const usual_s = sorted.length ? sorted[(sorted.length - 1) >> 1] : 0
    if (gap > 0 && gap < Infinity) this.gaps = [...this.gaps, gap].slice(-gaps)
    return Math.max(forget_s, forget_frames * usual_s)
  }

  // Moves an undetected face to the best match of the patch from its last detection, or drops it.
  move(track, time_s, frame) {
    const { seen, face } = track
    if (seen.patch === undefined) track.seen = { patch: patchOf(seen.frame, seen.box, 0, this.rules) }
    const moved = moveOf(frame, face.box, track.seen.patch, this.rules), [x0, y0, x1, y1] = face.box
    track.lost = moved === null || time_s - track.seen_s > this.rules.follow_s
    if (track.lost) return
    const left = even(x0 + moved[0]), top = even(y0 + moved[1])
    track.face = { ...face, box: [left, top, left + x1 - x0, top + y1 - y0] }
  }

  // Assigns faces to tracks: greatest overlap first, then lost tracks nearby.
  pairs(tracks, faces) {
    const likely = [], pairs = new Map(), taken = new Set()
    for (const track of tracks)
      for (const face of faces) {
        const iou = overlap(track.face.box, face.box)
        if (iou >= this.rules.min_iou || (track.lost && near(track.face.box, face.box, this.rules))) likely.push({ iou, track, face })
      }
    for (const { track, face } of likely.sort((a, b) => a.track.lost - b.track.lost || b.iou - a.iou))
      if (!pairs.has(track) && !taken.has(face)) {
        pairs.set(track, face)
        taken.add(face)
      }
    return pairs
  }
}

class LabelSmoother {
  constructor(preset, reject, rules) { Object.assign(this, { preset, reject, rules, states: new Map() }) }

  // Changes the rules from the next frame on, and resets the displayed labels, which followed the old rules.
  change(preset, reject) {
    if (preset === this.preset && reject === this.reject) return
    Object.assign(this, { preset, reject })
    for (const state of this.states.values()) state.label = null
  }

  // { scores, unsure } to show of a face, given the scores of this frame; fault: why it cannot be read, or ''.
  settle(id, time_s, scores, fault = '') {
    for (const [key, one] of this.states)
      if (!(time_s - one.seen_s >= 0 && time_s - one.seen_s < this.rules.forget_s)) this.states.delete(key)
    if (!this.states.has(id))
      this.states.set(id, { seen_s: time_s, mean: scores, mean_s: null, label: null, unsure: '', decided: scores, rival: null, against_s: 0, lead_s: 0 })
    const state = this.states.get(id), passed_s = time_s - state.seen_s
    state.seen_s = time_s
    if (!this.reject) fault = ''
    if (!fault) {
      if (state.mean_s !== null && this.preset.mean_s) {
        const share = 1 - Math.exp(-(time_s - state.mean_s) / this.preset.mean_s)
        state.mean = state.mean.map((old, at) => old + share * (scores[at] - old))
      } else state.mean = scores
      state.mean_s = time_s
    }
    const top = largest(state.mean), eased = state.label === UNSURE && this.preset.lead_s
    const ease = eased ? Math.min(this.rules.ease, (1 - this.reject) / 2) : 0
    const low = state.mean[top] < this.reject + ease
    const wanted = fault || low ? UNSURE : top, unsure = fault || (low ? 'low score' : '')
    if (this.agreed(state, wanted, passed_s)) Object.assign(state, { label: wanted, unsure, decided: state.mean })
    return { scores: state.decided, unsure: state.unsure }
  }

  agreed(state, wanted, passed_s) {
    const settle = () => Object.assign(state, { rival: null, against_s: 0, lead_s: 0 })
    if (wanted === state.label || state.label === null) return settle()
    const scored = wanted !== UNSURE && state.label !== UNSURE
    const lead = scored ? state.mean[wanted] - state.mean[state.label] : this.rules.unsure_lead
    state.against_s += passed_s
    state.lead_s = (wanted === state.rival ? state.lead_s : 0) + lead * passed_s
    state.rival = wanted
    return state.lead_s >= this.preset.lead_s || state.against_s >= this.preset.patience_s ? settle() : false
  }
}

// Why a face, { box, turn }, cannot be read, '' if it can. pixels: as the network takes them.
function qualityFault(face, pixels, input, rules) {
  const { height, width } = input
  const gray = input.channels === 1 ? pixels : toGray(pixels, input.color)
  if (side(face.box) < rules.min_side * height) return 'small'
  const mean = gray.reduce((a, b) => a + b, 0) / gray.length
  if (mean < rules.min_light) return 'dark'
  if (mean > rules.max_light) return 'overexposed'
  const small = height > rules.side && { gray: resized(gray, height, width, rules.side, rules.side), height: rules.side, width: rules.side }
  if (sharpness(small || { gray, height, width }) < rules.min_sharpness) return 'blurred'
  return face.turn > rules.max_turn ? 'turned away' : ''
}

function toGray(pixels, color) {
  const red = color === 'rgb' ? 0 : 2
  return Uint8Array.from({ length: pixels.length / 3 }, (_, at) =>
    (pixels[3 * at + red] * 9798 + pixels[3 * at + 1] * 19235 + pixels[3 * at + 2 - red] * 3735 + 16384) >> 15)
}

// The variance of the Laplacian, the border mirrored.
function sharpness({ gray, height, width }) {
  let sum = 0, squares = 0
  const mirror = (at, size) => at < 0 ? 1 : at >= size ? size - 2 : at
  const pixel = (y, x) => gray[mirror(y, height) * width + mirror(x, width)]
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const value = pixel(y - 1, x) + pixel(y + 1, x) + pixel(y, x - 1) + pixel(y, x + 1) - 4 * pixel(y, x)
      sum += value
      squares += value * value
    }
  const mean = sum / (height * width)
  return squares / (height * width) - mean * mean
}
