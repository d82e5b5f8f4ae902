// Similarity to examples, and labels drawn by hand; see view.js.

const size = data.width * data.height;
const codes = []; // a plane each: Int8Array of all pixels
const inverse = new Float32Array(size); // 1 over the length of a pixel's code; 0 where there is no embedding
const similarity = new Float32Array(size); // of what was searched for last; NaN where there is no embedding
const BINS = 65536; // of similarities, -1..1
const HUES = ["#e6194b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#000075"]; // of classes
const examples = []; // {vector: of length 1, like, name, column, row}; of many there is their mean, and `weight`
const labels = []; // {name, corners: [[column, row], ...]}
let corners = []; // of the area that is being drawn
let mode = 0, layer = 0; // as the buttons count
let embedding = null, map = null; // canvases

// --- what is like the examples ---------------------------------------------------------------------------------------

async function load() {
  const squares = new Float32Array(size);
  for (const text of data.planes) {
    const plane = new Int8Array(await unpacked(text));
    for (let i = 0; i < size; i++) squares[i] += plane[i] * plane[i];
    codes.push(plane);
  }
  data.planes = null; // half of the page's memory
  at("data").remove();
  for (let i = 0; i < size; i++) inverse[i] = squares[i] ? 1 / Math.sqrt(squares[i]) : 0;
  const drawn = new ImageData(data.width, data.height), pixels = drawn.data;
  for (const [band, { plane, low, high }] of data.colours.entries()) {
    const values = codes[plane], step = 254 / Math.max(high - low, 1e-9);
    for (let i = 0; i < size; i++) pixels[4 * i + band] = 1 + (values[i] * inverse[i] - low) * step; // clamped
  }
  for (let i = 0; i < size; i++) pixels[4 * i + 3] = inverse[i] ? 255 : 0;
  embedding = sheetOf(drawn);
  embedding.pixels = new Uint32Array(pixels.buffer);
}

function vectorAt(column, row) {
  const pixel = row * data.width + column;
  return codes.map((plane) => plane[pixel] * inverse[pixel]);
}

function query() { // mean of examples, less a share of the mean of counterexamples, of length 1; null without any
  if (!examples.some((each) => each.like)) return null;
  const sum = codes.map(() => 0);
  for (const like of [true, false]) {
    const those = examples.filter((each) => each.like === like);
    const many = those.reduce((all, { weight = 1 }) => all + weight, 0);
    for (const { vector, weight = 1 } of those) {
      const part = (like ? 1 : -data.unlike) * weight / many;
      vector.forEach((value, k) => { sum[k] += part * value; });
    }
  }
  const length = Math.hypot(...sum);
  return length > 1e-9 ? sum.map((value) => value / length) : null;
}

const counts = new Uint32Array(BINS);
let most = 0; // the largest similarity

function search() {
  const began = performance.now(), wanted = query();
  if (wanted) {
    similarity.fill(0);
    codes.forEach((plane, k) => {
      const weight = wanted[k];
      for (let i = 0; i < size; i++) similarity[i] += weight * plane[i];
    });
    counts.fill(0);
    most = -1;
    for (let i = 0; i < size; i++) {
      if (!inverse[i]) {
        similarity[i] = NaN;
        continue;
      }
      const value = similarity[i] *= inverse[i];
      counts[Math.min(BINS - 1, Math.floor((value + 1) * BINS / 2))]++;
      if (value > most) most = value;
    }
  }
  paintMap(wanted);
  document.documentElement.dataset.took = performance.now() - began;
  document.documentElement.dataset.searched = Number(document.documentElement.dataset.searched || 0) + 1;
}

function leastOf(share) { // the similarity from which on this share of the pixels lies
  let left = share * counts.reduce((sum, count) => sum + count, 0), bin = BINS;
  while (bin > 0 && left > 0) left -= counts[--bin];
  return 2 * bin / BINS - 1;
}

let exact = data.share; // what the page was made with, until another is chosen

function share() { // 0.1 to 100 %, of a slider from 0 to 300
  return exact ?? 10 ** (at("share").value / 100 - 3);
}

let sheet = null; // the pixels of `map`

