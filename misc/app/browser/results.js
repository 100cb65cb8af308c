// Cut-outs and mattes to look at: who, on what, before and after, whole or where hair is. All pictures are here already;
// nothing is asked of the server, and a background of one's own does not leave the browser.

const find = (query) => element.querySelector(query);
const state = { who: 0, look: "cutout", behind: "checks", zoom: false, own: null, pictures: {} };

function value() {
  return props.value || { people: [] };
}

async function load(source) { // a picture is decoded once
  if (!state.pictures[source]) {
    const picture = new Image();
    picture.src = source;
    await picture.decode();
    state.pictures[source] = picture;
  }
  return state.pictures[source];
}

function chosen() { // people whose cut-outs are shown; hair is that of one
  const people = value().people.filter((p) => !state.who || p.number === state.who);
  return state.zoom ? people.filter((p) => p.hair).slice(0, 1) : people;
}

function layer(canvas, paint) {
  const other = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  paint(other.getContext("2d"), other);
  return other;
}

function background(context, canvas) {
  if (state.look === "matte") context.fillStyle = "#000000";
  else if (state.behind !== "checks" && state.behind !== "own") context.fillStyle = state.behind;
  else context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (state.look === "matte") return;
  if (state.behind === "own" && state.own) { // fills the picture, as CSS has "cover"
    const scale = Math.max(canvas.width / state.own.width, canvas.height / state.own.height);
    const [w, h] = [state.own.width * scale, state.own.height * scale];
    context.drawImage(state.own, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  } else if (state.behind === "checks") {
    const cell = Math.max(8, Math.round(canvas.width / 64));
    context.fillStyle = "#cccccc";
    for (let y = 0; y * cell < canvas.height; y++)
      for (let x = y % 2; x * cell < canvas.width; x += 2) context.fillRect(x * cell, y * cell, cell, cell);
  }
}

async function draw() {
  const people = chosen();
  if (!people.length) return;
  const sent = value();
  const before = await load(state.zoom ? people[0].hair.photo : sent.photo);
  const cutouts = await Promise.all(people.map((p) => load(state.zoom ? p.hair.picture : p.picture)));
  if (sent !== value()) return;
  const canvas = find(".im-after");
  [canvas.width, canvas.height] = [before.naturalWidth, before.naturalHeight];
  canvas.classList.toggle("im-zoomed", state.zoom);
  const context = canvas.getContext("2d");
  background(context, canvas);
  context.drawImage(layer(canvas, (sum) => {
    sum.globalCompositeOperation = "lighter"; // alphas of a pixel add up, also where two people touch
    for (const picture of cutouts) {
      sum.drawImage(layer(canvas, (one) => {
        one.drawImage(picture, 0, 0, canvas.width, canvas.height);
        if (state.look !== "matte") return;
        one.globalCompositeOperation = "source-in";
        one.fillStyle = "#ffffff";
        one.fillRect(0, 0, canvas.width, canvas.height);
      }), 0, 0);
    }
  }), 0, 0);
  const edge = Math.round(canvas.width * find(".im-slider").value / 100);
  if (edge > 0) {
    context.drawImage(before, 0, 0, edge, canvas.height, 0, 0, edge, canvas.height);
    context.fillStyle = "#ffffff";
    context.fillRect(edge - 1, 0, 3, canvas.height);
  }
  element.dataset.drawn = `${sent.serial} ${state.who} ${state.look} ${state.behind} ${state.zoom}`;
}

function press(query, pressed) {
  for (const button of element.querySelectorAll(query)) button.setAttribute("aria-pressed", pressed(button));
}

function refresh() {
  press("[data-who]", (button) => Number(button.dataset.who) === state.who);
  press("[data-look]", (button) => button.dataset.look === state.look);
  press("[data-behind]", (button) => button.dataset.behind === state.behind);
  press(".im-zoom", () => state.zoom);
  draw();
}

function show() {
  const { people, stale } = value();
  find(".im-empty").hidden = people.length > 0;
  find(".im-results").hidden = !people.length;
  find(".im-stale").hidden = !stale;
  state.pictures = {};
  if (!people.some((p) => p.number === state.who)) state.who = 0;
  const choices = [[0, "Everyone"], ...people.map((p) => [p.number, `Person ${p.number}`])];
  find(".im-who").replaceChildren(...choices.map(([number, text]) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.dataset.who = number;
    return button;
  }));
  refresh();
}

function slide(event) { // the edge follows a finger on the picture
  const box = event.target.getBoundingClientRect();
  find(".im-slider").value = 100 * (event.clientX - box.left) / box.width;
  draw();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.who) state.who = Number(button.dataset.who);
  if (button.dataset.look) state.look = button.dataset.look;
  if (button.dataset.behind) state.behind = button.dataset.behind;
  if (button.matches(".im-zoom")) state.zoom = !state.zoom;
  refresh();
});
element.addEventListener("input", async (event) => {
  if (event.target.matches(".im-color")) state.behind = event.target.value;
  if (event.target.matches(".im-own") && event.target.files.length) {
    try {
      state.own = await createImageBitmap(event.target.files[0]);
      state.behind = "own";
    } catch {
      event.target.value = "";
    }
  }
  refresh();
});
element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches(".im-button")) event.target.click();
});
element.addEventListener("pointerdown", (event) => {
  if (event.target.matches(".im-after")) slide(event);
});
element.addEventListener("pointermove", (event) => {
  if (event.target.matches(".im-after") && event.buttons) slide(event);
});

watch("value", show);
show();
