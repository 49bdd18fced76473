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
