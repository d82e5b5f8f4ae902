"use strict";

// Pictures on a canvas that can be moved and zoomed. All lengths are CSS pixels, or pixels of the picture.

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("data").textContent);
const canvas = at("picture"), context = canvas.getContext("2d");
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
const DEEPEST = 40; // CSS pixels per pixel of the picture
const view = { scale: 1, x: 0, y: 0 }; // the picture's north-west corner on the canvas
const shown = { window: 0, layer: 0 }; // layer 0 is the embedding, then the sensors
const pointers = new Map();

// --- what is drawn ---------------------------------------------------------------------------------------------------

const pictures = data.windows.map(() => null); // decoded when they are first shown
const counts = data.windows.map(() => null);
const layers = new Map(); // "window/layer" -> canvas of counts

async function picture(window) {
  if (!pictures[window]) {
    const image = new Image();
    image.src = data.windows[window].picture;
    await image.decode();
    pictures[window] = image;
  }
  return pictures[window];
}

async function countsOf(window) {
  if (!counts[window]) {
    const { counts: packed, bytes } = data.windows[window];
    const raw = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const unpacked = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(unpacked).arrayBuffer();
    counts[window] = bytes === 1 ? new Uint8Array(buffer) : new Uint16Array(buffer);
  }
  return counts[window];
}

async function countLayer(window, layer) {
  const key = `${window}/${layer}`;
  if (!layers.has(key)) {
    const values = await countsOf(window), size = data.width * data.height;
    const none = values instanceof Uint8Array ? 255 : 65535;
    const drawn = new ImageData(data.width, data.height);
    for (let pixel = 0; pixel < size; pixel++) {
      const value = values[(layer - 1) * size + pixel];
      if (value === none) continue;
      drawn.data.set([...colour(value / Math.max(1, data.most[layer - 1])), 255], 4 * pixel);
    }
    const sheet = document.createElement("canvas");
    [sheet.width, sheet.height] = [data.width, data.height];
    sheet.getContext("2d").putImageData(drawn, 0, 0);
    layers.set(key, sheet);
  }
  return layers.get(key);
}

function colour(share) {
  const place = Math.min(share, 1) * (RAMP.length - 1), below = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[below].map((value, i) => Math.round(value + (place - below) * (RAMP[below + 1][i] - value)));
}

let drawing = null; // what is on the canvas now

async function show() {
  const { window, layer } = shown;
  const next = layer ? await countLayer(window, layer) : await picture(window);
  if (layer) await countsOf(window);
  if (window !== shown.window || layer !== shown.layer) return; // chosen otherwise meanwhile
  drawing = next;
  const name = data.windows[window].name, what = layer ? `observations of ${data.sensors[layer - 1]}` : "embedding";
  canvas.setAttribute("aria-label", `Picture of ${layer ? what : "the embeddings"}, window ${name}`);
  at("said").textContent = `Window ${name}, ${what}`;
  at("components").hidden = at("colours").hidden = layer > 0;
  at("ramp").hidden = layer === 0;
  if (layer) {
    at("most").textContent = data.most[layer - 1];
    at("what").textContent = `observations of ${data.sensors[layer - 1]} that were used`;
  }
  draw();
  if (told) tell(...told);
  document.documentElement.dataset.shown = `${window}/${layer}`;
}

function draw() {
  if (!drawing) return;
  const sharp = devicePixelRatio || 1;
  context.setTransform(sharp, 0, 0, sharp, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  context.imageSmoothingEnabled = view.scale * sharp < 1; // a pixel that is seen stays a square
  context.imageSmoothingQuality = "high";
  context.drawImage(drawing, view.x, view.y, data.width * view.scale, data.height * view.scale);
  drawScale();
}

// --- where it is -----------------------------------------------------------------------------------------------------

function fitted() {
  return 0.96 * Math.min(canvas.clientWidth / data.width, canvas.clientHeight / data.height);
}

function fit() {
  view.scale = Math.min(fitted(), DEEPEST);
  view.x = (canvas.clientWidth - data.width * view.scale) / 2;
  view.y = (canvas.clientHeight - data.height * view.scale) / 2;
  draw();
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const least = Math.min(fitted(), DEEPEST) / 2;
  const scale = Math.max(least, Math.min(view.scale * factor, Math.max(DEEPEST, least)));
  view.x = x - (x - view.x) * scale / view.scale;
  view.y = y - (y - view.y) * scale / view.scale;
  view.scale = scale;
  move(0, 0);
}

function move(x, y) { // the middle of the canvas stays on the picture
  const keep = (value, size, length) => Math.max(size / 2 - length * view.scale, Math.min(value, size / 2));
  view.x = keep(view.x + x, canvas.clientWidth, data.width);
  view.y = keep(view.y + y, canvas.clientHeight, data.height);
  draw();
}

function resize() { // the middle stays where it is
  const sharp = devicePixelRatio || 1, first = !canvas.dataset.sized;
  const width = Math.round(canvas.clientWidth * sharp), height = Math.round(canvas.clientHeight * sharp);
  const [dx, dy] = [(width - canvas.width) / sharp / 2, (height - canvas.height) / sharp / 2];
  [canvas.width, canvas.height] = [width, height];
  canvas.dataset.sized = "yes";
  if (first) fit();
  else move(dx, dy);
}

function drawScale() {
  const unit = data.metres || 1, room = Math.min(140, canvas.clientWidth / 3) * unit / view.scale;
  const power = 10 ** Math.floor(Math.log10(room));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= room);
  at("scale").style.width = `${length / unit * view.scale}px`;
  at("scale").textContent = !data.metres ? `${length} pixels` : length < 1000 ? `${length} m` : `${length / 1000} km`;
}

