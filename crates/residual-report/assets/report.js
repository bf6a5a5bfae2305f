(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, parent, text) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    return parent ? parent.appendChild(node) : node;
  };
  const short = (value) => String(Number(value.toPrecision(4))).replace(/^-/, "−");

  /** A function from numbers to positions on an axis. `text` is `data-x` or `data-y`: the scale and the range. */
  const axis = (text, from, to) => {
    const [scale, ...range] = text.split(" ");
    const along = scale === "log" ? Math.log10 : (value) => value;
    const [low, high] = range.map(Number).map(along);
    return (value) => from + Math.min(1, Math.max(0, (along(value) - low) / (high - low))) * (to - from);
  };

  /** A series with the positions of its points and the rows of their tooltips. */
  const read = (group, x, y, names) => {
    const tips = group.dataset.tips ? JSON.parse(group.dataset.tips) : [];
    const points = group.dataset.points.split(" ").filter(Boolean).map((text, i) => {
      const [across, up, spread] = text.split(",");
      const value = Number(spread) > 0 ? `${up} ± ${spread}` : up;
      const rows = tips[i] ? tips[i].split("\n") : [[names[0], across], [names[1], value]];
      return { x: x(Number(across)), y: y(Number(up)), rows };
    });
    return { group, label: group.dataset.label, color: group.dataset.color, points, shown: true };
  };

  /** A field with its points, row by row. */
  const grid = (group, x, y, names) => {
    const numbers = (text) => text.split(" ").map((word) => (word === "-" ? NaN : Number(word)));
    const [xs, ys] = [numbers(group.dataset.xs), numbers(group.dataset.ys)];
    const points = numbers(group.dataset.values).map((value, i) => {
      const [across, up] = [xs[i % xs.length], ys[Math.floor(i / xs.length)]];
      const rows = [[names[0], short(across)], [names[1], short(up)]];
      const label = `${group.dataset.label} ${Number.isNaN(value) ? "NaN or infinite" : short(value)}`;
      return { x: x(across), y: y(up), rows, label };
    });
    return { group, label: group.dataset.label, color: "", points, shown: true, width: xs.length };
  };

  /** Adds tooltips, keyboard control and a legend that shows and hides series to a panel. */
  const makeInteractive = (panel) => {
    const box = panel.querySelector(".plot-box");
    const svg = box.querySelector("svg");
    const plot = svg.querySelector(".plot");
    const [left, top, right, bottom] = plot.dataset.box.split(" ").map(Number);
    const x = axis(plot.dataset.x, left, right);
    const y = axis(plot.dataset.y, bottom, top);
    const names = [plot.dataset.xLabel, plot.dataset.yLabel];
    const lines = [...plot.querySelectorAll(".series")].map((group) => read(group, x, y, names));
    const fields = [...plot.querySelectorAll(".field")].map((group) => grid(group, x, y, names));
    const series = [...lines, ...fields].filter((one) => one.points.length > 0);
    plot.querySelectorAll("title").forEach((title) => title.remove());
    if (series.length === 0) return;

    const cursor = plot.appendChild(document.createElementNS(SVG, "circle"));
    for (const [name, value] of Object.entries({ r: 6.5, fill: "none", stroke: "#1f2328", "stroke-width": 2 })) {
      cursor.setAttribute(name, value);
    }
    cursor.setAttribute("class", "cursor");
    cursor.style.display = "none";
    const tip = make("div", box);
    tip.className = "tip";
    tip.setAttribute("role", "status");
    let at = null;

    const hide = () => {
      cursor.style.display = "none";
      tip.classList.remove("shown");
      at = null;
    };
    const show = (one, i) => {
      if (at && at.one === one && at.i === i) return;
      at = { one, i };
      const point = one.points[i];
      cursor.setAttribute("cx", point.x);
      cursor.setAttribute("cy", point.y);
      cursor.style.display = "";
      tip.replaceChildren();
      const head = make("b", tip);
      if (one.color) make("i", head).style.background = one.color;
      head.append(point.label ?? (one.label || names[1]));
      for (const row of point.rows) {
        const line = make("span", tip, Array.isArray(row) ? `${row[0]} ` : row);
        if (Array.isArray(row)) make("strong", line, row[1]);
      }
      tip.classList.add("shown");
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      const [px, py] = [point.x * scale, point.y * scale];
      const over = px - tip.offsetWidth / 2;
      tip.style.left = `${Math.max(0, Math.min(box.clientWidth - tip.offsetWidth, over))}px`;
      const above = py - tip.offsetHeight - 14;
      const edge = -svg.getBoundingClientRect().top;
      tip.style.top = `${above > edge ? above : py + 14}px`;
    };
    const nearest = (px, py, among) => {
      let best = null;
      for (const one of among.filter((one) => one.shown)) {
        one.points.forEach((point, i) => {
          const distance = (point.x - px) ** 2 + (point.y - py) ** 2;
          if (!best || distance < best.distance) best = { one, i, distance };
        });
      }
      return best;
    };
    const point = (event) => {
      const place = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / place.width;
      const [px, py] = [(event.clientX - place.left) * scale, (event.clientY - place.top) * scale];
      // Over a field, a line is selected only if the pointer is within 12 units of a point.
      let best = nearest(px, py, lines);
      if (fields.length > 0 && (!best || best.distance > 144)) best = nearest(px, py, fields);
      if (best) show(best.one, best.i);
      else hide();
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && document.activeElement !== box) hide();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!box.contains(event.target)) hide();
    });

    box.classList.add("live");
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    const title = panel.querySelector(".panel-title").textContent;
    box.setAttribute("aria-label", `${title}: chart; arrow keys move between points`);
    const start = () => {
      const one = series.find((one) => one.shown);
      if (one) show(one, 0);
    };
    box.addEventListener("focus", () => {
      if (!at && box.matches(":focus-visible")) start();
    });
    box.addEventListener("blur", hide);
    box.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const key = event.key;
      if (key === "Escape") return hide();
      if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(key)) return;
      event.preventDefault();
      if (!at) return start();
      const { one, i } = at;
      const last = one.points.length - 1;
      const go = (to) => show(one, Math.max(0, Math.min(last, to)));
      if (key === "Home") return go(0);
      if (key === "End") return go(last);
      if (key === "ArrowLeft") return go(i - 1);
      if (key === "ArrowRight") return go(i + 1);
      const up = key === "ArrowUp";
      if (one.width) {
        const to = i + (up ? one.width : -one.width);
        return to < 0 || to > last ? undefined : go(to);
      }
      // Move to the next series, to the point with the nearest x.
      const shown = series.filter((one) => one.shown);
      const next = shown[(shown.indexOf(one) + (up ? shown.length - 1 : 1)) % shown.length];
      const here = one.points[i].x;
      const gap = (i) => Math.abs(next.points[i].x - here);
      show(next, next.points.reduce((best, _, i) => (gap(i) < gap(best) ? i : best), 0));
    });

    const entries = panel.querySelectorAll(".legend li");
    if (entries.length < 2) return;
    panel.querySelector(".legend").setAttribute("aria-label", "Show or hide series");
    for (const entry of entries) {
      const one = lines[Number(entry.dataset.series)];
      const button = make("button");
      button.type = "button";
      button.className = "entry";
      button.setAttribute("aria-pressed", "true");
      button.append(...entry.firstElementChild.childNodes);
      entry.replaceChildren(button);
      button.addEventListener("click", () => {
        one.shown = !one.shown;
        button.setAttribute("aria-pressed", String(one.shown));
        one.group.classList.toggle("off", !one.shown);
        if (at && at.one === one) hide();
      });
    }
  };

  document.querySelectorAll("figure.chart .panel").forEach(makeInteractive);
})();
