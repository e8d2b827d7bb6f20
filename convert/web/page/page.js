// The page: proves itself, then reads faces from a camera or a photo. Nothing is stored or sent unless a button saves it here.
'use strict'

const $ = id => document.getElementById(id)
const WHY = {
  dark: 'too dark to read', overexposed: 'too bright to read', small: 'too small: come closer', blurred: 'blurred',
  'turned away': 'turned away',
  'low score': 'no label is likely enough',
}
const NO_CAMERA = { NotAllowedError: 'it was not allowed', NotFoundError: 'none was found', NotReadableError: 'something else uses it' }
const TIMED = 20, CAMERA_PX = 640, PHOTO_PX = 1280, SPEAK_MS = 4000, MAX_ROWS = 100000, LATE_MS = 500
const percent = share => `${Math.round(100 * share)}%`
const video = document.createElement('video')
video.playsInline = true
video.muted = true
let engine, tracker, smoother, stream = null, opening = 0, facing = 'user', rows = [], spoken = '', spokenAt = 0
let shown = [], photo = null

function element(tag, className = '', text = '') {
  const made = document.createElement(tag)
  made.className = className
  made.textContent = text
  return made
}

function setState(state, text) {
  document.body.dataset.state = state
  if ($('status').textContent !== text) $('status').textContent = text  // a screen reader reads it out each time it is set
}

const unsureWord = () => unsureLabel(BUNDLE.card.labels)
const colorOf = label => Object.hasOwn(BUNDLE.colors, label) ? BUNDLE.colors[label] : '#8d979f'

function paint(node, label) {
  const hex = colorOf(label)
  const [r, g, b] = [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16))
  node.style.setProperty('--color', hex)
  node.style.setProperty('--on-color', 0.299 * r + 0.587 * g + 0.114 * b > 110 ? '#000' : '#fff')
}

// ---- the proof ----

async function start() {
  try {
    const { card } = BUNDLE
    $('name').textContent = card.name
    document.title = `${card.name} · edgefer`
    for (const name of Object.keys(BUNDLE.rules.presets)) $('smooth').append(new Option(name, name, name === BUNDLE.rules.smooth, name === BUNDLE.rules.smooth))
    $('reject').value = BUNDLE.rules.reject
    tracker = new Tracker(BUNDLE.rules)
    smoother = new LabelSmoother(...settings(), BUNDLE.rules)
    engine = await Engine.start(BUNDLE)
    const rows = await prove(engine, BUNDLE)
    showProof(rows)
    if (rows.some(row => row.wrong)) return setState('failed', 'This is not the network that was proven: the camera stays off.')
    if (canvasIsNoise()) return setState('failed', 'This browser gives noise instead of images, a setting against fingerprinting: allow this page to read canvases, then load it again.')
    fact('Engine', `WebAssembly ${engine.simd ? 'with' : 'without'} SIMD, ${milliseconds().toFixed(2)} ms per face`)
    setState('ready', 'Proven: it answers here as it did when it was exported.')
    for (const id of ['camera', 'photo']) $(id).disabled = false
    $('open').removeAttribute('aria-disabled')
  } catch (error) {
    setState('failed', `It cannot run here: ${error.message}`)
  }
}

// As with Firefox's privacy.resistFingerprinting, which would prevent every detection. Other settings change values by a few
// levels, which is harmless.
function canvasIsNoise() {
  const pen = element('canvas').getContext('2d'), drawn = [200, 100, 50, 255]
  pen.fillStyle = `rgb(${drawn.slice(0, 3)})`
  pen.fillRect(0, 0, 16, 16)
  return pen.getImageData(0, 0, 16, 16).data.some((value, at) => Math.abs(value - drawn[at % 4]) > 16)
}

// Inference time for one face; the proof has warmed the network up.
function milliseconds() {
  const before = performance.now(), blank = new Uint8Array(engine.reader.inputBytes)
  for (let number = 0; number < TIMED; number++) engine.reader.run(blank)
  return (performance.now() - before) / TIMED
}

