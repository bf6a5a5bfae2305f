// Checks pages written by `residual report` on a desktop screen, on a phone screen and without JavaScript: charts,
// tooltips, keyboard control, legends, layout and accessibility. With --screenshots it also saves screenshots and a
// PDF.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const args = process.argv.slice(2);
let screenshots = null;
const at = args.indexOf("--screenshots");
if (at >= 0) [, screenshots] = args.splice(at, 2);
if (args.length === 0 || (at >= 0 && !screenshots) || args.some((arg) => arg.startsWith("--"))) {
  console.error("usage: check-report [--screenshots DIR] FILE.html...");
  process.exit(2);
}
if (screenshots) mkdirSync(screenshots, { recursive: true });

const SCREENS = [
  { name: "1280", viewport: { width: 1280, height: 900 } },
  { name: "390", viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 },
];
let failures = 0;

/** Counts and prints a failure if the condition is false. */
const expect = (condition, failure) => {
  if (!condition) {
    failures += 1;
    console.error(`FAILED ${failure}`);
  }
};

/** Opens a page, which must not request any other URL or log an error. */
const open = async (browser, file, options) => {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const url = pathToFileURL(resolve(file)).href;
  const where = `${file} at ${options.viewport.width} px`;
  page.on("console", (message) => expect(message.type() !== "error", `${where}: console: ${message.text()}`));
  page.on("pageerror", (error) => expect(false, `${where}: ${error}`));
  page.on("request", (request) => expect(request.url() === url, `${where}: requests ${request.url()}`));
  await page.goto(url);
  return { context, page, where };
};

/** The screen coordinates of the first data point of a panel. */
const firstPoint = (panel) =>
  panel.evaluate((panel) => {
    const svg = panel.querySelector(".plot-box svg");
    const groups = [...panel.querySelectorAll(".series, .field")];
    const drawn = groups.find((group) => group.getBoundingClientRect().width > 0) ?? svg;
    svg.scrollIntoView({ block: "center", behavior: "instant" });
    const shape = drawn.querySelector("polyline");
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    if (shape?.points.length > 0) {
      const { x, y } = shape.points[0];
      return { x: box.x + x * scale, y: box.y + y * scale };
    }
    const around = drawn.getBoundingClientRect();
    return { x: around.x + around.width / 2, y: around.y + around.height / 2 };
  });

const checkPanel = async (page, panel, where, touch) => {
  const drawn = await panel.evaluate((panel) =>
    [...panel.querySelectorAll(".series, .field")].map((group) => {
      const { width, height } = group.getBoundingClientRect();
      const whole = [...group.querySelectorAll("polyline")].every((line) => line.points.length > 0);
      return { label: group.dataset.label, points: group.dataset.points ?? group.dataset.values, size: width + height, whole };
    }),
  );
  expect(drawn.some(({ points }) => points), `${where}: no series has data`);
  for (const { label, points, size, whole } of drawn) {
    expect(!points || (size > 0 && whole), `${where}: series ${label} is not drawn completely`);
  }

  const tip = panel.locator(".tip");
  const tipAfter = async (action) => {
    const text = await tip.evaluate((tip) => (getComputedStyle(tip).visibility === "visible" ? tip.innerText : ""));
    expect(/\d/.test(text), `${where}: after ${action} the tooltip shows "${text}", not a number`);
    return text;
  };
  const { x, y } = await firstPoint(panel);
  if (touch) await page.touchscreen.tap(x, y);
  else await page.mouse.move(x, y);
  await tipAfter(touch ? "a tap" : "moving the pointer");
  await page.mouse.move(0, 0);

  const box = panel.locator(".plot-box");
  await box.focus();
  await page.keyboard.press("Home");
  const first = await tipAfter("the Home key");
  await page.keyboard.press("ArrowRight");
  const points = Math.min(...drawn.map(({ points }) => points.split(" ").length));
  const second = await tipAfter("the right arrow key");
  expect(points < 2 || first !== second, `${where}: after the right arrow key the tooltip still shows "${first}"`);
  await page.keyboard.press("Escape");
  expect(!(await tip.evaluate((tip) => tip.classList.contains("shown"))), `${where}: the Escape key does not hide the tooltip`);

  const entries = panel.locator(".legend button");
  for (let i = 0; i < (await entries.count()); i += 1) {
    const button = entries.nth(i);
    const label = await button.innerText();
    const series = await panel.locator(".series").nth(Number(await button.locator("..").getAttribute("data-series")));
    const expectShown = async (shown, action) => {
      const visible = await series.evaluate((group) => getComputedStyle(group).display !== "none");
      const pressed = (await button.getAttribute("aria-pressed")) === "true";
      expect(visible === shown && pressed === shown, `${where}: ${label}: ${action}: visible ${visible}, aria-pressed ${pressed}, not ${shown}`);
    };
    await expectShown(true, "at first");
    await button.click();
    await expectShown(false, "after a click");
    await button.focus();
    await page.keyboard.press("Space");
    await expectShown(true, "after the space bar");
    await page.keyboard.press("Enter");
    await expectShown(false, "after Enter");
    await page.keyboard.press("Enter");
    await expectShown(true, "after Enter again");
  }
};

