// The operators' page: swaps the parts that changed, draws traffic, and asks before it acts.
// Everything comes as HTML from the server; nothing here decides what is shown.

const POINTS = 300;
const COLORS = ["#1f5fbf", "#c2571a", "#0f8a63", "#8a3ffc", "#b3141d", "#6b7280"];
const at = (id) => document.getElementById(id);
const tell = (text) => { at("told").textContent = text; };

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Gateway-Client": "page" },
    body: JSON.stringify(body),
  };
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  const text = await answer.text();
  if (!answer.ok) {
    let said = text;
    try { said = JSON.parse(text).error ?? text; } catch { /* it is no JSON */ }
    throw new Error(said.trim() || `the gateway answered ${answer.status}`);
  }
  return text;
}

// ---- parts ----

function swap(name, html) {
  const place = document.querySelector(`[data-section="${name}"]`);
  if (!place) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  const open = [...place.querySelectorAll("details[id]")].map((one) => [one.id, one.open]);
  const charts = new Map([...place.querySelectorAll(".chart")].map((one) => [one.dataset.model, one]));
  const scrolled = [...place.querySelectorAll(".scroll")].map((one) => [one.getAttribute("aria-label"), one.scrollLeft]);
  place.innerHTML = html;
  for (const [id, was] of open) { const one = at(id); if (one) one.open = was; }
  for (const one of place.querySelectorAll(".chart")) { const drawn = charts.get(one.dataset.model); if (drawn) one.replaceWith(drawn); }
  for (const [label, left] of scrolled) {
    const one = [...place.querySelectorAll(".scroll")].find((other) => other.getAttribute("aria-label") === label);
    if (one) one.scrollLeft = left;
  }
  filter(place);
  if (focused) at(focused)?.focus();
}

// Shows what is of models whose names hold the text, and hides the rest of it.
function filter(place) {
  const wanted = at("filter").value.trim().toLowerCase();
  for (const one of place.querySelectorAll("[data-of]")) one.hidden = !one.dataset.of.toLowerCase().includes(wanted);
}

// ---- traffic ----

const points = [];
const charts = new Map();

function draw(model, place) {
  const arms = [...new Set(points.flatMap((point) => point.arms.filter((arm) => arm.model === model).map((arm) => `${arm.arm || "no arm"} (${arm.version})`)))].sort();
  if (!arms.length || !window.uPlot) return;
  const data = [points.map((point) => point.at_s), ...arms.map((name) => points.map((point) => {
    const own = point.arms.find((arm) => arm.model === model && `${arm.arm || "no arm"} (${arm.version})` === name);
    return own ? own.requests : null;
  }))];
  const known = charts.get(model);
  if (known && known.place === place && known.arms.join() === arms.join() && place.isConnected) { known.plot.setData(data); return; }
  known?.plot.destroy();
  const style = getComputedStyle(document.documentElement);
  const [soft, edge] = [style.getPropertyValue("--soft").trim(), style.getPropertyValue("--edge").trim()];
  const axis = { stroke: soft, grid: { stroke: edge, width: 1 }, ticks: { stroke: edge, width: 1 } };
  const plot = new window.uPlot({
    width: place.clientWidth || 600, height: 140, cursor: { show: false }, legend: { live: false }, scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [axis, { ...axis, size: 60 }],
    series: [{}, ...arms.map((label, index) => ({ label, stroke: COLORS[index % COLORS.length], width: 2, points: { show: false } }))],
  }, data, place);
  charts.set(model, { plot, place, arms });
}

function drawAll() {
  for (const place of document.querySelectorAll(".chart")) if (!place.closest("[hidden]")) draw(place.dataset.model, place);
}

addEventListener("resize", () => {
  for (const { plot, place } of charts.values()) if (place.isConnected) plot.setSize({ width: place.clientWidth, height: 140 });
});

at("filter")?.addEventListener("input", () => { filter(at("main")); drawAll(); });

// ---- the stream ----

function follow() {
  const state = at("connection");
  const show = (word, kind) => { if (state.textContent !== word) { state.textContent = word; state.className = kind; } };
  const source = new EventSource("/page/stream");
  source.addEventListener("open", () => show("Live", "live"));
  const ended = () => source.readyState === EventSource.CLOSED; // refused: the token does not count any more
  source.addEventListener("error", () => show(ended() ? "Not let in any more: reload" : "Reconnecting…", "away"));
  source.addEventListener("section", (event) => {
    const { name, html } = JSON.parse(event.data);
    swap(name, html);
    if (name === "routes") drawAll();
  });
  source.addEventListener("points", (event) => { points.length = 0; points.push(...JSON.parse(event.data)); drawAll(); });
  source.addEventListener("point", (event) => {
    points.push(JSON.parse(event.data));
    if (points.length > POINTS) points.shift();
    drawAll();
  });
  source.addEventListener("ended", (event) => { source.close(); show(JSON.parse(event.data), "away"); });
}

// ---- actions ----

function detail(title, html) {
  at("detail-title").textContent = title;
  at("detail-body").innerHTML = html;
  at("detail").showModal();
}

const query = (path, fields) => `${path}?${new URLSearchParams(fields)}`;

const ACTIONS = {
  rollback({ model, revision }) {
    at("confirm-text").textContent = `${model} goes back from revision ${revision} to the one before, in every worker, at once.`;
    at("confirm-reason").value = "";
    const dialog = at("confirm");
    dialog.returnValue = "";
    dialog.addEventListener("close", async () => {
      if (dialog.returnValue !== "confirm") return;
      tell(`Rolling back ${model}…`);
      try {
        const body = { model, expected_revision: Number(revision), reason: at("confirm-reason").value };
        tell(JSON.parse(await ask("/page/rollback", body)).told);
      } catch (error) { tell(`Not rolled back: ${error.message}`); }
    }, { once: true });
    dialog.showModal();
  },
  async explain({ model, request }) { detail(`Request ${request}`, await ask(query("/page/explain", { model, request_id: request }))); },
  async diff({ model, from, to }) { detail(`${model}, revision ${to}`, await ask(query("/page/diff", { model, from, to }))); },
  bars({ title }, button) { detail(title, button.parentElement.querySelector("template").innerHTML); },
  async predictions() { at("rows").innerHTML = await ask("/page/predictions"); },
  async logout() { await ask("/page/logout", {}); location.reload(); },
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  try { await ACTIONS[button.dataset.action]({ ...button.dataset }, button); } catch (error) { tell(error.message); }
});

at("login")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  try { await ask("/page/login", { token: at("token").value }); location.reload(); } catch (error) { tell(error.message); }
});

if (document.querySelector("[data-section]")) follow();
