"use strict";
// Whatever a name holds, it is shown as text: nothing here makes HTML of it.
const SIDE = 512; // pixels of the longer side that are sent; the device keeps fewer
const EVERY_MS = 10000; // between two looks at what the device knows
const SURE_MS = 5000; // for which a second press removes
const LIVE_MS = 500; // between two guesses of the live view
const HOLD_MS = 250; // between two pictures while the button is held
const MOST_HELD = 20; // pictures of one hold: more of the same teach nothing

const at = (id) => document.getElementById(id);
let shown = ""; // the state that the page shows
let waiting = []; // pictures that have no name yet
let knows = false; // whether there is anything that it could answer

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function percent(chance) {
  return `${Math.round(100 * chance)} %`;
}

function pictureOf(file, alt) {
  return make("img", "", { src: `/picture?${new URLSearchParams({ file })}`, alt, loading: "lazy" });
}

async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, body === undefined ? {} : { method: "POST", body });
  } catch {
    throw new Error("The device does not answer. Is it still running?");
  }
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) openPairing();
  if (!answer.ok) throw new Error(said.detail || `The device answered ${answer.status}.`);
  return said;
}

function openPairing() {
  at("pairing").hidden = false;
  at("open").hidden = true;
}

// A picture of a phone is far larger than what the device looks at. One that the browser cannot read goes as it is.
async function smaller(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file;
  }
  const scale = SIDE / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return (await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9))) || file;
}

function preview(file, alt) {
  const image = make("img", "", { alt });
  image.src = URL.createObjectURL(file);
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  return image;
}

function show(state) {
  const text = JSON.stringify(state);
  if (text === shown) return;
  shown = text;
  at("pairing").hidden = true;
  at("open").hidden = false;
  at("name").textContent = state.name;
  document.title = `Teach ${state.name}`;
  const notice = at("notice");
  notice.textContent = noticeOf(state);
  notice.hidden = !notice.textContent;
  for (const field of at("teach").querySelectorAll("input, button")) field.disabled = Boolean(state.not_teachable);
  knows = state.classes.length > 0;
  at("hold").hidden = Boolean(state.not_teachable);
  at("board-start").hidden = !state.camera || Boolean(live);
  at("known").replaceChildren(...state.held.map((one) => make("option", "", { value: one.label })));
  at("none").hidden = state.held.length > 0 || state.classes.length > 0;
  const others = state.classes.filter((name) => !state.held.some((one) => one.label === name));
  at("held").replaceChildren(...state.held.map(entry), ...others.map((name) => make("li", name)));
}

function noticeOf(state) {
  if (state.not_teachable) return `This device cannot be taught here: ${state.not_teachable}`;
  if (!state.held.length) return "";
  if (!state.classes.length) {
    return "No embedding has come to this device yet, so it knows nothing. What you teach it is kept, and counts as soon as one has.";
  }
  const later = state.held.filter((one) => !state.classes.includes(one.label)).map((one) => one.label);
  if (later.length) return `Kept, and counting as soon as a new embedding has come: ${later.join(", ")}.`;
  if (state.classes.length === 1) return `It knows one thing, so every picture is “${state.classes[0]}” to it. Teach it a second one.`;
  return "";
}

function entry(one) {
  const item = make("li");
  const head = make("div", "", { class: "head" });
  const title = make("p");
  title.append(make("b", one.label), make("span", ` ${one.count} ${one.count === 1 ? "picture" : "pictures"}`, { class: "soft" }));
  head.append(title);
  if (one.own) {
    const acts = make("div");
    acts.append(renamer(one, head), remover(one));
    head.append(acts);
  }
  const files = make("div", "", { class: "pictures" });
  files.append(...one.files.map((file) => pictureOf(file, one.label)));
  if (one.count > one.files.length) files.append(make("span", `and ${one.count - one.files.length} more`, { class: "soft" }));
  item.append(head, files);
  return item;
}

function renamer(one, head) {
  const button = make("button", "Rename", { class: "quiet", type: "button", "aria-label": `Rename ${one.label}` });
  button.addEventListener("click", () => {
    const form = make("form");
    const name = make("input", "", { value: one.label, maxlength: 60, autocomplete: "off", "aria-label": `New name of ${one.label}`, required: "" });
    form.append(name, make("button", "Save"));
    const before = [...head.childNodes];
    head.replaceChildren(form);
    name.select();
    const back = () => {
      head.replaceChildren(...before);
      button.focus();
    };
    form.addEventListener("keydown", (event) => event.key === "Escape" && back());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const called = name.value.trim();
      if (called === one.label) return back();
      try {
        const state = await ask(`/rename?${new URLSearchParams({ label: one.label, name: called })}`, "");
        say("teach-said", `“${one.label}” is called “${called}”.`);
        show(state);
        at("held-title").focus();
      } catch (error) {
        say("teach-said", error.message);
        back();
      }
    });
  });
  return button;
}