const checkLayout = async (page, where) => {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect(wide <= 0, `${where}: the page is ${wide} px wider than the screen`);
  const tiny = await page.evaluate(() => {
    const small = [];
    for (const text of document.querySelectorAll(".plot-box text")) {
      const { width } = text.ownerSVGElement.getBoundingClientRect();
      const size = parseFloat(getComputedStyle(text).fontSize) * (width / text.ownerSVGElement.viewBox.baseVal.width);
      if (size < 10) small.push(`${text.textContent} (${size.toFixed(1)} px)`);
    }
    return small;
  });
  expect(tiny.length === 0, `${where}: text smaller than 10 px: ${tiny.slice(0, 3).join(", ")}`);
};

const checkAccess = async (page, where) => {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  for (const { id, help, nodes } of violations) {
    expect(false, `${where}: axe: ${id}: ${help}: ${nodes.map((node) => node.html.slice(0, 120)).slice(0, 2).join(" | ")}`);
  }
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
for (const file of args) {
  const picture = (name) => join(screenshots, `${basename(file, ".html")}-${name}`);
  let panels = 0;
  for (const { name, ...options } of SCREENS) {
    const { context, page, where } = await open(browser, file, options);
    const all = await page.locator("figure.chart .panel").all();
    panels = all.length;
    expect(panels > 0, `${where}: no charts`);
    for (const [i, panel] of all.entries()) {
      const title = await panel.locator(".panel-title").innerText();
      await checkPanel(page, panel, `${where}: chart ${i + 1} (${title})`, options.hasTouch);
    }
    await checkLayout(page, where);
    await checkAccess(page, where);
    await page.evaluate(() => (document.activeElement.blur(), scrollTo(0, 0)));
    if (screenshots) await page.screenshot({ path: picture(`${name}.png`), fullPage: true });
    if (screenshots && name === "1280") {
      await page.emulateMedia({ media: "print" });
      await page.pdf({ path: picture("print.pdf"), format: "A4" });
    }
    await context.close();
  }

  const { context, page, where } = await open(browser, file, { ...SCREENS[0], javaScriptEnabled: false });
  expect((await page.locator("button").count()) === 0, `${where}: there are buttons, which do nothing without JavaScript`);
  expect((await page.locator("figure.chart svg .plot").count()) === panels, `${where}: charts are missing without JavaScript`);
  await context.close();
  console.log(`${file}: ${panels} charts`);
}
await browser.close();
if (failures > 0) console.error(`${failures} checks failed`);
process.exit(failures > 0 ? 1 : 0);
