"use strict";

const KINDS = ["plain", "residual"];
const DEPTHS = {
    dense: Array.from({ length: 27 }, (_, i) => 4 + 2 * i),
    conv: [8, 14, 20],
};
const TOUR = { dense: [4, 8, 14, 20, 32, 44, 56], conv: [8, 14, 20] };
/** The values that each setting may have. */
const CHOICES = {
    layers: ["dense", "conv"],
    width: [8, 16, 32, 64, 128],
    optimizer: ["momentum", "sgd", "adam", "rmsprop"],
    lr: [0.0003, 0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3, 1],
    epochs: [5, 10, 15, 30, 60],
    seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    norm: [true, false],
    alpha: Array.from({ length: 21 }, (_, i) => i / 20),
};
/** The values that a setting may have with these layers. Wide convolutions take seconds per step. */
const choices = (name, layers) =>
    name === "depth" ? DEPTHS[layers] : name === "width" && layers === "conv" ? [8, 16, 32] : CHOICES[name] ?? [];
/** The defaults with these layers and this optimizer. */
const defaults = (layers, optimizer) => ({
    layers,
    depth: DEPTHS[layers].at(-1),
    width: layers === "conv" ? 8 : 64,
    alpha: 1,
    optimizer,
    lr: { momentum: 0.05, sgd: 0.1, adam: 0.001, rmsprop: 0.001 }[optimizer],
    epochs: 15,
    seed: 0,
    norm: true,
});
const KIND_NAMES = { plain: "Plain", residual: "Residual" };
const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const QUARTERS = [0, 0.25, 0.5, 0.75, 1];

// ---- Settings, and their place in the address --------------------------------------------------------------------

let settings = defaults("dense", "momentum");

/** Reads the settings in the address. What it cannot read keeps its default, and is said. */
function readAddress() {
    const hash = location.hash.slice(1);
    const given = new Map();
    const bad = [];
    for (const pair of hash.split("&").filter(Boolean)) {
        const [name, ...value] = pair.split("=");
        given.set(name, value.join("="));
    }
    const known = (name, layers) => {
        const text = given.get(name);
        return Object.hasOwn(settings, name) ? choices(name, layers).find((value) => String(value) === text) : undefined;
    };
    const layers = known("layers") ?? "dense";
    settings = defaults(layers, known("optimizer") ?? "momentum");
    for (const [name, text] of given) {
        const value = known(name, layers);
        if (value === undefined) bad.push(`${name}=${text}`);
        else settings[name] = value;
    }
    if (bad.length > 0) notice(`The address has settings that do not exist, and the defaults are used: ${bad.join(", ").slice(0, 200)}`);
}

function writeAddress() {
    const usual = { ...defaults(settings.layers, settings.optimizer), layers: "dense", optimizer: "momentum" };
    const changed = Object.keys(settings).filter((name) => settings[name] !== usual[name]);
    const hash = changed.map((name) => `${name}=${settings[name]}`).join("&");
    try {
        history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    } catch {
        // Some browsers limit how often the address may change. It is not needed to train.
    }
}

/** Fills the list of a setting's choices. */
function offer(name) {
    $(name).replaceChildren(...choices(name, settings.layers).map((value) => new Option(String(value))));
}

function showSettings() {
    const depths = DEPTHS[settings.layers];
    Object.assign($("depth"), { min: 0, max: depths.length - 1, step: 1 });
    $("depth").value = depths.indexOf(settings.depth);
    $("depth").setAttribute("aria-valuetext", `${settings.depth} layers`);
    $("depth-value").value = settings.depth;
    $("alpha").value = settings.alpha;
    $("alpha-value").value = settings.alpha;
    offer("width");
    for (const name of ["layers", "width", "optimizer", "lr", "epochs", "seed"]) $(name).value = String(settings[name]);
    $("norm").checked = settings.norm;
}

/** The settings that the points of the figure have in common. */
const signature = (settings) => JSON.stringify({ ...settings, depth: 0 });

function notice(text) {
    $("notice").textContent = text;
}

// ---- The twins ---------------------------------------------------------------------------------------------------