function remover(one) {
  const button = make("button", "Remove", { class: "quiet", type: "button", "aria-label": `Remove ${one.label}` });
  let sure = false;
  const rest = () => {
    sure = false;
    button.textContent = "Remove";
    button.classList.remove("sure");
    button.setAttribute("aria-label", `Remove ${one.label}`);
  };
  button.addEventListener("click", async () => {
    if (!sure) {
      sure = true;
      button.textContent = `Press again to forget`;
      button.classList.add("sure");
      button.setAttribute("aria-label", `Press again to forget ${one.label}`);
      setTimeout(rest, SURE_MS);
      return;
    }
    button.disabled = true;
    try {
      show(await ask(`/forget?${new URLSearchParams({ label: one.label })}`, ""));
      say("teach-said", `“${one.label}” is forgotten.`);
      at("held-title").focus();
    } catch (error) {
      button.disabled = false;
      say("teach-said", error.message);
    }
  });
  return button;
}

function say(id, text) {
  at(id).textContent = text;
}

async function busy(element, work) {
  element.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    element.removeAttribute("aria-busy");
  }
}

async function teach() {
  const label = at("label").value.trim();
  at("waiting").replaceChildren(...waiting.map((file) => preview(file, "a picture that has no name yet")));
  at("teach-now").hidden = !waiting.length;
  if (!waiting.length) return say("teach-said", "Take or choose a picture of it.");
  if (!label) {
    at("label").focus();
    return say("teach-said", "What is it called? Write its name, and it counts.");
  }
  const all = waiting.length;
  let state, done = 0, failed = "";
  for (const file of waiting) {
    say("teach-said", `Teaching ${done + 1} of ${all} …`);
    try {
      state = await ask(`/learn?${new URLSearchParams({ label })}`, await smaller(file));
      done += 1;
    } catch (error) {
      failed = error.message;
    }
  }
  waiting = [];
  at("waiting").replaceChildren();
  at("teach-now").hidden = true;
  if (state) show(state);
  const many = done === 1 ? "1 picture" : `${done} pictures`;
  say("teach-said", [done ? `Learned ${many} of “${label}”.` : "", failed].join(" ").trim());
}

async function attempt(file) {
  const result = at("result");
  result.replaceChildren(make("p", "Looking …", { class: "soft" }));
  const picture = await smaller(file);
  const tried = make("div", "", { class: "tried" });
  const text = make("p");
  tried.append(preview(picture, "the picture that was tried"), text);
  try {
    const seen = await ask("/try", picture);
    const named = make("strong", seen.unlike ? "none of these" : seen.answer[0].label);
    const chance = percent(seen.answer[0].chance);
    text.append(named, make("span", seen.unlike ? `most like ${seen.answer[0].label}` : `with a confidence of ${chance}`));
    result.replaceChildren(tried, chances(seen.answer), ...nearest(seen.nearest));
  } catch (error) {
    text.textContent = error.message;
    result.replaceChildren(tried);
  }
}

function chances(answer) {
  const list = make("dl", "", { class: "chances" });
  for (const { label, chance } of answer) {
    const bar = make("dd");
    bar.append(make("meter", "", { value: chance, min: 0, max: 1, "aria-hidden": "true" }));
    list.append(make("dt", label), bar, make("dd", percent(chance), { class: "number" }));
  }
  return list;
}

function nearest(found) {
  if (!found.length) return [];
  const row = make("div", "", { class: "pictures" });
  for (const { label, file } of found) {
    const figure = make("figure");
    figure.append(pictureOf(file, ""), make("figcaption", label));
    row.append(figure);
  }
  return [make("h3", "Compared with, the nearest first"), row];
}

// The live view: a picture at a time is sent, so that a slow board is asked as often as it can answer, and no more.
let live = null; // how to get a picture of it, and how to end it
let pressed = false, owed = false; // whether the button is held, and whether its press has given no picture yet
let taught = 0, turning = false, timer = 0;

async function startBrowser() {
  if (!navigator.mediaDevices) throw new Error("A browser gives its camera to encrypted pages only, and on the device’s own machine.");
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640, height: 480 } });
  const video = at("video");
  video.srcObject = stream;
  await video.play();
  const canvas = document.createElement("canvas");
  const grab = () => {
    const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.max(1, Math.round(video.videoWidth * scale));
    canvas.height = Math.max(1, Math.round(video.videoHeight * scale));
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  };
  const stop = () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
  return { grab, stop };
}

