// Two windows to swipe between, and what has changed; see view.js.

const size = data.width * data.height;
const RED = [213, 62, 79];
let pictures = [], pale = []; // before, after: as they are, and so that red stands out of them
let scores = null; // Uint8Array: steps of a score, 0 where there is none
let layer = 0; // 0: change over the pictures, 1: scores, 2: pictures alone
let changed = null, ramp = null; // canvases

const score = (step) => (step - 1) / data.steps + data.lowest;
let exact = data.least; // the score from which on pixels have changed, until another is chosen; null: none has
const least = () => exact ?? at("least").value / 10;
const HIGHEST = 8; // standard deviations, where the colours of scores end

function faded(picture) {
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [data.width, data.height];
  const drawn = sheet.getContext("2d");
  drawn.drawImage(picture, 0, 0);
  const image = drawn.getImageData(0, 0, data.width, data.height), pixels = image.data;
  for (let i = 0; i < pixels.length; i += 4) {
    const grey = 90 + 0.4 * (pixels[i] + pixels[i + 1] + pixels[i + 2]) / 3;
    for (let band = 0; band < 3; band++) pixels[i + band] = grey + 0.25 * pixels[i + band];
  }
  drawn.putImageData(image, 0, 0);
  return sheet;
}

async function load() {
  pictures = await Promise.all(data.windows.map(async ({ picture }) => {
    const image = new Image();
    image.src = picture;
    await image.decode();
    return image;
  }));
  pale = pictures.map(faded);
  scores = new Uint8Array(await unpacked(data.scores));
  const drawn = new ImageData(data.width, data.height), pixels = new Uint32Array(drawn.data.buffer);
  const table = new Uint32Array(256);
  for (let step = 1; step < 256; step++) {
    const [red, green, blue] = colour(Math.max(0, score(step)) / HIGHEST);
    table[step] = 0xff000000 | blue << 16 | green << 8 | red;
  }
  for (let i = 0; i < size; i++) pixels[i] = table[scores[i]];
  ramp = sheetOf(drawn);
}

const mark = new ImageData(data.width, data.height), marks = new Uint32Array(mark.data.buffer);

function choosing() { // from which score on
  const [red, green, blue] = RED, there = 0xff000000 | blue << 16 | green << 8 | red;
  const first = Math.floor((least() - data.lowest) * data.steps + 1e-6) + 1; // the step of that score
  let count = 0, known = 0;
  for (let i = 0; i < size; i++) {
    const is = scores[i] >= first && scores[i] > 0;
    marks[i] = is ? there : 0;
    count += is;
    known += scores[i] > 0;
  }
  if (changed) changed.getContext("2d").putImageData(mark, 0, 0);
  else changed = sheetOf(mark);
  at("chosen").textContent = `${least().toFixed(1)} (${percent(count / Math.max(known, 1))})`;
  draw();
}

page.paint = () => {
  if (!ramp || !changed) return;
  const divide = canvas.clientWidth * at("swipe").value / 1000;
  if (layer === 1) drawPicture(ramp);
  else {
    const sides = [[0, divide], [divide, canvas.clientWidth - divide]];
    for (const [side, [left, width]] of sides.entries()) {
      context.save();
      context.beginPath();
      context.rect(left, 0, width, canvas.clientHeight);
      context.clip();
      drawPicture((layer === 0 ? pale : pictures)[side]);
      context.restore();
    }
    if (layer === 0) drawPicture(changed);
    [context.fillStyle, context.font] = ["#1c1c1a", "600 13px system-ui, sans-serif"];
    context.fillRect(divide - 1, 0, 2, canvas.clientHeight);
    for (const [side, { name }] of data.windows.entries()) {
      const width = context.measureText(name).width, x = side ? divide + 8 : divide - 20 - width;
      context.fillStyle = "rgba(255, 255, 255, .85)";
      context.fillRect(x, 8, width + 12, 22);
      context.fillStyle = "#1c1c1a";
      context.fillText(name, x + 6, 23);
    }
  }
  if (chosen) {
    const { left, top, right, bottom } = chosen, [x, y] = [view.x + left * view.scale, view.y + top * view.scale];
    for (const [width, style] of [[4, "#fff"], [2, "#1c1c1a"]]) {
      [context.lineWidth, context.strokeStyle] = [width, style];
      context.strokeRect(x - 4, y - 4, (right - left) * view.scale + 8, (bottom - top) * view.scale + 8);
    }
  }
};

page.about = (column, row) => {
  const step = scores ? scores[row * data.width + column] : 0;
  return step ? [`score ${score(step).toFixed(1)}${step === 255 ? " or more" : ""}`] : [];
};

let chosen = null; // a patch that is looked at

function lookAt(patch) {
  chosen = patch;
  const { left, top, right, bottom } = patch, wide = Math.max(right - left, bottom - top, 8);
  view.scale = Math.min(DEEPEST, canvas.clientWidth / wide / 5, canvas.clientHeight / wide / 5);
  view.x = canvas.clientWidth / 2 - (left + right) / 2 * view.scale;
  view.y = canvas.clientHeight / 2 - (top + bottom) / 2 * view.scale;
  move(0, 0);
  canvas.scrollIntoView({ block: "nearest" });
}

at("patches").replaceChildren(...data.patches.map((patch) => {
  const item = document.createElement("li"), button = document.createElement("button");
  const dates = patch.dates.map((count) => count ?? "?").join(" and ");
  button.textContent = `score ${patch.z.toFixed(1)}, ${patch.pixels} pixels, seen at ${dates} dates`;
  button.addEventListener("click", () => lookAt(patch));
  item.append(button);
  return item;
}));
at("none").hidden = data.patches.length > 0;

function swipe(step) {
  at("swipe").value = Number(at("swipe").value) + step;
  draw();
}

page.keys = { "[": () => swipe(-100), "]": () => swipe(100) };
choose("layer", (number) => {
  layer = number;
  at("legend").hidden = layer !== 1;
  at("swipe").disabled = layer === 1;
  draw();
});
at("swipe").value = 500;
at("swipe").addEventListener("input", draw);
at("least").value = Math.round(10 * Math.min(data.least ?? 25, 25));
at("least").addEventListener("input", () => {
  exact = null;
  choosing();
});
at("from").textContent = "0";
at("to").textContent = `${HIGHEST} or more`;
begin();
load().then(() => {
  choosing();
  document.documentElement.dataset.loaded = "yes";
});
