// Asks for one picture after the other, each with its faces, and for the health of the run every two seconds. The first
// health answer comes first: it has the labels' colours.

const HEALTH_MS = 2000, RETRY_MS = 1000, SPEAK_MS = 5000, FINE_MINUTES = 5, FINE_S = 2, COARSE_S = 60
const WHY = {
  dark: 'too dark to read', overexposed: 'too bright to read', small: 'too small: come closer', blurred: 'blurred',
  'turned away': 'turned away', 'low score': 'no label is likely enough',
}
const $ = id => document.getElementById(id)
const percent = share => `${Math.round(100 * share)}%`
const sleep = ms => new Promise(done => setTimeout(done, ms))
let colors = {}, spoken = '', spokenAt = 0, minutes = 5

function element(tag, className = '', text = '') {
  const made = document.createElement(tag)
  made.className = className
  made.textContent = text
  return made
}

function color(label) {
  return colors[label] ?? getComputedStyle(document.body).getPropertyValue('--unsure')
}

function paint(node, label) {
  const hex = colors[label] ?? '#8d979f'
  const [r, g, b] = [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16))
  node.style.setProperty('--color', color(label))
  node.style.setProperty('--on-color', 0.299 * r + 0.587 * g + 0.114 * b > 110 ? '#000' : '#fff')
  return node
}

// Keeps as many children as there are items, made once and then updated, so that nothing flickers or loses its place.
function keep(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove()
  items.forEach((item, at) => update(parent.children[at] ?? parent.appendChild(make(item)), item))
}

function setState(state, text, message) {
  document.body.dataset.state = state
  setText($('status').lastElementChild, text)
  setText($('message'), message)
  if (state !== 'running') showFaces([], 1, 1)
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text
}

function showFaces(faces, width, height) {
  faces.sort((a, b) => a.id - b.id)
  keep($('boxes'), faces, () => element('div', 'box').appendChild(element('span')).parentNode, (box, face) => {
    const [left, top, right, bottom] = face.box_xyxy
    Object.assign(box.style, {
      left: percent2(left / width), top: percent2(top / height),
      width: percent2((right - left) / width), height: percent2((bottom - top) / height),
    })
    box.classList.toggle('low', top < 0.08 * height)
    box.classList.toggle('right', left > 0.6 * width)
    setText(box.firstChild, face.unsure ? `unsure: ${face.unsure}` : `${face.label} ${percent(face.score)}`)
    paint(box, face.label)
  })
  keep($('faces'), faces, makeCard, updateCard)
  const running = document.body.dataset.state === 'running'
  $('nobody').hidden = faces.length > 0
  setText($('nobody'), running ? 'No face in view.' : 'Nothing to see now.')
  setText($('count'), faces.length ? String(faces.length) : '')
  const words = faces.map(face => face.unsure ? `unsure, ${WHY[face.unsure] ?? face.unsure}` : face.label).join('; ')
  $('picture').setAttribute('aria-label', `Live picture, ${faces.length || 'no'} face${faces.length === 1 ? '' : 's'}`)
  if (running && words !== spoken && Date.now() - spokenAt > SPEAK_MS) {
    spoken = words
    spokenAt = Date.now()
    $('spoken').textContent = words || 'no face'
  }
}

const percent2 = share => `${(100 * share).toFixed(2)}%`

function makeCard(face) {
  const card = element('article', 'face')
  const title = card.appendChild(element('h3'))
  title.append(element('i', 'swatch'), element('span'), element('span', 'score'))
  card.append(element('p', 'why quiet'), element('div', 'rows'))
  return card
}

function updateCard(card, face) {
  const [title, why, rows] = card.children
  const scores = Object.entries(face.scores)
  paint(card, face.label)
  card.classList.toggle('unsure', Boolean(face.unsure))
  setText(title.children[1], face.id ? `${face.label} · face ${face.id}` : face.label)
  setText(title.children[2], percent(face.score))
  setText(why, face.unsure ? WHY[face.unsure] ?? face.unsure : '')
  const most = Math.max(...scores.map(([, score]) => score))
  if (rows.children.length !== 3 * scores.length) {
    rows.replaceChildren(...scores.flatMap(() => {
      const bar = element('span', 'bar')
      bar.setAttribute('aria-hidden', 'true')
      bar.append(element('i'))
      return [element('span'), bar, element('span')]
    }))
  }
  scores.forEach(([label, score], row) => {
    const [name, bar, value] = [0, 1, 2].map(column => rows.children[3 * row + column])
    setText(name, label)
    paint(bar.firstChild, label) // each time: the colours may come later, or be those of another network
    for (const cell of [name, value]) cell.classList.toggle('top', score === most)
    bar.firstChild.style.transform = `scaleX(${score.toFixed(3)})`
    setText(value, percent(score))
  })
}

