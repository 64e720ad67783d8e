"use strict";
const tip = document.getElementById("tip");
function show(point) {
  document.querySelectorAll(".p.at").forEach(p => p.classList.remove("at"));
  point.classList.add("at");
  tip.textContent = point.dataset.says;
  const at = point.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = at.left + at.width / 2 - own.width / 2;
  tip.style.left = Math.max(6, Math.min(left, innerWidth - own.width - 6)) + "px";
  tip.style.top = (at.top > own.height + 12 ? at.top - own.height - 8 : at.bottom + 8) + "px";
  tip.style.visibility = "visible";
}
function hide() {
  document.querySelectorAll(".p.at").forEach(p => p.classList.remove("at"));
  tip.style.visibility = "hidden";
}
document.addEventListener("mouseover", e => { if (e.target.classList.contains("p")) show(e.target); });
document.addEventListener("mouseout", e => { if (e.target.classList.contains("p")) hide(); });
document.addEventListener("scroll", hide, { passive: true });
document.querySelectorAll("svg.plot").forEach(plot => {
  const points = [...plot.querySelectorAll(".p")].sort((a, b) => a.dataset.x - b.dataset.x || a.dataset.y - b.dataset.y);
  let at = -1;
  plot.addEventListener("keydown", e => {
    const next = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: points.length - 1 }[e.key];
    if (e.key === "Escape") { at = -1; hide(); }
    if (next === undefined || !points.length) return;
    e.preventDefault();
    at = Math.max(0, Math.min(next, points.length - 1));
    show(points[at]);
  });
  plot.addEventListener("blur", hide);
});
// A link to a name opens it.
function open() {
  const found = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (found && found.tagName === "DETAILS") { found.open = true; found.scrollIntoView(); }
}
addEventListener("hashchange", open);
open();
