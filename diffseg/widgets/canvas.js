// A picture that is pointed at: hover, click, drag, drop, paste, and all of it by keyboard.
//
// Runs as an anywidget view and, with a plain object in the place of the model, in a page without Python. What the
// pointer finds in the label map is shown here, without a question to Python; the rest is sent as events.

const STEP = 1 / 64; // of the picture, for an arrow key; with shift 8 of them
const LARGEST_FILE = 8e6; // bytes; a Jupyter server closes the connection at 10 MiB
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STILL = 4; // css pixels: a press that moves less is a click

function element(name, className, parent, attributes = {}) {
  const made = document.createElement(name);
  made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

const clamp = (value) => Math.min(Math.max(value, 0), 1);
const bytesOf = (view) => new Uint8Array(view?.buffer ?? view ?? [], view?.byteOffset ?? 0, view?.byteLength ?? 0);

/** Label of each pixel: raw uint8 or uint16 (little-endian), or either packed by zlib. */
export async function readLabels(view, [height, width]) {
  let bytes = bytesOf(view);
  const pixels = height * width;
  if (bytes.length && bytes.length !== pixels && bytes.length !== 2 * pixels) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  }
  return bytes.length === 2 * pixels ? new Uint16Array(bytes.slice().buffer) : bytes;
}

/** Light on one segment and a line around it, as pixels of the label map. */
export function lightUp(labels, height, width, label) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer); // ABGR
  const reach = Math.max(1, Math.round(Math.min(height, width) / 256));
  const other = (row, column) =>
    row >= 0 && row < height && column >= 0 && column < width && labels[row * width + column] !== label;
  for (let row = 0, index = 0; row < height; row++) {
    for (let column = 0; column < width; column++, index++) {
      if (labels[index] !== label) {
        pixels[index] = 0x40000000;
      } else {
        const edge =
          other(row - reach, column) || other(row + reach, column) ||
          other(row, column - reach) || other(row, column + reach);
        pixels[index] = edge ? 0xffffffff : 0x30ffffff;
      }
    }
  }
  return image;
}

/** Events to Python, one at a time: until it has answered, only the newest movement is kept. */
function makeQueue(send, setBusy) {
  const waiting = [];
  let underway = false;
  const next = () => {
    const event = waiting.shift();
    underway = Boolean(event);
    setBusy(underway);
    if (event) send(event);
  };
  return {
    push(event) {
      const last = waiting.at(-1);
      const moves = (one) => one && (one.type === "hover" || one.phase === "move");
      if (moves(event) && moves(last) && event.type === last.type) waiting.pop();
      waiting.push(event);
      if (!underway) next();
    },
    answered: next,
  };
}