function showProof(results) {
  $('proof').replaceChildren(...results.map(({ name, wrong, of }) => {
    const line = element('tr'), head = element('th', '', name)
    head.scope = 'row'
    line.append(head, element('td', wrong ? 'bad' : 'good', wrong.toLocaleString('en')), element('td', '', of.toLocaleString('en')))
    return line
  }))
  $('verdict').textContent = results.some(row => row.wrong)
    ? 'No: it does not compute here what it computed on the machine that exported it.'
    : 'Yes: of all this, not one value differs from what the machine that exported it computed.'
  fact('Network', BUNDLE.credit)
  fact('Bundle (sha256 of card.json, as in its certificate)', BUNDLE.bundle_sha256)
  fact('Written by', `edgefer ${BUNDLE.edgefer}`)
}

function fact(name, value) { $('facts').append(element('dt', '', name), element('dd', '', value)) }

function settings() {
  $('reject-value').textContent = percent($('reject').value)
  return [BUNDLE.rules.presets[$('smooth').value], Number($('reject').value)]
}

const seconds = () => performance.now() / 1000  // since the page was opened

// ---- a frame ----

function read(source, sourceWidth, sourceHeight, limit) {
  const shrink = Math.min(1, limit / Math.max(sourceWidth, sourceHeight))
  const canvas = $('canvas')
  const size = { width: Math.max(1, Math.round(sourceWidth * shrink)), height: Math.max(1, Math.round(sourceHeight * shrink)) }
  if (canvas.width !== size.width || canvas.height !== size.height) {
    Object.assign(canvas, size)
    $('frame').style.aspectRatio = `${size.width} / ${size.height}`
    $('frame').style.maxWidth = `calc(70vh * ${size.width / size.height})`
  }
  const pen = canvas.getContext('2d', { willReadFrequently: true })
  pen.clearRect(0, 0, size.width, size.height)  // a transparent photo would show the one before
  pen.drawImage(source, 0, 0, size.width, size.height)
  document.body.dataset.shown = 'yes'
  return { pixels: pen.getImageData(0, 0, size.width, size.height).data, ...size, format: 'rgba' }
}

// [{ id, box, scores, unsure }] of a frame; time_s: null for a photo, of which every face is shown as it is, numbered from its `count` on.
function look(frame, time_s) {
  const taken = engine.take(frame), found = engine.detector.find(taken)
  const faces = time_s === null ? found.map((face, at) => ({ ...face, id: frame.count + at + 1 })) : tracker.follow(found, time_s, frame)
  return faces.map(face => {
    const { id, box } = face, pixels = engine.face(taken, box, BUNDLE.detector.crop, face.rollDeg)
    const fault = qualityFault(face, pixels, BUNDLE.card.input, BUNDLE.rules)
    const scores = softmax(engine.reader.run(pixels), BUNDLE.card)
    const still = time_s === null ? new LabelSmoother(BUNDLE.rules.presets.off, smoother.reject, BUNDLE.rules) : smoother
    return { id, box, ...still.settle(id, time_s ?? 0, scores, fault) }
  })
}

function show(faces, frame) {
  shown = faces
  const { labels } = BUNDLE.card
  const named = faces.map(face => ({ ...face, label: labels[largest(face.scores)], score: Math.max(...face.scores) }))
  $('boxes').replaceChildren(...named.map(face => {
    const box = element('div', 'box'), [left, top, right, bottom] = face.box
    const part = (value, size) => `${(100 * value / size).toFixed(2)}%`
    Object.assign(box.style, { left: part(left, frame.width), top: part(top, frame.height), width: part(right - left, frame.width), height: part(bottom - top, frame.height) })
    box.classList.toggle('low', top < 0.08 * frame.height)
    box.classList.toggle('right', left > 0.6 * frame.width)
    box.append(element('span', '', face.unsure ? `${unsureWord()}: ${face.unsure}` : `${face.label} ${percent(face.score)}`))
    paint(box, face.unsure ? '' : face.label)
    return box
  }))
  $('faces').replaceChildren(...named.map(card))
  $('nobody').hidden = named.length > 0
  $('nobody').textContent = 'No face in view.'
  const words = named.map(face => face.unsure ? `${unsureWord()}, ${WHY[face.unsure] ?? face.unsure}` : face.label).join('; ')
  $('canvas').setAttribute('aria-label', `Image with ${named.length || 'no'} face${named.length === 1 ? '' : 's'}`)
  if (words !== spoken && (!stream || performance.now() - spokenAt > SPEAK_MS)) {
    spoken = words
    spokenAt = performance.now()
    $('spoken').textContent = words || 'no face'
  }
  $('snapshot').disabled = false
}

