"use strict";
// What others wrote gets into the page as text only, by textContent: there is no innerHTML here, and no inline style.

const EVERY_MS = 2000, AWAY_MS = 5000, TIMEOUT_MS = 10000;
const WIDTH = 360, HEIGHT = 240, LEFT = 44, RIGHT = 10, TOP = 10, BOTTOM = 36;
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "6 3", "2 2", "8 3 2 3"];
const WHO = {known: "participants that train", new: "new participants"};
const WHEN = {before: "as it is", after: "adapted"};
const ILL = ["held", "diverged", "refused", "away", "rests"];
const SAID = {
  works: "works on it", asked: "is asked", delivered: "has delivered", waits: "waits for work", sleeps: "sleeps",
  held: "is asked no more, as what it sent did not count", diverged: "says that the model diverges",
  refused: "sent what did not count", away: "was missing when last asked", rests: "rests, as it let deadlines pass",
};
const byId = (id) => document.getElementById(id);
const moving = [];  // [element, function of the milliseconds since the status came -> text]
let tag = "", status = null, came = 0, timer = 0, asking = false;
let token = sessionStorage.getItem("edgemeta-token") || "";

function plain(text) {  // as the logs write it: what cannot be shown, or would turn the text around it, as an escape
  return String(text).replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069\ufeff]/gu,
    (letter) => "\\u" + letter.codePointAt(0).toString(16).padStart(4, "0"));
}

function make(name, attributes = {}, ...children) {
  const made = name in {svg: 0, line: 0, polyline: 0, polygon: 0, circle: 0, text: 0, title: 0}
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((child) => child instanceof Node ? child : plain(child)));
  return made;
}

function live(element, text) {
  moving.push([element, text]);
  return element;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} days`;
}

function size(bytes) {
  if (bytes === null) return "?";
  const power = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${+(bytes / 1000 ** power).toPrecision(3)}\u00a0${["bytes", "kB", "MB", "GB", "TB"][power]}`;
}

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const short = (value) => String(+value.toPrecision(3));
const list = (names) => names.slice(0, 8).join(", ") + (names.length > 8 ? ` and ${names.length - 8} more` : "");

function table(header, rows, caption) {
  const head = make("tr", {}, ...header.map((cell) => make("th", {scope: "col"}, cell)));
  const body = rows.map(([name, ...cells]) => make("tr", {}, make("th", {scope: "row"}, make("bdi", {}, name)),
    ...cells.map((cell, i) => make("td", {"data-of": header[i + 1]}, cell))));
  const said = caption ? [make("caption", {}, caption)] : [];
  const made = make("table", {}, ...said, make("thead", {}, head), make("tbody", {}, ...body));
  return make("div", {class: "wide"}, made);
}

function step(most) {
  const power = 10 ** Math.floor(Math.log10(most / 4));
  return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one * 4 >= most * (1 - 1e-9));
}

