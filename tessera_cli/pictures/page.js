// The embedding and the observation counts of several windows; see view.js.

const shown = { window: 0, layer: 0 }; // layer 0 is the embedding, then the sensors

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
    const buffer = await unpacked(packed);
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
    layers.set(key, sheetOf(drawn));
  }
  return layers.get(key);
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

page.paint = () => {
  if (drawing) drawPicture(drawing);
};

page.about = (column, row) => {
  const values = counts[shown.window];
  if (!values || !shown.layer) return [];
  const value = values[(shown.layer - 1) * data.width * data.height + row * data.width + column];
  return value === (values instanceof Uint8Array ? 255 : 65535) ? [] : [`${value} observations`];
};

// --- what people do --------------------------------------------------------------------------------------------------

function turn(step) {
  const buttons = [...document.querySelectorAll("[name=window]")];
  const next = buttons[(shown.window + step + buttons.length) % buttons.length];
  if (next) next.click();
}

page.keys = { "[": () => turn(-1), "]": () => turn(1) };
for (const name of ["window", "layer"]) {
  choose(name, (number) => {
    shown[name] = number;
    show();
  });
}
for (const button of document.querySelectorAll("[name=layer]")) {
  button.disabled = button.value !== "0" && !("DecompressionStream" in self);
}
begin();
show();