function showNothing() {
  shown = []
  for (const id of ['boxes', 'faces']) $(id).replaceChildren()
}

function card(face) {
  const made = element('article', face.unsure ? 'face unsure' : 'face'), title = element('h3')
  title.append(element('span', '', `${face.unsure ? unsureWord() : face.label} · face ${face.id}`), element('span', '', face.unsure ? '' : percent(face.score)))
  const bars = element('div', 'rows')
  face.scores.forEach((score, at) => {
    const label = BUNDLE.card.labels[at], bar = element('span', 'bar'), fill = element('i')
    bar.setAttribute('aria-hidden', 'true')
    fill.style.transform = `scaleX(${score.toFixed(3)})`
    paint(fill, label)
    bar.append(fill)
    bars.append(element('span', '', label), bar, element('span', '', percent(score)))
  })
  made.append(title, element('p', 'why quiet', face.unsure ? WHY[face.unsure] ?? face.unsure : ''), bars)
  return made
}

function record(faces, time_s, source) {
  for (const face of faces) {
    if (rows.length >= MAX_ROWS) return setState(document.body.dataset.state, `The CSV is full: it has ${MAX_ROWS.toLocaleString('en')} rows`)
    const label = face.unsure ? unsureWord() : BUNDLE.card.labels[largest(face.scores)]
    rows.push([time_s.toFixed(3), source, face.id, ...face.box, label, Math.max(...face.scores).toFixed(4), face.unsure, ...face.scores.map(score => score.toFixed(4))])
  }
  $('csv').disabled = rows.length === 0
}

// ---- the camera ----

async function openCamera() {
  const mine = ++opening  // closing, a photo or a second press during the permission prompt cancels this one
  let given = null
  if (!navigator.mediaDevices) return setState('ready', 'No camera: a browser opens one only for a page that came over https.')
  try {
    given = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode: facing, width: { ideal: 640 }, height: { ideal: 480 } } })
    if (mine !== opening) return stop(given)
    stream = video.srcObject = given
    given.getVideoTracks()[0].onended = () => given === stream && closeCamera('The camera was taken away')
    await video.play()
  } catch (error) {
    if (mine !== opening) return stop(given)
    closeCamera()
    return setState('ready', `No camera: ${NO_CAMERA[error.name] ?? error.message}.`)
  }
  if (mine !== opening) return
  photo = null
  tracker = new Tracker(BUNDLE.rules, tracker.count)  // no two faces of a CSV have the same number
  smoother = new LabelSmoother(...settings(), BUNDLE.rules)
  $('camera').textContent = 'Stop camera'
  $('turn').disabled = false
  setState('running', 'Reading the camera')
  tick(stream)
}

function stop(given) { given?.getTracks().forEach(track => track.stop()) }

function closeCamera(reason = 'Camera off') {
  opening++
  stop(stream)
  stream = null
  video.srcObject = null
  $('camera').textContent = 'Start camera'
  $('turn').disabled = true
  setState('ready', reason)
}

function tick(mine) {
  if (stream !== mine) return
  try {
    if (!document.hidden && video.readyState >= 2 && video.videoWidth) readCamera()
  } catch (error) {
    showNothing()
    return closeCamera(`The camera was stopped: ${error.message}`)
  }
  setTimeout(() => nextFrame(() => tick(mine)), 0)
}