function paintMap(wanted) {
  const searched = Boolean(wanted);
  at("legend").hidden = !searched || layer === 1;
  at("coloured").textContent = percent(share());
  if (searched) {
    const least = Math.min(leastOf(share()), most - 1e-6), table = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const [red, green, blue] = colour(i / 255);
      table[i] = 0xff000000 | blue << 16 | green << 8 | red;
    }
    sheet = sheet || new ImageData(data.width, data.height);
    const pixels = new Uint32Array(sheet.data.buffer), below = embedding.pixels, step = 255 / (most - least);
    for (let i = 0; i < size; i++) {
      const value = similarity[i];
      if (value >= least) {
        pixels[i] = table[(value - least) * step | 0];
      } else { // grey and pale, and nothing where there is no embedding
        const under = below[i], grey = 150 + ((under & 255) + (under >> 8 & 255) + (under >> 16 & 255)) / 9 | 0;
        pixels[i] = under >>> 24 ? 0xff000000 | grey << 16 | grey << 8 | grey : 0;
      }
    }
    if (map) map.getContext("2d").putImageData(sheet, 0, 0);
    else map = sheetOf(sheet);
    at("least").textContent = least.toFixed(3);
    at("most").textContent = most.toFixed(3);
  } else map = null;
  draw();
}

// --- what is drawn ---------------------------------------------------------------------------------------------------

const onCanvas = ([column, row]) => [view.x + column * view.scale, view.y + row * view.scale];
const hue = (name) => HUES[[...new Set(labels.map((each) => each.name).concat(name))].indexOf(name) % HUES.length];

function outline(points, colour, closed) {
  context.beginPath();
  points.map(onCanvas).forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
  for (const [width, style] of [[4, "#fff"], [2, colour]]) {
    [context.lineWidth, context.strokeStyle] = [width, style];
    context.stroke();
  }
}

function dot([x, y], colour, sign) {
  context.beginPath();
  context.arc(x, y, 7, 0, 2 * Math.PI);
  [context.fillStyle, context.lineWidth, context.strokeStyle] = [colour, 2, "#fff"];
  context.fill();
  context.stroke();
  context.beginPath();
  context.moveTo(x - 3, y);
  context.lineTo(x + 3, y);
  if (sign > 0) {
    context.moveTo(x, y - 3);
    context.lineTo(x, y + 3);
  }
  context.stroke();
}

page.paint = () => {
  const shown = layer === 0 && map ? map : embedding;
  if (!shown) return;
  drawPicture(shown);
  for (const { name, corners: ring } of labels) outline(ring, hue(name), true);
  if (corners.length) {
    const colour = hue(className());
    outline(corners, colour, false);
    dot(onCanvas(corners[0]), colour, 1);
  }
  for (const { column, row, like } of examples) {
    if (column !== undefined) dot(onCanvas([column, row]), like ? "#1f8a5f" : "#c2620a", like ? 1 : -1);
  }
  if (canvas.matches(":focus-visible")) { // where Enter marks
    const [x, y] = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    for (const [width, style] of [[4, "#fff"], [2, "#1c1c1a"]]) {
      [context.lineWidth, context.strokeStyle] = [width, style];
      context.beginPath();
      context.moveTo(x - 9, y);
      context.lineTo(x + 9, y);
      context.moveTo(x, y - 9);
      context.lineTo(x, y + 9);
      context.stroke();
    }
  }
};

page.about = (column, row) => {
  const value = similarity[row * data.width + column];
  return map && !Number.isNaN(value) ? [`similarity ${value.toFixed(3)}`] : [];
};

// --- lists -----------------------------------------------------------------------------------------------------------

function say(text) {
  at("said").textContent = at("hint").textContent = text;
}

function list(id, entries, remove) {
  at(id).replaceChildren(...entries.map(({ name, like }, number) => {
    const item = document.createElement("li"), button = document.createElement("button");
    item.textContent = like === undefined ? name : `${like ? "like" : "not like"} ${name}`;
    if (like === false) item.className = "unlike";
    if (like === undefined) item.style.borderLeftColor = hue(name);
    [button.textContent, button.title] = ["\u00d7", "Remove"];
    button.setAttribute("aria-label", `Remove ${item.textContent}`);
    button.addEventListener("click", () => remove(number));
    item.append(button);
    return item;
  }));
}

function changed() { // examples
  list("examples", examples, (number) => {
    examples.splice(number, 1);
    changed();
  });
  const placed = (like) => examples.some((each) => each.like === like && each.column !== undefined);
  at("clear").disabled = !examples.length;
  at("save-like").disabled = !placed(true) || !data.mesh;
  at("save-unlike").disabled = !placed(false) || !data.mesh;
  if (!examples.length) say("Click a place on the map to see what is like it.");
  else if (!examples.some((each) => each.like)) say("Now mark a place that it should be like.");
  else say(`${examples.length} ${examples.length === 1 ? "example" : "examples"}. More of them make it surer.`);
  search();
}