function lonLat(column, row) {
  const { side, lon, lat } = data.mesh;
  const u = column / data.width * (side - 1), v = row / data.height * (side - 1);
  const i = Math.min(Math.floor(u), side - 2), j = Math.min(Math.floor(v), side - 2);
  const [a, b] = [u - i, v - j], first = j * side + i;
  const mean = (of) => (of[first] * (1 - a) + of[first + 1] * a) * (1 - b)
    + (of[first + side] * (1 - a) + of[first + side + 1] * a) * b;
  return [(mean(lon) + 540) % 360 - 180, mean(lat)];
}

let told = null; // the place of the canvas of which the page tells

function tell(x, y) { // of the pixel at a place of the canvas
  told = [x, y];
  const column = (x - view.x) / view.scale, row = (y - view.y) / view.scale;
  if (column < 0 || row < 0 || column >= data.width || row >= data.height) {
    at("where").textContent = "";
    return;
  }
  const parts = [];
  if (data.mesh) {
    const [lon, lat] = lonLat(column, row);
    parts.push(`${Math.abs(lon).toFixed(5)} ${lon < 0 ? "W" : "E"}  ${Math.abs(lat).toFixed(5)} ${lat < 0 ? "S" : "N"}`);
  } else parts.push(`column ${Math.floor(column)}, row ${Math.floor(row)}`);
  const values = counts[shown.window];
  if (values && shown.layer) {
    const size = data.width * data.height;
    const value = values[(shown.layer - 1) * size + Math.floor(row) * data.width + Math.floor(column)];
    if (value !== (values instanceof Uint8Array ? 255 : 65535)) parts.push(`${value} observations`);
  }
  at("where").textContent = parts.join(" \u00b7 ");
}

// --- what people do --------------------------------------------------------------------------------------------------

const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place(event));
  canvas.classList.add("held");
});

canvas.addEventListener("pointermove", (event) => {
  const [x, y] = place(event), before = pointers.get(event.pointerId);
  if (before) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
    pointers.set(event.pointerId, [x, y]);
    if (other) { // two fingers
      const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
      move((x - before[0]) / 2, (y - before[1]) / 2);
      zoom(apart([x, y]) / Math.max(apart(before), 1), (x + other[0]) / 2, (y + other[1]) / 2);
    } else move(x - before[0], y - before[1]);
  }
  tell(x, y);
});

for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    pointers.delete(event.pointerId);
    if (!pointers.size) canvas.classList.remove("held");
  });
}
canvas.addEventListener("pointerleave", () => {
  told = null;
  at("where").textContent = "";
});
canvas.addEventListener("dblclick", (event) => zoom(2, ...place(event)));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(1.0015 ** -(event.deltaY * (event.deltaMode ? 30 : 1)), ...place(event));
  tell(...place(event));
}, { passive: false });

canvas.addEventListener("keydown", (event) => {
  const step = canvas.clientWidth / 8;
  const known = {
    ArrowLeft: () => move(step, 0), ArrowRight: () => move(-step, 0),
    ArrowUp: () => move(0, step), ArrowDown: () => move(0, -step),
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: fit,
    "[": () => turn(-1), "]": () => turn(1),
  }[event.key];
  if (!known || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  known();
  tell(canvas.clientWidth / 2, canvas.clientHeight / 2);
});

function turn(step) {
  const buttons = [...document.querySelectorAll("[name=window]")];
  const next = buttons[(shown.window + step + buttons.length) % buttons.length];
  if (next) next.click();
}

at("in").addEventListener("click", () => zoom(1.5));
at("out").addEventListener("click", () => zoom(1 / 1.5));
at("fit").addEventListener("click", fit);
for (const name of ["window", "layer"]) {
  for (const button of document.querySelectorAll(`[name=${name}]`)) {
    button.checked = button.value === "0"; // browsers remember others
    button.disabled = name === "layer" && button.value !== "0" && !("DecompressionStream" in self);
    button.addEventListener("change", () => {
      shown[name] = Number(button.value);
      show();
    });
  }
}
document.querySelector("#ramp i").style.background = `linear-gradient(to right, ${RAMP.map((c) => `rgb(${c})`)})`;
new ResizeObserver(resize).observe(canvas);
resize();
show();
