// Checks the page on which networks train in the browser: that it is right (it repeats itself, agrees with `residual train`,
// and shows the effect), quick, operable by mouse, touch and keyboard, and accessible, on a desktop screen and on a phone.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const args = process.argv.slice(2);
const screenshots = args[0] === "--screenshots" ? args.splice(0, 2)[1] : null;
const [file, residual] = args;
if (screenshots) mkdirSync(screenshots, { recursive: true });
const address = pathToFileURL(file).href;
let failures = 0;

const expect = (condition, failure) => {
  if (!condition) {
    failures += 1;
    console.error(`FAILED ${failure}`);
  }
};

const DESKTOP = { viewport: { width: 1280, height: 900 } };
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };

/** Opens the page, which must not request anything or log an error. */
const open = async (browser, hash, options) => {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("console", (message) => expect(message.type() !== "error", `${hash}: console: ${message.text()}`));
  page.on("pageerror", (error) => expect(false, `${hash}: ${error}`));
  page.on("request", (request) => {
    const url = request.url();
    expect(url.startsWith("file:") || url.startsWith("blob:") || url.startsWith("data:"), `${hash}: requests ${url}`);
  });
  await page.goto(address + hash);
  await page.waitForFunction(() => !document.getElementById("start").disabled && twins.plain.steps > 0 && twins.residual.steps > 0);
  return { context, page };
};

const finished = (page, timeout = 120_000) =>
  page.waitForFunction(() => KINDS.every((kind) => twins[kind].hasEnded()), null, { timeout });

/** The losses of both nets in a training of 50 steps, from a worker of its own. */
const losses = (page, settings) =>
  page.evaluate(async (settings) => {
    const source = `${document.getElementById("worker").textContent}
      onmessage = async ({ data }) => {
        await wasm_bindgen({ module_or_path: data.wasm });
        const trainer = new wasm_bindgen.Trainer(JSON.stringify(data.settings));
        postMessage(Array.from({ length: 50 }, () => JSON.parse(trainer.step(false)).loss));
      };`;
    const packed = Uint8Array.from(atob(document.getElementById("wasm").textContent.trim()), (c) => c.charCodeAt(0));
    const wasm = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.postMessage({ wasm, settings });
    return new Promise((resolve) => (worker.onmessage = ({ data }) => resolve(data)));
  }, settings);

const SETTINGS = { family: "dense", width: 64, alpha: 1, norm: true, optimizer: "momentum", lr: 0.05, seed: 0, epochs: 15 };

/** The same seed repeats to the bit, and the losses are those of the native program. */
const isRight = async (browser) => {
  const { context, page } = await open(browser, "", DESKTOP);
  const out = mkdtempSync(join(tmpdir(), "web-"));
  for (const [family, depth, limit] of [["dense", 4, 1e-5], ["conv", 8, 5e-3]]) {
    for (const kind of ["plain", "residual"]) {
      const settings = { ...SETTINGS, kind, family, depth, width: family === "conv" ? 8 : 64, lr: family === "conv" ? 0.01 : 0.05 };
      const [once, again] = [await losses(page, settings), await losses(page, settings)];
      expect(once.every((loss, i) => Object.is(loss, again[i])), `${kind} ${family} ${depth}: a second run differs`);
      const name = family === "dense" ? `dense-${kind === "plain" ? "plain" : "resnet"}${depth}` : `${kind === "plain" ? "plain" : "resnet"}${depth}`;
      const flags = ["--epochs", "15", "--lr", String(settings.lr), "--evaluate", "at-end", "--force", "--out", join(out, "run")];
      execFileSync(residual, ["train", name, ...flags], { stdio: ["ignore", "ignore", "ignore"] });
      const lines = readFileSync(join(out, "run/loss.csv"), "utf8").trim().split("\n").slice(1, 51);
      const native = lines.map((line) => Number(line.split(",")[1]));
      const difference = Math.max(...native.map((loss, i) => Math.abs(loss - once[i])));
      console.log(`${name}: the first 50 losses differ from those of the native program by at most ${difference.toExponential(1)}`);
      expect(difference <= limit, `${name}: the losses differ by ${difference}`);
    }
  }
  rmSync(out, { recursive: true });
  await context.close();
};

/** The defaults show the effect. The speed is printed only, because it depends on the machine. */
const showsTheEffect = async (browser) => {
  const { context, page } = await open(browser, "", DESKTOP);
  await page.evaluate(() => {
    window.longest = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((e) => (window.longest = Math.max(window.longest, e.duration)))).observe({ entryTypes: ["longtask"] });
  });
  const begin = Date.now();
  await page.click("#start");
  await finished(page);
  const seconds = (Date.now() - begin) / 1000;
  const [plain, deep] = await page.evaluate(() => KINDS.map((kind) => twins[kind].errors.at(-1)[1]));
  const rate = (await page.evaluate(() => twins.plain.steps)) / seconds;
  const longest = await page.evaluate(() => window.longest);
  console.log(`56 layers: plain ${(100 * plain).toFixed(1)} %, residual ${(100 * deep).toFixed(1)} %; ${rate.toFixed(1)} steps/s of both twins, ${longest > 0 ? `the page was blocked for up to ${longest} ms` : 'the page was never blocked for 50 ms'}`);
  expect(plain > 0.4, `the training error of plain-56 is ${plain}`);
  expect(deep < 0.05, `the training error of residual-56 is ${deep}`);
  expect((await page.textContent("#depths-words")).includes("at depth 56"), "the figure has no point at depth 56");
  expect((await page.textContent("#gradients-words")).includes("In the plain net, it is multiplied by"), "no words about the gradients");
  expect((await page.textContent("#activations-words")).includes("per block"), "no words about the activations");
  if (screenshots) await page.screenshot({ path: join(screenshots, "1280.png"), fullPage: true });
  await context.close();
};