async function draw(blob, width, height) {
  const image = await createImageBitmap(blob)
  const canvas = $('picture')
  if (canvas.width !== image.width || canvas.height !== image.height) {
    Object.assign(canvas, { width: image.width, height: image.height })
    $('view').style.aspectRatio = `${width} / ${height}`
    $('view').style.maxWidth = `calc(70vh * ${width / height})`
  }
  canvas.getContext('2d').drawImage(image, 0, 0)
  image.close()
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(8000) })
  if (answer.status === 401) location.reload() // the token has changed
  if (!answer.ok) throw new Error(answer.statusText)
  return answer
}

function gone() {
  setState('gone', 'No answer', 'edgefer does not answer: it has stopped, or cannot be reached. Trying again…')
}

async function pictures() {
  let number = 0
  for (;;) {
    if (document.hidden) { await sleep(200); continue } // nobody looks: nothing is asked for, so nothing is encoded
    try {
      const answer = await ask(`live?after=${number}`)
      if (answer.status === 204) continue
      const seen = JSON.parse(answer.headers.get('X-Edgefer'))
      await draw(await answer.blob(), seen.width, seen.height)
      number = seen.number
      if (document.body.dataset.state !== 'running') setState('running', 'Running', '')
      showFaces(seen.faces, seen.width, seen.height)
    } catch {
      number = 0 // a program that was started again counts from the start
      gone()
      await sleep(RETRY_MS)
    }
  }
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`

function duration(seconds) {
  const s = Math.round(seconds), parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']]
  const at = parts.findIndex(([size]) => s >= size)
  if (at < 0) return '0 s'
  const [size, unit] = parts[at], next = parts[at + 1]
  const rest = next && Math.floor(s % size / next[0])
  return `${Math.floor(s / size)} ${unit}` + (rest ? ` ${rest} ${next[1]}` : '')
}

function define(list, facts) {
  const cells = facts.flatMap(([name, value]) => [['dt', name, ''], ['dd', value, '']])
  keep(list, cells, ([tag]) => element(tag), (cell, [, text]) => setText(cell, text))
}

function showHealth(now) {
  colors = now.about.colors
  const { network, runtime, version } = now.about
  setText($('about'), `${network} on ${runtime} · edgefer ${version}`)
  const bad = now.sources.filter(source => source.trouble)
  const reason = now.sources.length === 1 ? now.sources[0].trouble : bad.length ? `${bad.length} of ${now.sources.length} sources have a problem: see Sources.` : ''
  document.body.dataset.sources = bad.length ? 'bad' : 'good'
  if (now.state === 'lost') {
    setState('lost', 'No picture', `No picture for ${duration(now.age_s)}. ${reason}`.trim())
  } else if (now.state === 'paused') {
    setState('paused', 'Paused', 'Paused: nothing is read, shown or written.')
  } else if (now.state === 'starting') {
    setState('starting', 'Starting', reason || 'Waiting for the first picture…')
  } else if (!document.hidden && document.body.dataset.state === 'running') {
    const broken = bad.length ? ` · problem with ${bad.length} of ${counted(now.sources.length, 'source')}` : ''
    setText($('status').lastElementChild, `Running · ${now.fps.toFixed(now.fps < 10 ? 1 : 0)} frames/s${broken}`)
  }
  const facts = [
    ['Frames a second', now.fps.toFixed(1)],
    ['Frames read', now.frames.toLocaleString('en')],
    ['Running for', duration(now.uptime_s)],
  ]
  if (now.skipped) facts.push(['Skipped by the camera', now.skipped.toLocaleString('en')])
  if (now.temperature_c !== null) facts.push(['CPU temperature', `${now.temperature_c.toFixed(0)} °C`])
  if (now.memory_mb !== null) facts.push(['Memory', `${now.memory_mb.toFixed(0)} MB`])
  define($('health'), facts)
  define($('stages'), Object.entries(now.stages_ms).map(([stage, ms]) => [stage, ms.toFixed(1)]))
  const sinks = now.sinks.length ? now.sinks : [{ name: 'this page', trouble: '', dropped: 0 }]
  $('sources-title').hidden = !now.sources.length
  showStates($('sources'), now.sources.map(source => ({
    name: source.name, text: source.trouble || (source.state === 'ended' ? 'read to its end' : 'ok'),
    kind: source.state === 'failed' ? 'bad' : source.trouble ? 'warn' : 'good',
  })))
  showStates($('sinks'), sinks.map(sink => ({
    name: sink.name, text: sink.trouble || (sink.dropped ? `${sink.dropped} frames left out` : 'ok'),
    kind: sink.trouble ? 'bad' : sink.dropped ? 'warn' : 'good',
  })))
  showHistory(now.history, now.minutes)
  showSettings(now.settings)
}

function showStates(list, states) {
  keep(list, states, () => {
    const line = element('li')
    line.append(element('span'), element('span'))
    return line
  }, (line, { name, text, kind }) => {
    setText(line.children[0], name)
    setText(line.children[1], text)
    line.children[1].className = kind
  })
}

function showHistory(bins, range) {
  const canvas = $('chart'), scale = devicePixelRatio
  const width = canvas.clientWidth, height = canvas.clientHeight, edge = 18
  Object.assign(canvas, { width: width * scale, height: height * scale })
  const pen = canvas.getContext('2d'), style = getComputedStyle(document.body)
  pen.scale(scale, scale)
  const heights = bins.map(bin => Object.values(bin.faces).reduce((sum, n) => sum + n, 0))
  const most = Math.max(1, Math.ceil(Math.max(0, ...heights) - 0.01))
  const y = faces => height - 1 - faces / most * (height - 12)
  pen.font = `12px ${style.fontFamily}`
  pen.textBaseline = 'middle'
  for (let faces = 0; faces <= most; faces += Math.ceil(most / 4)) {
    pen.fillStyle = style.getPropertyValue('--line')
    pen.fillRect(edge, Math.round(y(faces)), width, 1)
    pen.fillStyle = style.getPropertyValue('--quiet')
    if (faces) pen.fillText(faces, 2, y(faces))
  }
  const stepS = range <= FINE_MINUTES ? FINE_S : COARSE_S, step = (width - edge) / (range * 60 / stepS)
  const order = [...new Set([...Object.keys(colors), ...bins.flatMap(bin => Object.keys(bin.faces))])], totals = {}
  for (const bin of bins) {
    // Whole pixels: a seam between thin columns would look like a pattern.
    const right = Math.round(width - bin.ago_s / stepS * step)
    const left = Math.round(width - (bin.ago_s / stepS + 1) * step)
    let floor = 0
    for (const label of order) {
      const faces = bin.faces[label] ?? 0
      if (!faces) continue
      pen.fillStyle = color(label)
      pen.fillRect(left, y(floor + faces), right - left, y(floor) - y(floor + faces))
      floor += faces
      totals[label] = (totals[label] ?? 0) + faces
    }
  }
  const all = Object.values(totals).reduce((sum, n) => sum + n, 0)
  const shares = order.filter(label => totals[label]).sort((a, b) => totals[b] - totals[a])
  keep($('legend'), shares.length ? shares : [''], () => {
    const line = element('li')
    line.append(element('i', 'swatch'), element('span'))
    return line
  }, (line, label) => {
    paint(line, label).firstChild.hidden = !label
    setText(line.lastChild, label ? `${label} ${percent(totals[label] / all)}` : 'No face so far.')
  })
}

// ---- settings ----

function choose(select, values, value) {
  if (select.children.length !== values.length) {
    select.replaceChildren(...values.map(name => {
      const option = element('option', '', name)
      option.value = name
      return option
    }))
  }
  select.disabled = values.length < 2
  if (document.activeElement !== select) select.value = value
}

function showSettings(settings) {
  $('settings').hidden = !settings
  if (!settings) return
  choose($('smooth'), settings.choices.smooth, settings.smooth)
  choose($('detector'), settings.choices.detector, settings.detector)
  setText($('detector-reason'), settings.detector_reason ?? '')
  if (document.activeElement !== $('reject')) $('reject').value = settings.reject
  setText($('reject-value'), percent($('reject').value))
  $('pause').setAttribute('aria-pressed', settings.paused)
  setText($('pause'), settings.paused ? 'Go on' : 'Pause')
}

async function change(values) {
  try {
    const answer = await fetch('settings', {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(values),
      signal: AbortSignal.timeout(8000),
    })
    const settings = await answer.json()
    setText($('settings-message'), settings.error ?? '')
    if (answer.ok) showSettings(settings)
  } catch {
    setText($('settings-message'), 'The change did not arrive.')
  }
}

for (const name of ['smooth', 'detector']) $(name).addEventListener('change', () => change({ [name]: $(name).value }))
$('reject').addEventListener('input', () => setText($('reject-value'), percent($('reject').value)))
$('reject').addEventListener('change', () => change({ reject: Number($('reject').value) }))
$('pause').addEventListener('click', () => change({ paused: $('pause').getAttribute('aria-pressed') !== 'true' }))
$('settings').addEventListener('submit', event => event.preventDefault())
$('minutes').addEventListener('change', () => {
  minutes = Number($('minutes').value)
  $('csv').href = `history.csv?minutes=${minutes}`
  setText($('from'), minutes < 60 ? `${minutes} min ago` : `${minutes / 60} h ago`)
  health()
})

async function health() {
  try {
    showHealth(await (await ask(`health?minutes=${minutes}`)).json())
  } catch {
    gone()
  }
}

async function healths() {
  for (;;) {
    await sleep(HEALTH_MS)
    if (!document.hidden) await health()
  }
}

await health()
healths()
pictures()
