// The explorer without Python: the canvas on a model that is a plain object.
import canvas from "canvas";

const data = JSON.parse(document.getElementById("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const find = (id) => document.getElementById(id);

/** What the canvas needs of a model; events come to `receive`. */
function makeModel(state, receive) {
  const followers = new Map();
  const tell = (event, ...given) => (followers.get(event) ?? []).forEach((follow) => follow(...given));
  return {
    get: (name) => state[name],
    set(changes, value) {
      const given = typeof changes === "string" ? { [changes]: value } : changes;
      Object.assign(state, given);
      for (const name of Object.keys(given)) tell(`change:${name}`);
    },
    save_changes() {},
    on: (event, follow) => followers.set(event, [...(followers.get(event) ?? []), follow]),
    off() {},
    async send(content) {
      await receive(content);
      tell("msg:custom", { type: "ack", view: content.view });
    },
  };
}

const model = makeModel(
  {
    picture: bytes(data.picture), overlay: new Uint8Array(), labels: new Uint8Array(), label_size: [0, 0], names: [],
    marks: [], cursor: [0.5, 0.5], width: 640, smooth: true, alt: data.alt, message: "", level: "info",
    listens: ["click"],
  },
  ({ type, x, y }) => type === "click" && look(x, y),
);

// ---- attention ----

let maps = null;
async function readMaps() {
  const stream = new Blob([bytes(data.attention.bytes)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function colour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (data.viridis.length - 1);
  const low = Math.min(Math.floor(place), data.viridis.length - 2);
  return [0, 1, 2].map((part) => {
    const [a, b] = [data.viridis[low][part], data.viridis[low + 1][part]];
    return Math.round(a + (place - low) * (b - a));
  });
}

async function paintMap(x, y) {
  const [rows, columns, height, width] = data.attention.shape;
  maps ??= await readMaps();
  const row = Math.min(Math.floor(y * rows), rows - 1);
  const column = Math.min(Math.floor(x * columns), columns - 1);
  const start = (row * columns + column) * height * width;
  const image = new ImageData(width, height);
  for (let index = 0; index < height * width; index++) {
    image.data.set([...colour((maps[start + index] / 255) ** 2), 200], 4 * index);
  }
  const board = new OffscreenCanvas(width, height);
  board.getContext("2d").putImageData(image, 0, 0);
  return new Uint8Array(await (await board.convertToBlob()).arrayBuffer());
}

async function look(x, y) {
  model.set({
    overlay: await paintMap(x, y), labels: new Uint8Array(), label_size: [0, 0], names: [],
    marks: [{ x, y, kind: "query" }],
    alt: `What the place at ${Math.round(100 * x)}% from the left and ${Math.round(100 * y)}% from the top attends to.`,
  });
  find("said").textContent = "What the place you clicked attends to; bright is much.";
  find("back").disabled = false;
}

// ---- segments ----

function showSegments() {
  const view = data.views[find("threshold").value];
  const count = view.names.length;
  const text = `${count} segment${count === 1 ? "" : "s"} at a threshold of ${view.threshold} nats.`;
  model.set({
    overlay: bytes(view.overlay), labels: bytes(view.labels), label_size: view.size, names: view.names, marks: [],
    alt: text,
  });
  find("said").textContent = text;
  find("value").textContent = view.threshold;
  find("threshold").setAttribute("aria-valuetext", `${view.threshold} nats`);
  find("back").disabled = true;
}

find("threshold").max = data.views.length - 1;
find("threshold").value = data.start;
find("threshold").addEventListener("input", showSegments);
find("back").addEventListener("click", showSegments);
showSegments();
canvas.render({ model, el: find("canvas") });