// Calls `then` at the camera's next frame, where the browser reports it: a display refreshes more often than a camera, and a
// frame that is read twice would count as two detections. LATE_MS: for a browser that reports none.
function nextFrame(then) {
  if (!video.requestVideoFrameCallback) return requestAnimationFrame(then)
  const late = setTimeout(() => {
    video.cancelVideoFrameCallback(asked)
    then()
  }, LATE_MS)
  const asked = video.requestVideoFrameCallback(() => {
    clearTimeout(late)
    then()
  })
}

function readCamera() {
  const frame = read(video, video.videoWidth, video.videoHeight, CAMERA_PX), time_s = seconds(), faces = look(frame, time_s)
  show(faces, frame)
  record(faces, time_s, 'camera')
}

$('camera').onclick = () => stream ? closeCamera() : openCamera()
$('turn').onclick = () => {
  facing = facing === 'user' ? 'environment' : 'user'
  closeCamera()
  return openCamera()
}

// ---- a photo, and what is saved ----

$('photo').onchange = async () => {
  const [file] = $('photo').files
  $('photo').value = ''
  if (!file) return
  closeCamera()
  const mine = opening
  let image
  try {
    if (file.type.startsWith('video/')) throw new TypeError('a video')  // WebKit decodes it to a blank image
    image = await createImageBitmap(file)
  } catch {
    return setState('ready', `${file.name} cannot be read as an image: choose a JPEG or PNG.`)
  }
  if (mine !== opening) return image.close()
  try {
    photo = { ...read(image, image.width, image.height, PHOTO_PX), count: tracker.count }
    image.close()
    const faces = look(photo, null)
    tracker.count += faces.length  // a phone may give every photo the same name
    show(faces, photo)
    record(faces, seconds(), file.name)
    if (rows.length < MAX_ROWS) setState('ready', `${faces.length || 'No'} face${faces.length === 1 ? '' : 's'} in the photo`)
  } catch (error) {
    photo = null
    showNothing()
    setState('ready', `${file.name} could not be read: ${error.message}`)
  }
}

function save(blob, name) {
  const link = element('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10000)
}

$('snapshot').onclick = () => {
  const canvas = document.createElement('canvas'), pen = canvas.getContext('2d'), source = $('canvas')
  Object.assign(canvas, { width: source.width, height: source.height })
  pen.drawImage(source, 0, 0)
  pen.font = `600 ${Math.max(14, Math.round(source.height / 28))}px sans-serif`
  for (const { box, scores, unsure } of shown) {
    const label = BUNDLE.card.labels[largest(scores)]
    pen.strokeStyle = pen.fillStyle = unsure ? '#8d979f' : colorOf(label)
    pen.lineWidth = 3
    pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1])
    pen.fillText(unsure ? unsureWord() : `${label} ${percent(Math.max(...scores))}`, box[0], Math.max(20, box[1] - 6))
  }
  canvas.toBlob(blob => save(blob, 'edgefer.png'), 'image/png')
}

$('csv').onclick = () => {
  const quoted = value => /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value
  // A cell that begins like a formula is text to a spreadsheet only after an apostrophe; labels are untrusted text. Spreadsheets of
  // many countries begin a cell after a semicolon as well, whatever the quotes.
  const guarded = text => text.replace(/([;\t\r\n][\s"]*)(?=[=+\-@])/g, "$1'")
  const safe = value => typeof value !== 'string' ? value : /^\s*[=+\-@\t\r]/.test(value) ? `'${guarded(value)}` : guarded(value)
  const head = ['time_s', 'source', 'face', 'left', 'top', 'right', 'bottom', 'label', 'score', 'unsure', ...BUNDLE.card.labels.map(label => `p_${label}`)]
  save(new Blob([[head, ...rows].map(row => row.map(safe).map(quoted).join(',')).join('\r\n') + '\r\n'], { type: 'text/csv' }), 'edgefer.csv')
}

for (const id of ['smooth', 'reject'])
  $(id).oninput = () => {
    smoother.change(...settings())
    if (photo) show(look(photo, null), photo)
  }
window.addEventListener('pagehide', () => stream && closeCamera())
if ('serviceWorker' in navigator && location.protocol.startsWith('http') && window.isSecureContext)
  navigator.serviceWorker.register('sw.js').catch(() => {})  // fails in private windows: the page works without it
start()