/** Each twin trains in a worker of its own. */
class Twin {
    constructor(kind, url, wasm) {
        Object.assign(this, { kind, url, wasm, worker: null });
        this.start();
    }

    /** Starts a training with the settings of the page. */
    start() {
        this.run = ++runs;
        this.settings = { ...settings };
        Object.assign(this, { step: 0, steps: 0, losses: [], smooth: null, errors: [], gradients: [], activations: [], state: "ready", answer: null });
        if (!this.worker) this.open();
        const { layers: family, depth, width, alpha, norm, optimizer, lr, seed, epochs } = this.settings;
        const own = { kind: this.kind, family, depth, width, alpha, norm, optimizer, lr, seed, epochs };
        this.worker.postMessage({ type: "start", settings: own, run: this.run });
    }

    open() {
        this.worker = new Worker(this.url);
        this.worker.onmessage = ({ data }) => this.hear(data);
        this.worker.onerror = (event) => {
            event.preventDefault();
            this.fail(event.message || "out of memory");
        };
        this.worker.postMessage({ type: "load", wasm: this.wasm });
    }

    /** A program that has failed cannot be used again. The next training gets a new worker. */
    fail(reason) {
        this.worker.terminate();
        this.worker = null;
        this.end(`stopped: ${reason}`);
    }

    hear(data) {
        if (data.type === "failed") {
            this.fail(data.reason);
        } else if (data.run !== this.run) {
            return; // Of a training before this one.
        } else if (data.type === "started") {
            this.steps = data.steps;
        } else if (data.type === "answer") {
            this.answer = data.probabilities;
        } else {
            this.took(data);
        }
        changed();
    }

    took(data) {
        this.step = data.step;
        this.gradients = data.gradients ?? this.gradients;
        this.activations = data.activations ?? this.activations;
        if (data.diverged) {
            this.end("stopped: the loss is NaN or infinite");
            return;
        }
        this.smooth = this.smooth === null ? data.loss : 0.9 * this.smooth + 0.1 * data.loss;
        this.losses.push([data.step, this.smooth]);
        if (data.error !== null) {
            this.errors.push([data.step, data.error]);
            predict();
        }
        if (data.ended) {
            points.push({ of: signature(this.settings), kind: this.kind, depth: this.settings.depth, error: data.error });
            this.end("finished");
        }
    }

    end(state) {
        this.state = state;
        if (haveEnded()) ended();
        changed();
    }

    hasEnded() {
        return this.state !== "ready";
    }

    words() {
        const name = `${KIND_NAMES[this.kind]} net, ${this.settings.depth} layers: `;
        if (this.state.startsWith("stopped")) return `${name}${this.state} at step ${this.step}`;
        if (this.steps === 0) return `${name}starting`;
        const error = this.errors.length > 0 ? `, training error ${percent(this.errors.at(-1)[1])}` : "";
        const loss = this.smooth === null ? "" : `, loss ${this.smooth.toPrecision(3)}`;
        return `${name}${this.state === "finished" ? "finished, " : ""}step ${this.step} of ${this.steps}${loss}${error}`;
    }
}

const twins = {};
const points = [];
let runs = 0;
let running = false;
/** The depths that are still to be trained one after the other; `null` if only one is. */
let tour = null;
let next = 0;

const haveEnded = () => KINDS.every((kind) => twins[kind]?.hasEnded());
const all = (type) => KINDS.forEach((kind) => twins[kind].hasEnded() || twins[kind].worker.postMessage({ type }));

function setRunning(now) {
    running = now;
    $("start").textContent = now ? "Pause" : "Start";
    all(now && !document.hidden ? "run" : "pause");
}

/** Starts both trainings anew, once their programs are there. */
function reset(run) {
    if (!twins.residual) return;
    KINDS.forEach((kind) => twins[kind].start());
    setRunning(run);
    predict();
    changed();
}

/** Both trainings have ended. */
function ended() {
    const goOn = running;
    setRunning(false);
    if (!tour?.length) {
        stopTour();
        return;
    }
    // Both twins have to hear that they ended first.
    next = setTimeout(() => {
        settings.depth = tour.shift();
        showSettings();
        writeAddress();
        reset(goOn);
    });
}

