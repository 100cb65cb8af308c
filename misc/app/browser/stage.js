// The photograph with its people: draws what the server sends, and sends back what is done to it. The masks are the
// server's: a stroke goes there as points in pixels of the photograph. gr.HTML gives element, props, trigger, watch.

const HINTS = {
  toggle: "Click a person to leave them out, or to take them back.",
  paint: "Draw over what belongs to the chosen person. It is taken from the others.",
  erase: "Draw over what does not belong to the chosen person.",
  split: "One mask covers two people? Click the one, then the other.",
  merge: "One person has two masks? Click the one, then the other.",
  box: "Draw a box round a person who was not found, or click two opposite corners.",
};
const MOST_POINTS = 4000; // of a stroke; the server takes no more than 4096
const CLICKS = { toggle: 1, split: 2, merge: 2, box: 2 };
const find = (query) => element.querySelector(query);
const state = {
  tool: "toggle", person: null, points: [], cross: null, drag: false, picture: null,
  waiting: [], // what the server is doing, and what it does next
  photograph: null, known: [], // and its people
};

function value() {
  return props.value || {};
}

function radius() { // of the brush, in pixels of the photograph: the slider's end is an eighth of the longer side
  return Math.max(1, (find(".im-radius").value / 100) ** 2 * Math.max(value().width, value().height) / 8);
}

