"use strict";
// Values under the pointer, or under the arrow keys, of every chart.
const format = (v) => {
  const size = Math.abs(v);
  const text = size >= 1e7 || (size > 0 && size < 0.005) ? v.toExponential(1)
    : v.toLocaleString("en", { maximumFractionDigits: size >= 1000 ? 0 : size >= 10 ? 1 : 2, minimumFractionDigits: size < 10 ? 2 : 0 });
  return text.replace("-", "−");
};
for (const figure of document.querySelectorAll("figure.chart")) {
  const chart = JSON.parse(figure.dataset.chart);
  const svg = figure.querySelector("svg");
  const cursor = svg.querySelector(".cursor");
  const dots = svg.querySelectorAll(".dot");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  figure.append(tip);
  let place = -1;
  const hide = () => {
    place = -1;
    tip.style.visibility = "hidden";
    for (const mark of [cursor, ...dots]) mark.style.opacity = 0;
  };
  const show = (to) => {
    place = Math.max(0, Math.min(chart.step.length - 1, to));
    const x = chart.x[place];
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.opacity = 0.35;
    const head = document.createElement("span");
    head.textContent = `${chart.step[place].toLocaleString("en")} ${chart.unit}`;
    tip.replaceChildren(head);
    chart.series.forEach((series, number) => {
      const value = series.v[place];
      dots[number].style.opacity = value === null ? 0 : 1;
      if (value === null) return;
      dots[number].setAttribute("cx", x);
      dots[number].setAttribute("cy", series.y[place]);
      const bold = document.createElement("b");
      bold.textContent = format(value);
      const [low, high] = [series.lo[place], series.hi[place]];
      const interval = low === null || low === high ? "" : ` (${format(low)} to ${format(high)})`;
      tip.append(document.createElement("br"), `${series.name} `, bold, interval);
    });
    const box = svg.getBoundingClientRect();
    const outer = figure.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const room = outer.width - tip.offsetWidth;
    const wanted = x * scale + 14 + tip.offsetWidth <= outer.width ? x * scale + 14 : x * scale - 14 - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, wanted))}px`;
    tip.style.top = `${box.top - outer.top + 14}px`;
    tip.style.visibility = "visible";
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    let best = 0;
    chart.x.forEach((at, number) => { if (Math.abs(at - x) < Math.abs(chart.x[best] - x)) best = number; });
    show(best);
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", hide);
  figure.addEventListener("blur", hide);
  figure.addEventListener("keydown", (event) => {
    const last = chart.step.length - 1;
    const to = { ArrowLeft: place < 0 ? last : place - 1, ArrowRight: place + 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") hide();
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}
// A closer look at every maze: buttons, dragging, and the keys + - 0 and arrows.
for (const svg of document.querySelectorAll("svg.maze")) {
  const figure = svg.closest("figure");
  const { x, y, width, height } = svg.viewBox.baseVal;
  const view = { x, y, scale: 1 };
  const tools = document.createElement("div");
  const draw = () => {
    const room = 1 - 1 / view.scale;
    view.x = Math.max(x, Math.min(x + width * room, view.x));
    view.y = Math.max(y, Math.min(y + height * room, view.y));
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${width / view.scale} ${height / view.scale}`);
    svg.style.cursor = view.scale > 1 ? "grab" : "";
    svg.style.touchAction = view.scale > 1 ? "none" : "";
  };
  const zoom = (factor) => {
    const [middle, centre] = [view.x + width / view.scale / 2, view.y + height / view.scale / 2];
    view.scale = Math.max(1, Math.min(8, view.scale * factor));
    view.x = middle - width / view.scale / 2;
    view.y = centre - height / view.scale / 2;
    draw();
  };
  const move = (right, down) => {
    view.x += right * width / view.scale;
    view.y += down * height / view.scale;
    draw();
  };
  for (const [sign, words, act] of [["+", "Closer", () => zoom(1.6)], ["−", "Farther", () => zoom(1 / 1.6)], ["⤢", "Whole maze", () => zoom(0)]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = sign;
    button.setAttribute("aria-label", words);
    button.addEventListener("click", act);
    tools.append(button);
  }
  tools.className = "zoom";
  figure.append(tools);
  figure.tabIndex = 0;
  figure.addEventListener("keydown", (event) => {
    const keys = {
      "+": () => zoom(1.6), "=": () => zoom(1.6), "-": () => zoom(1 / 1.6), "0": () => zoom(0),
      ArrowLeft: () => move(-0.2, 0), ArrowRight: () => move(0.2, 0), ArrowUp: () => move(0, -0.2), ArrowDown: () => move(0, 0.2),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || (event.key.startsWith("Arrow") && view.scale === 1)) return;
    event.preventDefault();
    keys[event.key]();
  });
  let held = null;
  svg.addEventListener("pointerdown", (event) => {
    if (view.scale === 1) return;
    held = [event.clientX, event.clientY];
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!held) return;
    const box = svg.getBoundingClientRect();
    move((held[0] - event.clientX) / box.width, (held[1] - event.clientY) / box.height);
    held = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { held = null; });
}