function startTour() {
    tour = [...TOUR[settings.layers]];
    settings.depth = tour.shift();
    $("tour").textContent = "Stop after this depth";
    showSettings();
    writeAddress();
    reset(true);
}

function stopTour() {
    clearTimeout(next);
    tour = null;
    $("tour").textContent = "Train all depths";
}

// ---- Charts ------------------------------------------------------------------------------------------------------

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

/** A canvas with axes. Both axes take numbers, y maybe by logarithms. */
class Chart {
    constructor(id) {
        this.canvas = $(id);
        this.context = this.canvas.getContext("2d");
    }

    /** Clears the chart and draws axes for these ranges, with a label for each mark. */
    axes([left, right], [low, high], marksX, marksY, isLog = false) {
        const { canvas, context } = this;
        const [width, height] = [canvas.clientWidth, canvas.clientHeight];
        const ratio = devicePixelRatio || 1;
        if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
        if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.clearRect(0, 0, width, height);
        const [x0, x1, y0, y1] = [48, width - 12, height - 24, 10];
        const scale = isLog ? Math.log10 : (v) => v;
        this.x = (v) => x0 + ((v - left) / (right - left || 1)) * (x1 - x0);
        this.y = (v) => y0 + ((scale(Math.min(Math.max(v, low), high)) - scale(low)) / (scale(high) - scale(low) || 1)) * (y1 - y0);
        this.bottom = y0;
        context.font = "12px system-ui, sans-serif";
        context.fillStyle = color("faint");
        context.strokeStyle = color("line");
        context.lineWidth = 1;
        context.textBaseline = "middle";
        context.textAlign = "right";
        for (const [value, text] of marksY) {
            const y = Math.round(this.y(value)) + 0.5;
            context.beginPath();
            context.moveTo(x0, y);
            context.lineTo(x1, y);
            context.stroke();
            context.fillText(text, x0 - 6, y);
        }
        context.textAlign = "center";
        context.textBaseline = "top";
        for (const [value, text] of marksX) context.fillText(text, this.x(value), y0 + 6);
    }

    line(kind, path) {
        const { context } = this;
        context.strokeStyle = color(kind);
        context.lineWidth = 2;
        context.setLineDash(kind === "plain" ? [6, 3] : []);
        context.beginPath();
        // Not more points than pixels.
        const stride = Math.max(1, Math.floor(path.length / 1000));
        path.forEach(([x, y], i) => {
            if (i % stride === 0 || i === path.length - 1) context.lineTo(this.x(x), this.y(y));
        });
        context.stroke();
        context.setLineDash([]);
    }

    dot(kind, x, y) {
        const { context } = this;
        context.fillStyle = context.strokeStyle = color(kind);
        context.lineWidth = 2;
        context.beginPath();
        context.arc(this.x(x), this.y(y), 5, 0, 2 * Math.PI);
        if (kind === "plain") context.stroke();
        else context.fill();
    }

    /** Bars on the left (place 0) or on the right (1) of each mark. */
    bars(kind, values, place) {
        const { context } = this;
        context.fillStyle = color(kind);
        const width = (this.x(1) - this.x(0)) * 0.4;
        values.forEach((value, i) => {
            const y = this.y(value);
            context.fillRect(this.x(i) + (place - 1) * width, y, Math.max(width, 1), this.bottom - y);
        });
    }
}

const charts = {};

const tens = (low, high) => {
    const marks = [];
    const [from, to] = [Math.ceil(Math.log10(low)), Math.floor(Math.log10(high))];
    const stride = Math.max(1, Math.ceil((to - from) / 4));
    for (let e = from; e <= to; e += stride) marks.push([10 ** e, Math.abs(e) <= 3 ? String(+(10 ** e).toPrecision(1)) : `1e${e}`]);
    return marks;
};

/** The number of steps of a training, and five marks on the axis of steps. */
function stepAxis() {
    const steps = Math.max(...KINDS.map((kind) => twins[kind].steps), 1);
    return [steps, QUARTERS.map((share) => [share * steps, String(Math.round(share * steps))])];
}