function ink(color) { // black or white, whichever is easier to read on a colour
  const [r, g, b] = [1, 3, 5].map((i) => (parseInt(color.slice(i, i + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
}

function send(action) { // one after the other; the next stroke may be drawn meanwhile
  if (!value().picture) return;
  state.waiting.push({ ...action, photograph: value().current });
  element.classList.add("im-busy");
  if (state.waiting.length === 1) trigger("edit", state.waiting[0]);
}

function answered() {
  state.waiting.shift();
  if (state.photograph !== value().current) [state.waiting, state.points] = [[], []];
  if (state.waiting.length) trigger("edit", state.waiting[0]);
  else element.classList.remove("im-busy");
}

function perform() {
  const { tool, person } = state;
  const thin = Math.ceil(state.points.length / MOST_POINTS); // a fast mouse gives a thousand points a second
  const points = state.points.filter((_, i) => i % thin === 0);
  [state.drag, state.points] = [false, []];
  send({ tool, person, points, radius: radius() });
  draw();
}

// ---------------------------------------------------------------------------------------------------------- drawing

function draw() {
  const canvas = find(".im-canvas");
  const { picture } = state;
  if (!picture) return;
  const context = canvas.getContext("2d");
  const scale = canvas.width / value().width;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  for (const action of [...state.waiting, { ...state, radius: radius() }]) sketch(context, action, scale);
  if (state.cross && document.activeElement === canvas) mark(context, state.cross.map((x) => x * scale), 16);
  for (const person of value().people) number(context, person, canvas);
}

function sketch(context, { tool, person, points = [], cross, radius }, scale) { // a stroke, a box or clicks
  const at = ([x, y]) => [x * scale, y * scale];
  const { color } = value().people.find((p) => p.number === person) || { color: "#ffffff" };
  if (tool === "paint" || tool === "erase") {
    context.strokeStyle = tool === "paint" ? color : "#000000";
    context.globalAlpha = 0.6;
    context.lineWidth = 2 * radius * scale;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    points.forEach((p, i) => (i ? context.lineTo(...at(p)) : context.moveTo(...at(p))));
    if (points.length === 1) context.lineTo(...at(points[0]));
    context.stroke();
    context.globalAlpha = 1;
  } else if (tool === "box" && points.length) {
    const [a, b] = [at(points[0]), at(points[1] || cross || points[0])];
    for (const [line, width] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = line;
      context.lineWidth = width;
      context.strokeRect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
    }
  } else {
    for (const point of points) mark(context, at(point), 9);
  }
}

function mark(context, [x, y], size) {
  for (const [line, width] of [["#000", 5], ["#fff", 2]]) {
    context.strokeStyle = line;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x - size, y);
    context.lineTo(x + size, y);
    context.moveTo(x, y - size);
    context.lineTo(x, y + size);
    context.stroke();
  }
}

function number(context, person, canvas) {
  const size = Math.max(Math.max(canvas.width, canvas.height) / 50, 11 * canvas.width / (canvas.clientWidth || canvas.width));
  const [x, y] = [person.at[0] * canvas.width, person.at[1] * canvas.height];
  context.fillStyle = person.kept ? person.color : "#666666";
  context.strokeStyle = "#ffffff";
  context.lineWidth = size / 6;
  context.beginPath();
  context.arc(x, y, size, 0, 7);
  context.fill();
  context.stroke();
  context.fillStyle = ink(person.kept ? person.color : "#666666");
  context.font = `700 ${size * 1.2}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(person.number, x, y);
}

function show() {
  const sent = value();
  answered();
  if (!sent.picture) state.picture = null;
  const note = find(".im-note");
  note.textContent = sent.note || "";
  note.classList.toggle("im-error", Boolean(sent.error));
  const stale = document.querySelector("#results .im-stale");
  if (stale) stale.hidden = !sent.stale;
  find(".im-undo").disabled = !sent.undo;
  find(".im-strip").replaceChildren(...(sent.photographs || []).map(({ name, picture }) => {
    const button = Object.assign(document.createElement("button"), { type: "button", title: name });
    button.setAttribute("aria-pressed", name === sent.current);
    button.append(Object.assign(new Image(), { src: picture, alt: name }));
    button.onclick = () => trigger("show", { name });
    return button;
  }));
  find(".im-strip").hidden = (sent.photographs || []).length < 2;
  const people = sent.people || [];
  const fresh = state.photograph === sent.current && people.find((p) => !state.known.includes(p.number));
  if (fresh) state.person = fresh.number; // who has just been added is the one whose outline is mended next
  else if (!people.some((p) => p.number === state.person)) state.person = (people.find((p) => p.kept) || { number: null }).number;
  [state.photograph, state.known] = [sent.current, people.map((p) => p.number)];
  if (sent.tool) choose(sent.tool);
  find(".im-people").replaceChildren(...people.map(chip));
  find(".im-stage").hidden = !sent.picture;
  if (!sent.picture) {
    if (sent.serial) element.dataset.serial = sent.serial;
    return;
  }
  const picture = new Image();
  picture.onload = () => {
    const canvas = find(".im-canvas");
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    state.picture = picture;
    draw();
    element.dataset.serial = sent.serial;
  };
  picture.src = sent.picture;
}

function chip(person) {
  const box = Object.assign(document.createElement("div"), { className: "im-person" });
  const pick = Object.assign(document.createElement("button"), { type: "button", textContent: `Person ${person.number}` });
  pick.setAttribute("aria-pressed", person.number === state.person);
  pick.dataset.person = person.number;
  pick.style.setProperty("--color", person.kept ? person.color : "#666666");
  pick.onclick = () => {
    state.person = person.number;
    for (const other of element.querySelectorAll("[data-person]")) other.setAttribute("aria-pressed", other === pick);
    draw();
  };
  const label = document.createElement("label");
  const keep = Object.assign(document.createElement("input"), { type: "checkbox", checked: person.kept });
  keep.onchange = () => send({ tool: "toggle", person: person.number, points: [] });
  label.append(keep, ` matte`);
  label.setAttribute("aria-label", `matte person ${person.number}`);
  box.append(pick, label);
  return box;
}

function choose(tool) {
  state.tool = tool;
  state.points = [];
  for (const button of element.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === tool);
  find(".im-size").hidden = tool !== "paint" && tool !== "erase";
  find(".im-hint").textContent = HINTS[tool];
  find(".im-stage").style.touchAction = drags() ? "none" : "manipulation";
  draw();
}

// ------------------------------------------------------------------------------------------------- pointer and keys

function place(event) {
  const box = find(".im-canvas").getBoundingClientRect();
  const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  return [share[0] * value().width, share[1] * value().height].map((x) => Math.round(x * 10) / 10);
}

function press(point) {
  state.points.push(point);
  if (CLICKS[state.tool] === state.points.length) perform();
  else draw();
}

function drags() { // tools that act while the pointer is down; the others wait for a click, so that a finger can scroll
  return ["paint", "erase", "box"].includes(state.tool);
}

element.addEventListener("pointerdown", (event) => {
  if (!event.target.matches(".im-stage, .im-canvas") || event.button) return;
  state.cross = null;
  if (!drags()) return;
  find(".im-canvas").setPointerCapture(event.pointerId); // from beside the photograph too: people reach its borders
  state.drag = true;
  press(place(event));
});
element.addEventListener("pointermove", (event) => {
  if (!event.target.matches(".im-canvas")) return;
  const brush = state.tool === "paint" || state.tool === "erase";
  if (brush && state.drag) state.points.push(...event.getCoalescedEvents?.().map(place) ?? [place(event)]);
  if (state.tool === "box") state.cross = place(event);
  if (state.points.length) draw();
});
element.addEventListener("pointerup", (event) => {
  if (!event.target.matches(".im-canvas") || !state.drag) return;
  state.drag = false;
  const end = place(event);
  const [start] = state.points;
  if (state.tool !== "box") perform();
  else if (start && Math.hypot(end[0] - start[0], end[1] - start[1]) > value().width / 50) press(end);
});
element.addEventListener("pointercancel", () => { // the browser scrolls or zooms instead
  if (state.drag) [state.drag, state.points] = [false, []];
  draw();
});
element.addEventListener("keydown", (event) => {
  if (!event.target.matches(".im-canvas") || !value().picture) return;
  const { width, height } = value();
  const step = Math.max(width, height) / (event.shiftKey ? 250 : 40);
  const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  state.cross ||= [width / 2, height / 2];
  if (move) state.cross = [0, 1].map((i) => Math.min(Math.max(state.cross[i] + move[i], 0), [width, height][i] - 1));
  else if (event.key === "Escape") state.points = [];
  else if (event.key === "Enter" || event.key === " ") {
    press([...state.cross]);
    if (state.tool === "paint" || state.tool === "erase") perform();
  } else return;
  event.preventDefault();
  draw();
});
element.addEventListener("click", (event) => {
  if (event.target.matches(".im-canvas") && !drags()) press(place(event));
  const tool = event.target.closest("[data-tool]");
  if (tool) choose(tool.dataset.tool);
  if (event.target.matches(".im-undo")) send({ tool: "undo" });
});
element.addEventListener("input", draw);
element.addEventListener("focusin", draw);

window.addEventListener("beforeunload", (event) => { // the browser asks: what was repaired goes with the page
  if (value().edited) event.preventDefault();
});
watch("value", show);
choose("toggle");
show();
