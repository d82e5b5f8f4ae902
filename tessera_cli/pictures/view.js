"use strict";

// A picture on a canvas that can be moved and zoomed, which pages share. All lengths are CSS pixels, or pixels of the
// picture. The page's own script follows, fills in `page`, and calls `begin()`.

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("data").textContent);
const canvas = at("picture"), context = canvas.getContext("2d");
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
const DEEPEST = 40; // CSS pixels per pixel of the picture
const STILL = 5; // CSS pixels: a pointer that has moved less has clicked
const view = { scale: 1, x: 0, y: 0 }; // the picture's north-west corner on the canvas
const pointers = new Map();
const page = {
  paint() {}, // draw on `context`; `view` says where
  about: () => [], // what to say of the pixel at column, row besides its place
  click: null, // a function of column, row and the event
  keys: {}, // further keys: what each does
};

function colour(share) {
  const place = Math.min(share, 1) * (RAMP.length - 1), below = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[below].map((value, i) => Math.round(value + (place - below) * (RAMP[below + 1][i] - value)));
}

function percent(share) { // to two digits
  return `${share < 0.995 ? (100 * share).toPrecision(2) : 100} %`;
}

async function unpacked(text) { // base64 of zlib -> ArrayBuffer
  const letters = atob(text), raw = new Uint8Array(letters.length);
  for (let i = 0; i < raw.length; i++) raw[i] = letters.charCodeAt(i);
  return new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}

function sheetOf(drawn) { // ImageData -> a canvas that can be drawn at any size
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [drawn.width, drawn.height];
  sheet.getContext("2d").putImageData(drawn, 0, 0);
  return sheet;
}

// --- where it is -----------------------------------------------------------------------------------------------------

function draw() {
  const sharp = devicePixelRatio || 1;
  context.setTransform(sharp, 0, 0, sharp, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  context.imageSmoothingEnabled = view.scale * sharp < 1; // a pixel that is seen stays a square
  context.imageSmoothingQuality = "high";
  page.paint();
  drawScale();
}

function drawPicture(picture) {
  context.drawImage(picture, view.x, view.y, data.width * view.scale, data.height * view.scale);
}

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

function under(x, y) { // column and row of the picture at a place of the canvas; null beside it
  const column = (x - view.x) / view.scale, row = (y - view.y) / view.scale;
  return column < 0 || row < 0 || column >= data.width || row >= data.height ? null : [column, row];
}

function tell(x, y) { // of the pixel at a place of the canvas
  told = [x, y];
  const pixel = under(x, y);
  if (!pixel) {
    at("where").textContent = "";
    return;
  }
  const parts = [];
  if (data.mesh) {
    const [lon, lat] = lonLat(...pixel);
    parts.push(`${Math.abs(lon).toFixed(5)} ${lon < 0 ? "W" : "E"}  ${Math.abs(lat).toFixed(5)} ${lat < 0 ? "S" : "N"}`);
  } else parts.push(`column ${Math.floor(pixel[0])}, row ${Math.floor(pixel[1])}`);
  at("where").textContent = [...parts, ...page.about(Math.floor(pixel[0]), Math.floor(pixel[1]))].join(" \u00b7 ");
}

// --- what people do --------------------------------------------------------------------------------------------------

const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

let moved = 0; // how far pointers have gone since the first was put down

canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return; // right or middle
  canvas.setPointerCapture(event.pointerId);
  if (!pointers.size) moved = 0;
  else moved = STILL; // two fingers do not click
  pointers.set(event.pointerId, place(event));
  canvas.classList.add("held");
});

canvas.addEventListener("pointermove", (event) => {
  const [x, y] = place(event), before = pointers.get(event.pointerId);
  if (before) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
    pointers.set(event.pointerId, [x, y]);
    moved += Math.hypot(x - before[0], y - before[1]);
    if (moved < STILL && page.click) return; // a hand that trembles
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
    const pixel = under(...place(event));
    if (end === "pointerup" && pointers.has(event.pointerId) && moved < STILL && pixel && page.click) page.click(...pixel, event);
    pointers.delete(event.pointerId);
    if (!pointers.size) canvas.classList.remove("held");
  });
}
canvas.addEventListener("pointerleave", () => {
  told = null;
  at("where").textContent = "";
});
canvas.addEventListener("dblclick", (event) => {
  if (!page.click) zoom(2, ...place(event));
});
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
    ...page.keys,
  }[event.key];
  if (!known || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  known(event);
  tell(canvas.clientWidth / 2, canvas.clientHeight / 2);
});

at("in").addEventListener("click", () => zoom(1.5));
at("out").addEventListener("click", () => zoom(1 / 1.5));
at("fit").addEventListener("click", fit);

function choose(name, chosen) { // radio buttons of this name call `chosen` with the number of the one that is taken
  for (const button of document.querySelectorAll(`[name=${name}]`)) {
    button.checked = button.value === "0"; // browsers remember others
    button.addEventListener("change", () => chosen(Number(button.value)));
  }
}

function begin() {
  for (const bar of document.querySelectorAll("#ramp i, #legend i")) {
    bar.style.background = `linear-gradient(to right, ${RAMP.map((c) => `rgb(${c})`)})`;
  }
  new ResizeObserver(resize).observe(canvas);
  resize();
}