async function startBoard() {
  const video = at("video");
  const image = make("img", "", { id: "frame", alt: "what the board’s camera sees" });
  const grab = async () => {
    const answer = await fetch("/frame").catch(() => { throw new Error("The device does not answer. Is it still running?"); });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    const frame = await answer.blob();
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(frame);
    return frame;
  };
  const stop = () => {
    URL.revokeObjectURL(image.src);
    image.replaceWith(video);
  };
  video.replaceWith(image);
  return { grab, stop };
}

async function startLive(start) {
  try {
    live = await start();
  } catch (error) {
    return say("live-said", error.name === "NotAllowedError" ? "The browser was not allowed to use its camera." : error.message);
  }
  say("live-said", "");
  showLive();
  at("live-stop").focus();
  turn();
}

function stopLive() {
  live?.stop();
  live = null;
  release();
  showLive();
  shown = ""; // the board's camera may be started again
  look();
}

function showLive() {
  at("live").hidden = at("live-stop").hidden = !live;
  at("live-start").hidden = Boolean(live);
  if (live) at("board-start").hidden = true;
  at("guess").replaceChildren();
  nameHold();
}

function nameHold() {
  const label = at("label").value.trim();
  at("hold").textContent = label ? `Hold to teach “${label}”` : "Write a name above, and hold this to teach it";
}

function press() {
  if (pressed || !live) return;
  if (!at("label").value.trim()) return setTimeout(() => at("label").focus()); // when the press itself has had its effect
  [pressed, owed, taught] = [true, true, 0];
  at("hold").classList.add("pressed");
  turn();
}

function release() {
  pressed = false;
  at("hold").classList.remove("pressed");
}

async function turn() {
  if (turning || !live) return;
  clearTimeout(timer);
  turning = true;
  const began = performance.now();
  try {
    if (!document.hidden) await oneTurn(await live.grab());
  } catch (error) {
    say("live-said", error.message);
    release();
  }
  turning = false;
  timer = setTimeout(turn, Math.max(0, (pressed ? HOLD_MS : LIVE_MS) - (performance.now() - began)));
}

async function oneTurn(picture) {
  const label = at("label").value.trim();
  if ((pressed || owed) && taught < MOST_HELD) {
    owed = false;
    show(await ask(`/learn?${new URLSearchParams({ label })}`, picture));
    taught += 1;
    say("live-said", `Learned ${taught === 1 ? "1 picture" : `${taught} pictures`} of “${label}”.`);
  } else if (knows) {
    const [first] = (await ask("/try", picture)).answer;
    if (live) at("guess").replaceChildren(make("strong", first.label), `with a confidence of ${percent(first.chance)}`);
  }
}

async function look() {
  try {
    show(await ask("/state.json"));
  } catch (error) {
    if (!at("pairing").hidden) return;
    shown = "";
    at("notice").textContent = error.message;
    at("notice").hidden = false;
  }
}

at("held-title").tabIndex = -1;
at("teach").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(at("teach"), teach);
});
for (const input of at("teach").querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    waiting.push(...input.files);
    input.value = "";
    busy(at("teach"), teach);
  });
}
for (const input of at("try").querySelectorAll("input")) {
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = "";
    if (file) busy(at("try"), () => attempt(file));
  });
}
at("live-start").addEventListener("click", () => startLive(startBrowser));
at("board-start").addEventListener("click", () => startLive(startBoard));
at("live-stop").addEventListener("click", stopLive);
at("label").addEventListener("input", nameHold);
at("hold").addEventListener("pointerdown", (event) => {
  at("hold").setPointerCapture(event.pointerId);
  press();
});
for (const end of ["pointerup", "pointercancel", "blur"]) at("hold").addEventListener(end, release);
at("hold").addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a phone
at("hold").addEventListener("keydown", (event) => {
  if (event.key !== " " && event.key !== "Enter") return;
  event.preventDefault();
  press();
});
at("hold").addEventListener("keyup", release);

async function pair(code) {
  try {
    await ask("/pair", code);
    say("pair-said", "");
  } catch (error) {
    openPairing();
    say("pair-said", error.message);
  }
}

async function begin() {
  const scanned = location.hash.slice(1); // which the browser tells nobody
  if (scanned) {
    history.replaceState(null, "", location.pathname);
    await pair(scanned);
  }
  await look();
}

at("pair").addEventListener("submit", async (event) => {
  event.preventDefault();
  await pair(at("code").value);
  await look();
});
setInterval(() => document.hidden || !at("pairing").hidden || look(), EVERY_MS);
begin();