/** Draws with the mouse, a finger or the keyboard, and reads the answers. */
const drawsDigits = async (browser) => {
  const { context, page } = await open(browser, "#depth=4", DESKTOP);
  await page.click("#start");
  await finished(page);
  const answers = async () => {
    await page.waitForTimeout(500);
    return Promise.all(["#plain-answer", "#residual-answer"].map((id) => page.textContent(id)));
  };
  const draw = async (path) => {
    await page.click("#clear");
    const box = await page.locator("#pad").boundingBox();
    await page.mouse.move(box.x + path[0][0], box.y + path[0][1]);
    await page.mouse.down();
    for (const [x, y] of path.slice(1)) await page.mouse.move(box.x + x, box.y + y, { steps: 3 });
    await page.mouse.up();
    return answers();
  };
  await page.locator("#pad").scrollIntoViewIfNeeded();
  const one = await draw([[95, 90], [130, 45], [130, 210]]);
  expect(one.every((text) => /: 1 /.test(text)), `a drawn 1 is ${one.join(", ")}`);
  const circle = Array.from({ length: 25 }, (_, i) => [128 + 55 * Math.sin((i * Math.PI) / 12), 128 - 85 * Math.cos((i * Math.PI) / 12)]);
  const zero = await draw(circle);
  expect(zero.every((text) => /: 0 /.test(text)), `a drawn 0 is ${zero.join(", ")}`);
  console.log(`drawn digits at depth 4: ${one.join(", ")}; ${zero.join(", ")}`);
  // The keyboard draws a vertical line.
  await page.click("#clear");
  await page.focus("#pad");
  for (let i = 0; i < 7; i++) await page.keyboard.press("ArrowUp");
  await page.keyboard.press(" ");
  for (let i = 0; i < 14; i++) await page.keyboard.press("ArrowDown");
  await page.keyboard.press(" ");
  expect((await answers()).every((text) => /: \d /.test(text)), "the keyboard draws nothing");
  await page.keyboard.press("Delete");
  expect((await answers()).every((text) => text.endsWith("–")), "Delete does not clear");
  await context.close();
};