function render({ model, el }) {
  const view = Math.random().toString(36).slice(2);
  const root = element("div", "diffseg-canvas", el, {
    tabindex: 0, role: "application", "data-lm-suppress-shortcuts": "true",
  });
  const stage = element("div", "diffseg-stage", root);
  const picture = element("img", "diffseg-layer diffseg-picture", stage, { alt: "", draggable: false });
  const overlay = element("img", "diffseg-layer diffseg-overlay", stage, { alt: "", draggable: false });
  const light = element("canvas", "diffseg-layer diffseg-light", stage);
  const points = element("div", "diffseg-points", stage);
  const name = element("div", "diffseg-name", stage);
  const message = element("div", "diffseg-message", stage, { role: "alert" });
  const spoken = element("div", "diffseg-spoken", root, { role: "status", "aria-live": "polite" });

  let labels = new Uint8Array();
  let lit = -1;
  let here = null; // where the pointer is
  let grabbed = false; // by the keyboard
  let pressed = null; // where the pointer went down
  let moved = false; // since then

  const queue = makeQueue(
    ({ buffers, ...content }) => model.send({ ...content, view }, undefined, buffers),
    (busy) => root.classList.toggle("diffseg-busy", busy),
  );
  const listens = (kind) => model.get("listens").includes(kind);
  const emit = (type, more = {}) => {
    root.dataset.sent = String(Number(root.dataset.sent ?? 0) + 1);
    queue.push({ type, ...more });
  };

  // ---- what is shown ----

  const shown = new Map();
  async function showBytes(image, bytes) {
    const view = bytesOf(bytes);
    const before = shown.get(image);
    const url = view.length ? URL.createObjectURL(new Blob([view])) : "";
    shown.set(image, url);
    if (url) {
      const loaded = new Image();
      loaded.src = url;
      await loaded.decode().catch(() => {}); // decoded first, so that nothing flickers
    }
    if (shown.get(image) !== url) return URL.revokeObjectURL(url);
    image.hidden = !url;
    if (url) image.src = url;
    if (before) URL.revokeObjectURL(before);
    root.dataset.shown = String(Number(root.dataset.shown ?? 0) + 1);
  }

  function showName(label, x, y) {
    const text = model.get("names")[label] ?? "";
    name.textContent = text;
    name.hidden = !text;
    if (!text) return;
    const side = stage.getBoundingClientRect();
    name.style.left = `${Math.min(Math.max(x * side.width - name.offsetWidth / 2, 4), side.width - name.offsetWidth - 4)}px`;
    const above = y * side.height - name.offsetHeight - 14;
    name.style.top = `${above > 4 ? above : y * side.height + 22}px`;
  }

  function find(x, y) {
    const [height, width] = model.get("label_size");
    if (!labels.length) return -1;
    const row = Math.min(Math.floor(y * height), height - 1);
    const label = labels[row * width + Math.min(Math.floor(x * width), width - 1)];
    return label === (labels.BYTES_PER_ELEMENT === 2 ? 65535 : 255) ? -1 : label;
  }

  function lightAt(x, y) {
    const label = find(x, y);
    if (label !== lit) {
      lit = label;
      light.hidden = label < 0;
      root.dataset.lit = String(label);
      if (label >= 0) {
        [light.height, light.width] = model.get("label_size");
        light.getContext("2d").putImageData(lightUp(labels, light.height, light.width, label), 0, 0);
      }
    }
    showName(label, x, y);
    return label;
  }

  function darken() {
    lit = -1;
    light.hidden = name.hidden = true;
    root.dataset.lit = "-1";
  }

  function showPoints() {
    points.replaceChildren();
    const cursor = { x: model.get("cursor")[0], y: model.get("cursor")[1], kind: "cursor" };
    for (const { x, y, kind } of [...model.get("marks"), cursor]) {
      const point = element("div", `diffseg-point diffseg-${kind}`, points);
      point.style.left = `${100 * x}%`;
      point.style.top = `${100 * y}%`;
    }
  }

  function showMessage() {
    message.textContent = model.get("message");
    message.hidden = !message.textContent;
    message.dataset.level = model.get("level");
  }

  function showLayout() {
    root.style.width = `${model.get("width")}px`;
    root.setAttribute("aria-label", model.get("alt"));
    root.classList.toggle("diffseg-pixels", !model.get("smooth"));
    root.classList.toggle("diffseg-draggable", listens("drag"));
  }

  async function takeLabels() {
    const given = model.get("labels");
    const read = await readLabels(given, model.get("label_size"));
    if (given !== model.get("labels")) return;
    labels = read;
    darken();
    if (here) lightAt(...here);
  }

  // ---- the pointer ----

  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
  };
  const kindOf = (event) => (event.shiftKey || event.altKey || event.button === 2 ? "negative" : "positive");

  function moveCursor(x, y) {
    model.set("cursor", [x, y]);
    model.save_changes();
  }

  stage.addEventListener("pointerdown", (event) => {
    root.focus({ preventScroll: true });
    moved = false;
    if (event.button !== 0) return;
    pressed = [event.clientX, event.clientY];
    if (listens("drag")) {
      const [x, y] = at(event);
      stage.setPointerCapture(event.pointerId);
      emit("drag", { x, y, phase: "start" });
    }
  });
  stage.addEventListener("pointermove", (event) => {
    const [x, y] = (here = at(event));
    lightAt(x, y);
    if (pressed) moved ||= Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > STILL;
    if (pressed && listens("drag")) emit("drag", { x, y, phase: "move" });
    else if (listens("hover")) emit("hover", { x, y });
  });
  const drop = (event) => {
    if (!pressed) return;
    const [x, y] = at(event);
    pressed = null;
    if (listens("drag")) emit("drag", { x, y, phase: "end" });
  };
  stage.addEventListener("pointerup", drop);
  stage.addEventListener("pointercancel", drop);
  stage.addEventListener("pointerleave", () => {
    here = null;
    darken();
  });
  const click = (event) => {
    event.preventDefault();
    if (moved || event.target === message) return;
    const [x, y] = at(event);
    moveCursor(x, y);
    if (listens("click")) emit("click", { x, y, kind: kindOf(event) });
  };
  stage.addEventListener("click", click);
  stage.addEventListener("contextmenu", click);
  message.addEventListener("click", dismiss);

  function dismiss() {
    model.set("message", "");
    model.save_changes();
  }

  // ---- the keyboard ----

  function press(event) {
    const [x, y] = model.get("cursor");
    if (listens("drag") && !(listens("click") && event.key === "Enter")) {
      grabbed = !grabbed;
      emit("drag", { x, y, phase: grabbed ? "start" : "end" });
      root.classList.toggle("diffseg-grabbed", grabbed);
    } else if (listens("click")) {
      emit("click", { x, y, kind: kindOf(event) });
    }
  }

  root.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (event.ctrlKey || event.metaKey) return;
    if (arrow) {
      const step = event.shiftKey ? 8 * STEP : STEP;
      const [x, y] = model.get("cursor").map((value, axis) => clamp(value + step * arrow[axis]));
      moveCursor(x, y);
      const label = lightAt(x, y);
      spoken.textContent = model.get("names")[label] ?? `${Math.round(100 * x)}, ${Math.round(100 * y)}`;
      if (grabbed) emit("drag", { x, y, phase: "move" });
      else if (listens("hover")) emit("hover", { x, y });
    } else if (event.key === "Enter" || event.key === " ") {
      press(event);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      emit("remove");
    } else if (event.key === "Escape") {
      dismiss();
      darken();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  root.addEventListener("blur", darken);

  // ---- files ----

  async function take(file) {
    if (!file) return;
    if (file.size > LARGEST_FILE) {
      model.set("level", "error");
      model.set("message", `${file.name} has ${(file.size / 1e6).toFixed(0)} MB; more than 8 MB cannot be sent. Make it smaller.`);
      model.save_changes();
      return;
    }
    emit("file", { name: file.name, buffers: [await file.arrayBuffer()] });
  }
  root.addEventListener("dragover", (event) => {
    if (!listens("file")) return;
    event.preventDefault();
    root.classList.add("diffseg-receiving");
  });
  root.addEventListener("dragleave", () => root.classList.remove("diffseg-receiving"));
  root.addEventListener("drop", (event) => {
    if (!listens("file")) return;
    event.preventDefault();
    event.stopPropagation();
    root.classList.remove("diffseg-receiving");
    take(event.dataTransfer.files[0]);
  });
  root.addEventListener("paste", (event) => {
    if (!listens("file") || !event.clipboardData.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    take(event.clipboardData.files[0]);
  });

  // ---- what Python changes ----

  const watched = {
    picture: () => showBytes(picture, model.get("picture")),
    overlay: () => showBytes(overlay, model.get("overlay")),
    labels: takeLabels,
    marks: showPoints, cursor: showPoints,
    message: showMessage, level: showMessage,
    width: showLayout, smooth: showLayout, listens: showLayout,
    alt: () => {
      showLayout();
      spoken.textContent = model.get("alt");
    },
  };
  const answer = (content) => {
    if (content.type === "ack" && content.view === view) queue.answered();
  };
  for (const [trait, follow] of Object.entries(watched)) model.on(`change:${trait}`, follow);
  model.on("msg:custom", answer);
  for (const follow of [watched.picture, watched.overlay, takeLabels, showPoints, showMessage, showLayout]) follow();
  darken();

  return () => {
    for (const [trait, follow] of Object.entries(watched)) model.off(`change:${trait}`, follow);
    model.off("msg:custom", answer);
    for (const url of shown.values()) URL.revokeObjectURL(url);
  };
}

export default { render };
