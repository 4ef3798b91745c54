"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Sort rows within their part: rows without a number are last, and the true density is first.
function compare(column, direction) {
  return (a, b) => {
    if (a.className !== b.className) return a.className === "truth" ? -1 : 1;
    const [p, q] = [a, b].map((row) => row.cells[column]?.dataset.v ?? "nan");
    const [x, y] = [p, q].map((text) => (/^-?inf$/.test(text) ? text.replace("inf", "Infinity") : text));
    const [noX, noY] = [x === "nan", y === "nan"];
    if (noX || noY) return noX - noY;
    const numeric = x !== "" && y !== "" && !Number.isNaN(+x) && !Number.isNaN(+y);
    return direction * (numeric ? +x - +y || 0 : x.localeCompare(y));
  };
}

function sort(button) {
  const header = button.closest("th");
  const now = { ascending: 1, descending: -1 }[header.getAttribute("aria-sort")];
  const direction = now ? -now : +button.dataset.first;
  for (const other of all("[aria-sort]", header.parentNode)) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  for (const part of button.closest("table").tBodies) {
    const [heading, ...rows] = part.rows;
    part.append(heading, ...rows.sort(compare(header.cellIndex, direction)));
  }
}

const [find, kind, family] = ["find", "kind", "family"].map((id) => document.getElementById(id));

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const item of all("[data-kind]")) {
    const { find: text, family: its } = item.dataset;
    item.hidden =
      (kind.value !== "" && item.dataset.kind !== kind.value) ||
      (its !== undefined && family.value !== "" && its !== family.value) ||
      (text !== undefined && !words.every((word) => text.includes(word)));
  }
  for (const part of all("tbody[data-part]")) {
    part.hidden = all("tr[data-kind]", part).every((row) => row.hidden);
  }
  for (const block of all(".block")) {
    block.hidden = all("figure[data-kind]", block).every((figure) => figure.hidden);
  }
  for (const section of all("main > section[aria-labelledby]")) {
    section.hidden = all("tbody[data-part]", section).every((part) => part.hidden);
  }
  const rows = all("tr[data-kind]:not(.truth)");
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").value = `${shown} of ${rows.length} rows`;
}

// A link to a run opens it.
function open() {
  const target = document.getElementById(location.hash.slice(1));
  if (target?.tagName === "DETAILS") target.open = true;
}

for (const button of all("th button")) button.addEventListener("click", () => sort(button));
for (const control of [find, kind, family]) control.addEventListener("input", filter);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", open);
open();
filter();