function drawLosses() {
    const [steps, marks] = stepAxis();
    const losses = KINDS.flatMap((kind) => twins[kind].losses.map(([, loss]) => loss)).filter((loss) => loss > 0);
    const [low, high] = losses.length > 0 ? [losses.reduce((a, b) => Math.min(a, b)), losses.reduce((a, b) => Math.max(a, b))] : [0.1, 3];
    const range = [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 0.01)];
    charts.loss.axes([0, steps], range, marks, tens(...range), true);
    for (const kind of KINDS) charts.loss.line(kind, twins[kind].losses);
}

function drawErrors() {
    const [steps, marks] = stepAxis();
    charts.error.axes([0, steps], [0, 1], marks, QUARTERS.map((share) => [share, `${100 * share} %`]));
    for (const kind of KINDS) {
        charts.error.line(kind, twins[kind].errors);
        twins[kind].errors.forEach(([step, error]) => charts.error.dot(kind, step, error));
    }
    charts.error.canvas.setAttribute("aria-label", `Training error by epoch. ${KINDS.map((kind) => twins[kind].words()).join(". ")}`);
}

/** Bars for each layer or block; the first one has this number. */
function drawLayers(id, first) {
    const values = KINDS.map((kind) => twins[kind][id].map((value) => (value === null ? NaN : value)));
    const count = Math.max(...values.map((list) => list.length), 1);
    const finite = values.flat().filter((value) => value > 0 && Number.isFinite(value));
    const [low, high] = finite.length > 0 ? [Math.min(...finite), Math.max(...finite)] : [0.1, 1];
    const range = [10 ** Math.floor(Math.log10(low) - 0.01), 10 ** Math.ceil(Math.log10(high) + 0.01)];
    const stride = Math.max(1, Math.ceil(count / 6));
    const marks = [];
    for (let i = 0; i < count; i += stride) marks.push([i, String(i + first)]);
    charts[id].axes([-0.7, count - 0.3], range, marks, tens(...range), true);
    KINDS.forEach((kind, k) => charts[id].bars(kind, values[k], k));
}

/** The factor by which values grow from one to the next, by a least-squares line through their logarithms. */
function growth(values) {
    const path = values.map((value, i) => [i, Math.log(value)]).filter(([, y]) => Number.isFinite(y));
    if (path.length < 2) return NaN;
    const mean = (pick) => path.reduce((sum, p) => sum + pick(p), 0) / path.length;
    const [x, y] = [mean((p) => p[0]), mean((p) => p[1])];
    const slope = path.reduce((sum, p) => sum + (p[0] - x) * (p[1] - y), 0) / path.reduce((sum, p) => sum + (p[0] - x) ** 2, 0);
    return Math.exp(slope);
}

function layerWords(field, per, direction, power) {
    const parts = KINDS.map((kind) => {
        // The first and the last layer are not in a block.
        const values = field === "gradients" ? twins[kind][field].slice(1, -1) : twins[kind][field];
        const factor = growth(values) ** power;
        if (!Number.isFinite(factor)) return null;
        return `In the ${kind} net, it is multiplied by ${factor < 1000 ? factor.toFixed(2) : factor.toExponential(1)} ${per} ${direction}.`;
    });
    return parts.filter(Boolean).join(" ");
}

function drawDepths() {
    const own = points.filter((point) => point.of === signature(settings));
    const [low, high] = [DEPTHS[settings.layers][0], DEPTHS[settings.layers].at(-1)];
    charts.depths.axes([low, high], [0, 1], TOUR[settings.layers].map((depth) => [depth, String(depth)]),
        QUARTERS.map((share) => [share, `${100 * share} %`]));
    const words = [];
    for (const kind of KINDS) {
        // The last result of each depth.
        const at = new Map(own.filter((point) => point.kind === kind).map((point) => [point.depth, point.error]));
        const path = [...at].sort(([a], [b]) => a - b);
        charts.depths.line(kind, path);
        path.forEach(([depth, error]) => charts.depths.dot(kind, depth, error));
        if (path.length > 0) words.push(`${KIND_NAMES[kind]}: ${path.map(([depth, error]) => `${percent(error)} at depth ${depth}`).join(", ")}`);
    }
    $("depths-words").textContent = words.length > 0 ? `With these settings: ${words.join(". ")}.` : "No training with these settings has ended yet.";
}