function chart(title, curves, last, marks, shares) {
  const points = curves.flatMap((curve) => curve.points);
  const highest = Math.max(...points.map((point) => point[3])) || 1;
  const across = step(last || 1), up = shares ? (highest > .5 ? .2 : .1) : step(highest);
  const top = shares ? Math.min(1, Math.ceil(highest / up) * up) : Math.ceil(highest / up - 1e-9) * up;
  const x = (round) => LEFT + round / (last || 1) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
  const at = (round, value) => `${x(round).toFixed(1)},${y(value).toFixed(1)}`;
  const said = (value, digits) => shares ? `${(100 * value).toFixed(digits)} %` : short(value);
  const parts = [];
  for (let i = 0; i * across <= last + 1e-9; i++) {
    parts.push(make("line", {class: "axis", x1: x(i * across), x2: x(i * across), y1: TOP, y2: HEIGHT - BOTTOM}),
      make("text", {x: x(i * across), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle"}, short(i * across)));
  }
  for (let i = 0; i * up <= top + 1e-9; i++) {
    parts.push(make("line", {class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(i * up), y2: y(i * up)}),
      make("text", {x: LEFT - 6, y: y(i * up) + 4, "text-anchor": "end"}, said(i * up, 0)));
  }
  for (const mark of marks) {
    parts.push(make("line", {class: "phase", x1: x(mark.round), x2: x(mark.round), y1: TOP, y2: HEIGHT - BOTTOM},
      make("title", {}, `${mark.name} begins`)));
    const side = x(mark.round) > WIDTH / 2 ? {x: x(mark.round) - 3, "text-anchor": "end"} : {x: x(mark.round) + 3};
    parts.push(make("text", {...side, y: TOP + 10}, mark.name));
  }
  curves.forEach((curve, i) => {
    if (!curve.points.length) return;
    if (curve.points.some((point) => point[2] !== point[3])) {
      const band = curve.points.map((p) => at(p[0], p[3])).concat(curve.points.map((p) => at(p[0], p[2])).reverse());
      parts.push(make("polygon", {class: `band fill c${i}`, points: band.join(" ")}));
    }
    const line = curve.points.map((point) => at(point[0], point[1]));
    parts.push(make("polyline", {class: `line c${i}`, "stroke-dasharray": DASHES[i], points: line.join(" ")}));
    for (const [cx, cy] of line.map((one) => one.split(","))) parts.push(make("circle", {class: `fill c${i}`, cx, cy, r: 2.2}));
  });
  const ends = curves.filter((curve) => curve.points.length)
    .map((curve) => `${curve.name} ends at ${said(curve.points.at(-1)[1], 1)}`);
  parts.push(make("text", {x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end"}, "rounds"));
  return make("figure", {}, make("figcaption", {}, title),
    make("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": plain(`${title}: ${ends.join("; ")}`)}, ...parts));
}

function curve(who, when, metric) {
  const points = [];
  for (const score of status.curves.scores) {
    const spread = score[who]?.[when]?.[metric];
    if (spread) points.push([score.round, ...spread]);
  }
  return {name: WHEN[when], points};
}

function chanceOf(score, who) {
  return score[who]?.chance ?? (status.classes ? 1 / status.classes : null);
}

function showScores() {
  const {losses, scores} = status.curves, charts = [], tables = [];
  const last = Math.max(losses.at(-1)?.[0] ?? 0, scores.at(-1)?.round ?? 0);
  const marks = phases().slice(1).filter((phase) => phase.round <= last);
  for (const metric of ["accuracy", "loss"]) {
    for (const who of Object.keys(WHO)) {
      const found = [curve(who, "before", metric), curve(who, "after", metric)];
      if (!found.some((one) => one.points.length)) continue;
      const level = {name: "chance", points: []}, training = {name: "in training", points: []};
      if (metric === "accuracy") {
        const levels = scores.map((score) => [score.round, chanceOf(score, who)]).filter((pair) => pair[1] !== null);
        level.points = levels.map(([round, share]) => [round, share, share, share]);
      } else if (who === "known") {
        training.points = losses.map(([round, loss]) => [round, loss, loss, loss]);
      }
      charts.push(chart(`${metric}, ${WHO[who]}`, [...found, level, training], last, marks, metric === "accuracy"));
    }
  }
  for (const who of Object.keys(WHO)) {
    const columns = ["accuracy", "loss"].flatMap((metric) => ["before", "after"].map((when) => [metric, when]))
      .filter(([metric, when]) => curve(who, when, metric).points.length);
    const rows = scores.filter((score) => score[who]).map((score) => [score.round, ...columns.map(([metric, when]) => {
      const spread = score[who][when]?.[metric];
      if (!spread) return "";
      const [mean, low, high] = spread.map((one) => metric === "accuracy" ? percent(one) : short(one));
      return `${mean} (${low} to ${high})`;
    })]);
    const header = ["round", ...columns.map(([metric, when]) => `${metric} ${WHEN[when]}`)];
    if (rows.length) tables.push(table(header, rows, `${WHO[who]}: mean, and the 10th and 90th percentile`));
  }
  if (losses.length) tables.push(table(["round", "loss in training"], losses.map(([round, loss]) => [round, short(loss)])));
  const names = ["as it is", "adapted", "chance", "in training"].map((name, i) => make("li", {},
    make("svg", {viewBox: "0 0 32 12", "aria-hidden": "true"},
      make("line", {class: `line c${i}`, x1: 0, x2: 32, y1: 6, y2: 6, "stroke-dasharray": DASHES[i]})), ` ${name}`));
  byId("key").replaceChildren(charts.length ? make("ul", {class: "key"}, ...names) : make("p", {class: "soft"},
    "No round has been scored yet."));
  byId("charts").replaceChildren(...charts);
  byId("numbers").replaceChildren(...tables);
}

function phases() {
  let round = 1;
  return status.phases.map((phase) => {
    const begins = {...phase, round};
    round += phase.rounds;
    return begins;
  });
}

function showState() {
  const over = status.stage === "over", of = status.last_round === null ? "" : ` of ${status.last_round}`;
  const asked = status.cohort.length, phase = phases().filter((one) => one.round <= status.round).at(-1);
  const doing = {train: "training", evaluate: "scoring the model", over: "the run is over"}[status.stage];
  const where = `Round ${over ? status.round - 1 : status.round}${of}, ${doing}`;
  const what = over ? where : asked ? `${where}: ${status.delivered} of ${asked} devices have delivered` :
    `Waits: ${status.waiting_for}`;
  byId("run").textContent = plain(`run ${status.run}`);
  if (byId("state").textContent !== plain(what)) byId("state").textContent = plain(what);
  byId("delivered").hidden = !asked;
  byId("delivered").max = asked || 1;
  byId("delivered").value = status.delivered;
  live(byId("left"), (ms) => [asked && phase ? `${phase.name}, ${phase.algorithm}` : "",
    status.seconds_left === null ? "" : `${duration(Math.max(0, status.seconds_left - ms / 1000))} until the deadline`]
    .filter(Boolean).join("; "));
  byId("missing").textContent = plain(status.missing.length ? `Missing: ${list(status.missing)}` : "");
  document.title = plain(`${over ? "over" : `round ${status.round}${of}`} · edgemeta run ${status.run}`);
}

function showFigures() {
  const score = status.curves.scores.at(-1), loss = status.curves.losses.at(-1), figures = [];
  for (const who of Object.keys(WHO)) {
    const means = ["before", "after"].map((when) => score?.[who]?.[when]?.accuracy?.[0]).filter((one) => one !== undefined);
    const chance = score ? chanceOf(score, who) : null, level = chance === null ? "" : `, chance ${percent(chance)}`;
    if (means.length) figures.push([`Accuracy, ${WHO[who]}${level}`, means.map(percent).join(" → ")]);
  }
  if (loss) figures.push([`Loss in training, round ${loss[0]}`, short(loss[1])]);
  figures.push(["Devices", `${status.joined}${status.participants ? ` of ${status.participants}` : ""} joined`]);
  figures.push(["Model", `${status.model}, ${status.parameters.toLocaleString("en")} numbers`]);
  if (status.certificate) figures.push(["Certificate", `good for ${status.certificate.days_left} days`,
    status.certificate.days_left < 60]);
  if (status.connections) figures.push(["Connections", `${status.connections.now} of ${status.connections.most}`]);
  figures.push(["Sent, received", `${size(status.bytes_down)}, ${size(status.bytes_up)}`]);
  figures.push(["Memory", size(status.memory_bytes)]);
  figures.push(["Free on the disk", size(status.disk_free_bytes), status.disk_free_bytes !== null && status.disk_free_bytes < 1e8]);
  const made = figures.map(([name, value, bad]) =>
    make("div", {}, make("dt", {}, name), make("dd", bad ? {class: "bad"} : {}, value)));
  const up = live(make("dd"), (ms) => duration(status.uptime_s + ms / 1000));
  byId("figures").replaceChildren(...made, make("div", {}, make("dt", {}, "Running for"), up));
}

function counts(of) {
  return Object.entries(of).map(([word, count]) => `${word} ${count}`).join(", ");
}

function right(accuracy) {
  return ["before", "after"].map((when) => accuracy?.[when] ?? null).filter((one) => one !== null).map(percent).join(" → ") || "–";
}

function showDevices() {
  const copied = new Set(status.copied), own = status.devices.some((device) => "classes" in device);
  const header = ["device", "heard", "does", "accuracy", "counted in round", "refused", ...(own ? ["classes"] : []),
    "sent, received", "participant"];
  const ill = (device) => ILL.includes(device.doing) || copied.has(device.name);
  const sorted = [...status.devices].sort((one, other) => ill(other) - ill(one) || one.participant - other.participant);
  const rows = sorted.map((device) => {
    const wakes = status.wakes[device.name], words = [SAID[device.doing] ?? device.doing];
    if (wakes) words.push(`wakes every ${duration(wakes)}`);
    if (copied.has(device.name)) words.push("is two boards with one card");
    const heard = device.heard_s === null ? "not since the start" :
      live(make("span"), (ms) => `${duration(device.heard_s + ms / 1000)} ago`);
    return [device.name, heard, make("span", ill(device) ? {class: "bad"} : {}, (ill(device) ? "⚠ " : "") + words.join("; ")),
      right(device.accuracy), device.counted || "–", counts(device.refusals) || "–", ...(own ? [device.classes ?? "?"] : []),
      device.bytes_up + device.bytes_down ? `${size(device.bytes_up)}, ${size(device.bytes_down)}` : "–", `${device.participant}${device.trains ? "" : ", new"}`];
  });
  const made = rows.length ? table(header, rows) : make("p", {}, "No device has joined yet.");
  if (rows.length > 20) {
    for (const [key, value] of [["class", "wide tall"], ["tabindex", 0], ["role", "region"], ["aria-labelledby", "h-devices"]]) {
      made.setAttribute(key, value);
    }
  }
  const scrolled = byId("devices").firstElementChild?.scrollTop ?? 0;
  const focused = byId("devices").contains(document.activeElement);
  byId("devices").replaceChildren(made);
  made.scrollTop = scrolled;
  if (focused) made.focus();
}

function showRest() {
  const refused = Object.entries(status.refusals).map(([word, count]) => [word, "refused", count]);
  const failed = Object.entries(status.errors).map(([word, count]) => [word, "failed unexpectedly; the log says where", count]);
  const rows = [...failed, ...refused.sort((one, other) => other[2] - one[2])];
  byId("refused").replaceChildren(rows.length ? table(["what", "", "times since the start"], rows) : make("p", {}, "Nothing."));
  const runs = status.earlier.map((one) => [one.run, one.state, `${one.round}${one.last_round === null ? "" : ` of ${one.last_round}`}`,
    one.model, one.algorithms.join(", then ")]).reverse();
  byId("earlier").replaceChildren(runs.length ? table(["run", "state", "rounds", "model", "algorithms"], runs) :
    make("p", {}, "None."));
  byId("about").textContent = plain(`edgemeta ${status.version}, protocol ${status.protocol}`);
}

function showNext() {
  const commands = [], held = status.held[0], at = `--state ${quoted(status.site)}`;
  if (status.stage === "over") {
    commands.push(["Begin another run for these devices", `edgemeta run new --config RUN.toml --from latest ${at}`]);
    commands.push(["Have this one go on for longer", `edgemeta run extend --rounds 10 ${at}`]);
  } else {
    commands.push(["End this run as it is", `edgemeta run stop ${at}`]);
  }
  commands.push(status.tokens ? ["Let another device take part", `edgemeta enroll NAME ${at}`] :
    ["Have another device take part", `edgemeta client --server ${location.origin} --name NAME --data PICTURES`]);
  if (held !== undefined) commands.push([`Ask ${held} again`, `edgemeta devices release ${quoted(held)} ${at}`]);
  commands.push(["Keep what there is of this run as a page", `edgemeta report ${quoted(status.site)}`]);
  if (byId("next").dataset.shown === JSON.stringify(commands)) return;  // a button that has the focus stays
  byId("next").dataset.shown = JSON.stringify(commands);
  byId("next").replaceChildren(...commands.map(([why, command]) => {
    const code = make("code", {}, command), button = make("button", {type: "button", "aria-label": plain(`Copy: ${command}`)}, "Copy");
    button.addEventListener("click", () => copy(code, button));
    return make("li", {}, why, make("div", {class: "command"}, code, button));
  }));
}

function quoted(name) {  // for a shell
  return /^[\w./-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {  // which takes TLS from elsewhere: marked, it is one key away
    getSelection().selectAllChildren(code);
    button.textContent = "Marked";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

function show() {
  moving.length = 0;
  settled();
  byId("access").hidden = true;
  byId("main").hidden = false;
  for (const part of [showState, showFigures, showScores, showDevices, showRest, showNext]) part();
}

function notice(text) {
  byId("notice").textContent = plain(text);
  byId("notice").hidden = !text;
}

function settled() {
  const old = status.version !== document.documentElement.dataset.version;
  notice(old ? "The gateway is another version than this page: load it again." : "");
}

function tick() {
  for (const [element, text] of moving) element.textContent = plain(text(performance.now() - came));
}

function ask(said) {
  byId("main").hidden = true;
  byId("access").hidden = false;
  byId("state").textContent = "";
  notice(token ? said : "");
  token = "";
  sessionStorage.removeItem("edgemeta-token");
}

async function poll() {
  if (asking) return;
  clearTimeout(timer);
  asking = true;
  let next = EVERY_MS;
  const sent = token;
  try {
    const headers = {...(tag && {"If-None-Match": tag}), ...(sent && {Authorization: `Bearer ${sent}`})};
    const answer = await fetch("/status.json", {headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS)});
    if (answer.status === 200) {
      status = await answer.json();
      [tag, came] = [answer.headers.get("ETag") ?? "", performance.now()];
      show();
    } else if (answer.status === 403 || answer.status === 401) {
      const refusal = await answer.json();
      if (refusal.error !== "operator-only") notice(`The gateway refuses: ${refusal.detail}`);
      else if (token === sent) return ask("This is not the operator's token.");
      else next = 0; // another one was entered meanwhile
    } else if (answer.status === 304) {
      settled();
    } else {
      notice(`The gateway answers ${answer.status}; asking again.`);
    }
  } catch {
    const shown = status ? `; what is shown is of ${duration((performance.now() - came) / 1000)} ago` : "";
    notice(`The gateway does not answer${shown}. Asking again.`);
    next = AWAY_MS;
  } finally {
    asking = false;
  }
  tick();
  if (!document.hidden) timer = setTimeout(poll, next);
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  sessionStorage.setItem("edgemeta-token", token);
  poll();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
setInterval(() => { if (!document.hidden) tick(); }, 1000);
poll();