/** Every control works, most of them with the keyboard; a change is in the address, and the address makes the change. */
const controls = async (browser) => {
  const { context, page } = await open(browser, "", DESKTOP);
  const press = async (id, keys) => {
    await page.focus(id);
    for (const key of keys) await page.keyboard.press(key);
  };
  await press("#depth", ["Home", "ArrowRight"]);
  await press("#alpha", ["ArrowLeft"]);
  await press("#norm", [" "]);
  await press("#lr", ["ArrowUp"]);
  expect((await page.evaluate(() => location.hash)).includes("lr=0.03"), "the keyboard does not change the learning rate");
  await page.selectOption("#optimizer", "adam");
  await page.selectOption("#width", "32");
  await page.selectOption("#seed", "3");
  await page.selectOption("#epochs", "5");
  const hash = await page.evaluate(() => location.hash);
  expect(hash === "#depth=6&width=32&alpha=0.95&optimizer=adam&epochs=5&seed=3&norm=false", `the address is ${hash}`);
  await press("#step", ["Enter"]);
  await page.waitForFunction(() => KINDS.every((kind) => twins[kind].step === 1));
  await press("#start", ["Enter"]);
  await page.waitForFunction(() => KINDS.every((kind) => twins[kind].step > 10));
  await press("#start", ["Enter"]);
  await page.waitForTimeout(300);
  const paused = await page.evaluate(() => KINDS.map((kind) => twins[kind].step));
  await page.waitForTimeout(500);
  expect(String(paused) === String(await page.evaluate(() => KINDS.map((kind) => twins[kind].step))), "Pause does not stop the workers");
  await press("#reset", ["Enter"]);
  await page.waitForFunction(() => KINDS.every((kind) => twins[kind].step === 0));
  // A hidden page does not train.
  await page.click("#start");
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await page.waitForTimeout(300);
  const hidden = await page.evaluate(() => KINDS.map((kind) => twins[kind].step));
  await page.waitForTimeout(500);
  expect(String(hidden) === String(await page.evaluate(() => KINDS.map((kind) => twins[kind].step))), "a hidden page trains");
  await page.evaluate(() => {
    delete document.hidden;
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await finished(page);
  await context.close();

  const other = await open(browser, hash, DESKTOP);
  expect((await other.page.inputValue("#optimizer")) === "adam" && (await other.page.textContent("#depth-value")) === "6", "the address does not set the controls");
  // All depths, one after the other.
  await other.page.click("#tour");
  await other.page.waitForFunction(() => settings.depth === 14, null, { timeout: 60_000 });
  await other.page.click("#tour");
  await finished(other.page);
  await other.page.waitForTimeout(300);
  expect(await other.page.evaluate(() => settings.depth === 14 && haveEnded()), "the tour does not stop");
  // The last depth can be stopped, too.
  await other.page.selectOption("#layers", "conv");
  await other.page.selectOption("#lr", "0.03");
  await other.page.evaluate(() => (TOUR.conv = [8]));
  await other.page.click("#tour");
  await other.page.waitForFunction(() => twins.plain.step > 5);
  await other.page.click("#tour");
  await finished(other.page);
  expect((await other.page.textContent("#depths-words")).includes("at depth 8"), "stopping at the last depth starts the tour again");
  expect((await other.page.textContent("#depths-words")).includes("at depth 8"), "the figure does not fill in");
  await other.context.close();
};

/** Bad addresses and nets that diverge. */
const badInput = async (browser) => {
  for (const hash of ["#depth=5", "#depth=1e9&width=-3", "#%E0%A4%A", "#constructor=1&alpha=NaN", "#alpha=0.97", "#seed=3=3", "#layers=conv&depth=56", "#layers=conv&width=128"]) {
    const { context, page } = await open(browser, hash, DESKTOP);
    expect((await page.textContent("#notice")).includes("defaults are used"), `${hash} is accepted`);
    await context.close();
  }
  const { context, page } = await open(browser, "#lr=1&norm=false&depth=44&alpha=1&optimizer=momentum&epochs=5", DESKTOP);
  await page.click("#start");
  await finished(page);
  const texts = await Promise.all(["#plain-status", "#residual-status"].map((id) => page.textContent(id)));
  expect(texts.some((text) => text.includes("NaN or infinite")), `no net diverges: ${texts.join(", ")}`);
  expect(texts.every((text) => /NaN or infinite|finished/.test(text)), `a net did not go on: ${texts.join(", ")}`);
  await page.click("#norm");
  await page.click("#start");
  await page.waitForFunction(() => KINDS.every((kind) => twins[kind].step > 3));
  // A finished net stays finished.
  await page.click("#reset");
  for (let i = 0; i < 120; i++) await page.evaluate(() => KINDS.forEach((kind) => twins[kind].worker.postMessage({ type: "step" })));
  await finished(page);
  await page.waitForTimeout(300);
  expect((await page.evaluate(() => KINDS.map((kind) => twins[kind].state))).every((state) => state === "finished"), "a step after the last one");
  // A worker that fails is replaced.
  await page.evaluate(() => twins.plain.worker.onerror({ preventDefault() {}, message: "" }));
  expect((await page.evaluate(() => twins.plain.words())).includes("stopped: out of memory"), "a worker that fails is not reported");
  await page.click("#reset");
  await page.click("#start");
  await page.waitForFunction(() => KINDS.every((kind) => twins[kind].step > 3));
  await context.close();
};

/** The layout and the accessibility, on both screens, light and dark. */
const looks = async (browser) => {
  for (const [name, options] of [["1280", DESKTOP], ["390", PHONE], ["390-dark", { ...PHONE, colorScheme: "dark", reducedMotion: "reduce" }]]) {
    const { context, page } = await open(browser, "#depth=14&epochs=5", options);
    const tap = (id) => (options.hasTouch ? page.tap(id) : page.click(id));
    await tap("#start");
    await finished(page);
    if (options.hasTouch) {
      await page.locator("#pad").scrollIntoViewIfNeeded();
      await page.tap("#pad");
      await page.waitForFunction(() => twins.plain.answer !== null);
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    expect(!wide, `${name}: the page is wider than the screen`);
    expect(await page.evaluate(() => document.getAnimations().length === 0), `${name}: something is animated`);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run());
    for (const { id, nodes } of violations) expect(false, `${name}: ${id}: ${nodes[0].html.slice(0, 120)}`);
    if (screenshots) await page.screenshot({ path: join(screenshots, `${name}-small.png`), fullPage: true });
    for (const id of ["#clear", "#norm", "#step"]) await tap(id);
    await page.waitForFunction(() => KINDS.every((kind) => twins[kind].step === 1));
    await tap("#reset");
    await page.waitForFunction(() => KINDS.every((kind) => twins[kind].step === 0));
    await tap("#tour");
    await page.waitForFunction(() => settings.depth === 4 && twins.plain.step > 0);
    expect(!(await page.isChecked("#norm")), `${name}: the norm is not turned off`);
    await context.close();
  }
};

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });
for (const check of [isRight, showsTheEffect, drawsDigits, controls, badInput, looks]) {
  try {
    await check(browser);
  } catch (error) {
    expect(false, `${check.name}: ${error.message.split("\n").slice(0, 4).join(" ")}`);
  }
}
await browser.close();
console.log(failures === 0 ? "the page is right" : `${failures} failures`);
process.exit(failures === 0 ? 0 : 1);