let drawing = false;
function changed() {
    if (drawing || document.hidden || !twins.residual) return;
    drawing = true;
    requestAnimationFrame(() => {
        drawing = false;
        draw();
    });
}

const DRAWINGS = [
    drawLosses,
    drawErrors,
    () => drawLayers("gradients", 1),
    () => drawLayers("activations", 0),
    drawDepths,
];
let turn = 0;
let wordsAt = 0;
function draw() {
    for (const kind of KINDS) {
        $(`${kind}-status`).textContent = twins[kind].words();
        const answer = twins[kind].answer;
        const best = answer ? answer.indexOf(Math.max(...answer)) : -1;
        const said = !answer || !isDrawn ? "–" : best >= 0 ? `${best} (${percent(answer[best])})` : "NaN";
        $(`${kind}-answer`).textContent = `${KIND_NAMES[kind]} net: ${said}`;
    }
    // While the nets train, one chart at a time, so that the page is never blocked for long.
    turn = (turn + 1) % DRAWINGS.length;
    for (const drawing of running ? [DRAWINGS[turn]] : DRAWINGS) drawing();
    // Words that change too often cannot be read.
    if (performance.now() - wordsAt > 1000 || !running) {
        wordsAt = performance.now();
        $("gradients-words").textContent = layerWords("gradients", "per layer", "towards the input", -1);
        $("activations-words").textContent = layerWords("activations", "per block", "towards the output", 1);
    }
}

// ---- The drawing pad ---------------------------------------------------------------------------------------------

const pad = $("pad");
const ink = pad.getContext("2d", { willReadFrequently: true });
let isDrawn = false;
let pen = { x: 128, y: 128, isDown: false };

function clearPad() {
    ink.fillStyle = "#fff";
    ink.fillRect(0, 0, 256, 256);
    isDrawn = false;
    seen();
}

function stroke(from, to) {
    ink.strokeStyle = "#000";
    ink.lineWidth = 22;
    ink.lineCap = ink.lineJoin = "round";
    ink.beginPath();
    ink.moveTo(from.x, from.y);
    ink.lineTo(to.x + 0.01, to.y);
    ink.stroke();
    isDrawn = true;
    seen();
}

/**
 * The image of 8x8 pixels, as the dataset's were made: the digit is cut out and scaled to a bitmap of 32x32 pixels, of which
 * each 4x4 are counted.
 */
function pixels() {
    const data = ink.getImageData(0, 0, 256, 256).data;
    const isInk = (x, y) => data[4 * (256 * y + x)] < 128;
    let [left, right, top, bottom] = [256, -1, 256, -1];
    for (let y = 0; y < 256; y++) {
        for (let x = 0; x < 256; x++) {
            if (isInk(x, y)) [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
        }
    }
    const image = new Array(64).fill(0);
    if (right < 0) return image;
    // Digits of the dataset are as high as the image; their width is their own.
    const size = Math.max(bottom - top + 1, right - left + 1);
    const [x0, y0] = [(left + right + 1 - size) / 2, (top + bottom + 1 - size) / 2];
    for (let y = 0; y < 32; y++) {
        for (let x = 0; x < 32; x++) {
            const [px, py] = [Math.floor(x0 + ((x + 0.5) * size) / 32), Math.floor(y0 + ((y + 0.5) * size) / 32)];
            if (px >= 0 && px < 256 && py >= 0 && py < 256 && isInk(px, py)) image[8 * (y >> 2) + (x >> 2)] += 1 / 16;
        }
    }
    return image;
}

function seen() {
    const image = pixels();
    const context = $("seen").getContext("2d");
    for (let i = 0; i < 64; i++) {
        const grey = Math.round(255 * (1 - image[i]));
        context.fillStyle = `rgb(${grey}, ${grey}, ${grey})`;
        context.fillRect(16 * (i % 8), 16 * (i >> 3), 16, 16);
    }
    predict(image);
    changed();
}

function predict(image = pixels()) {
    if (!isDrawn) return;
    for (const kind of KINDS) twins[kind]?.worker?.postMessage({ type: "predict", pixels: image });
}

const place = (event) => {
    const box = pad.getBoundingClientRect();
    return { x: ((event.clientX - box.left) * 256) / box.width, y: ((event.clientY - box.top) * 256) / box.height };
};

pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    pen = { ...place(event), isDown: true };
    stroke(pen, pen);
});
pad.addEventListener("pointermove", (event) => {
    if (!pad.hasPointerCapture(event.pointerId)) return;
    const to = place(event);
    stroke(pen, to);
    pen = { ...to, isDown: true };
});
for (const end of ["pointerup", "pointercancel"]) {
    pad.addEventListener(end, () => {
        pen.isDown = false;
    });
}
pad.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-12, 0], ArrowRight: [12, 0], ArrowUp: [0, -12], ArrowDown: [0, 12] };
    if (event.key === " ") {
        pen.isDown = !pen.isDown;
        if (pen.isDown) stroke(pen, pen);
    } else if (event.key === "Delete" || event.key === "Backspace") {
        clearPad();
    } else if (moves[event.key]) {
        const [dx, dy] = moves[event.key];
        const to = { x: Math.min(244, Math.max(12, pen.x + dx)), y: Math.min(244, Math.max(12, pen.y + dy)), isDown: pen.isDown };
        if (pen.isDown) stroke(pen, to);
        pen = to;
    } else {
        return;
    }
    event.preventDefault();
});