function labelled() { // labels, or the one that is being drawn
  list("labels", labels, (number) => {
    labels.splice(number, 1);
    labelled();
  });
  at("classes").replaceChildren(...[...new Set(labels.map((each) => each.name))].map((name) => {
    const option = document.createElement("option");
    option.value = name;
    return option;
  }));
  at("undo").disabled = !corners.length && !labels.length;
  at("save").disabled = !labels.length || !data.mesh;
  draw();
}

const className = () => at("class").value.trim() || "field";

function close() {
  if (corners.length === 1) { // the pixel under it
    const [column, row] = corners[0].map(Math.floor);
    corners = [[column, row], [column, row + 1], [column + 1, row + 1], [column + 1, row]];
  }
  if (corners.length === 2) {
    say("An area needs three corners: click one more.");
    return;
  }
  if (corners.length) labels.push({ name: className(), corners });
  corners = [];
  labelled();
}

function undo() {
  if (corners.length) corners.pop();
  else labels.pop();
  labelled();
}

function save(name, features) {
  const told = { type: "FeatureCollection", features };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(told)], { type: "application/geo+json" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

const degrees = ([column, row]) => lonLat(column, row).map((value) => Number(value.toFixed(7)));

function feature(type, coordinates, properties) {
  return { type: "Feature", properties, geometry: { type, coordinates } };
}

function saveExamples(like) {
  const those = examples.filter((each) => each.like === like && each.column !== undefined);
  const points = those.map((each) => feature("Point", degrees([each.column, each.row]), { example: like ? "like" : "unlike" }));
  save(like ? "examples.geojson" : "counterexamples.geojson", points);
}

function saveLabels() {
  save("labels.geojson", labels.map(({ name, corners: ring }) => {
    const turn = ring.reduce((sum, [x, y], i) => { // rows grow southwards: counterclockwise is negative
      const [nextX, nextY] = ring[(i + 1) % ring.length];
      return sum + x * nextY - nextX * y;
    }, 0);
    const around = turn > 0 ? [...ring].reverse() : ring;
    return feature("Polygon", [[...around, around[0]].map(degrees)], { class: name });
  }));
}

// --- what people do --------------------------------------------------------------------------------------------------

function mark(column, row) {
  if (mode === 2) {
    const [x, y] = onCanvas([column, row]);
    const [firstX, firstY] = corners.length ? onCanvas(corners[0]) : [Infinity, Infinity];
    if (corners.length > 2 && Math.hypot(x - firstX, y - firstY) < 10) close();
    else {
      corners.push([column, row]);
      labelled();
    }
    return;
  }
  const [x, y] = [Math.floor(column), Math.floor(row)];
  if (!inverse[y * data.width + x]) {
    say("There is no embedding at that place.");
    return;
  }
  const [lon, lat] = data.mesh ? lonLat(x + 0.5, y + 0.5) : [x, y];
  const name = data.mesh
    ? `${Math.abs(lon).toFixed(4)} ${lon < 0 ? "W" : "E"} ${Math.abs(lat).toFixed(4)} ${lat < 0 ? "S" : "N"}`
    : `column ${x}, row ${y}`;
  examples.push({ vector: vectorAt(x, y), like: mode === 0, name, column: x + 0.5, row: y + 0.5 });
  changed();
}

page.click = mark;
page.keys = {
  Enter: () => {
    const pixel = under(canvas.clientWidth / 2, canvas.clientHeight / 2);
    if (mode === 2 && corners.length) close();
    else if (pixel) mark(...pixel);
  },
  Backspace: () => {
    if (mode === 2) undo();
    else if (examples.pop()) changed();
  },
  Escape: () => {
    corners = [];
    labelled();
  },
};
choose("mode", (number) => { mode = number; });
choose("layer", (number) => {
  layer = number;
  paintMap(query());
});
at("share").value = Math.round(100 * (Math.log10(data.share) + 3));
at("share").addEventListener("input", () => {
  exact = null;
  paintMap(query());
});
at("clear").addEventListener("click", () => {
  examples.length = 0;
  changed();
});
at("undo").addEventListener("click", undo);
at("save").addEventListener("click", saveLabels);
at("save-like").addEventListener("click", () => saveExamples(true));
at("save-unlike").addEventListener("click", () => saveExamples(false));
canvas.addEventListener("blur", draw);
canvas.addEventListener("focus", draw);
begin();
load().then(() => {
  examples.push(...data.examples);
  changed();
  labelled();
  document.documentElement.dataset.loaded = "yes";
}, () => say("This browser cannot unpack the page: it is too old, or the file is not whole."));