// ---- Controls ----------------------------------------------------------------------------------------------------

function set(changes) {
    Object.assign(settings, changes);
    stopTour();
    showSettings();
    reset(running);
    writeAddress();
}

$("depth").addEventListener("input", () => set({ depth: DEPTHS[settings.layers][Number($("depth").value)] }));
$("alpha").addEventListener("input", () => set({ alpha: Number($("alpha").value) }));
$("norm").addEventListener("change", () => set({ norm: $("norm").checked }));
$("layers").addEventListener("change", () => {
    const { layers, depth, width } = defaults($("layers").value, settings.optimizer);
    set({ layers, depth, width });
});
for (const name of ["width", "lr", "epochs", "seed"]) $(name).addEventListener("change", () => set({ [name]: Number($(name).value) }));
$("optimizer").addEventListener("change", () => {
    const { optimizer, lr } = defaults(settings.layers, $("optimizer").value);
    set({ optimizer, lr });
});
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("start").addEventListener("click", () => {
    if (!running && haveEnded()) reset(true);
    else setRunning(!running);
});
$("step").addEventListener("click", () => {
    if (running) setRunning(false);
    all("step");
});
$("reset").addEventListener("click", () => {
    stopTour();
    reset(false);
});
$("tour").addEventListener("click", () => {
    if (tour) stopTour();
    else startTour();
});
$("clear").addEventListener("click", clearPad);
// A hidden page does not train.
document.addEventListener("visibilitychange", () => {
    if (running) all(document.hidden ? "pause" : "run");
    changed();
});
addEventListener("hashchange", () => {
    notice("");
    readAddress();
    stopTour();
    showSettings();
    reset(false);
});
new ResizeObserver(changed).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);

// ---- Start -------------------------------------------------------------------------------------------------------

/** The smallest program with an instruction of SIMD. */
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

async function load() {
    const text = $("wasm").textContent.trim();
    const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const wasm = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
    const url = URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" }));
    for (const kind of KINDS) twins[kind] = new Twin(kind, url, wasm);
    for (const id of ["start", "step", "reset", "tour"]) $(id).disabled = false;
    clearPad();
}

for (const id of ["loss", "error", "gradients", "activations", "depths"]) charts[id] = new Chart(id);
for (const id of ["start", "step", "reset", "tour"]) $(id).disabled = true;
readAddress();
["lr", "epochs", "seed"].forEach(offer);
showSettings();
if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    notice("This browser has no SIMD instructions for WebAssembly, which this page needs. Every browser since 2023 has them.");
} else if (typeof DecompressionStream !== "function") {
    notice("This browser cannot unpack the program of this page (DecompressionStream). Every browser since 2023 can.");
} else {
    load().catch((error) => notice(`The program of this page could not be started: ${error.message}`));
}
