// Tables are sorted and filtered, and the points of plots say what they are. Without scripts the page has all of it.
"use strict";
const make = (name, parent, text = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
  return element;
};

const valueOf = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = Number(text.replace("−", "-").replace(/,/g, "").split(" ")[0]);
  return text === "" || Number.isNaN(number) ? text : number;
};
// Numbers come before texts, so that a dash for no value is last.
const compare = (a, b) =>
  typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows];
  if (rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = make("button", heading, heading.textContent);
    heading.firstChild.remove();
    button.onclick = () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const sorted = rows.map(row => [valueOf(row, column), row]).sort(([a], [b]) =>
        typeof a === "number" && typeof b === "number" && descending ? b - a : compare(a, b) * (
          descending && typeof a === typeof b ? -1 : 1));
      body.append(...sorted.map(([, row]) => row));
    };
  });
  if (rows.length < 10) continue;
  const filter = document.createElement("p");
  table.closest(".scroll").before(filter);
  filter.className = "filter";
  const input = make("input", make("label", filter, "Rows with "));
  const count = make("output", filter);
  input.type = "search";
  input.placeholder = "words";
  input.oninput = () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    count.textContent = ` ${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  };
}

// A browser shows a <title> late, and not on a touch screen.
const tip = make("div", document.body), points = new Map();
tip.className = "tip";
tip.hidden = true;
for (const title of document.querySelectorAll("figure svg title")) {
  const text = title.textContent, point = title.parentElement;
  points.set(text, [...(points.get(text) ?? []), point]);
  point.dataset.text = text;
  title.remove();
}
document.addEventListener("pointerover", event => {
  document.querySelectorAll(".same").forEach(point => point.classList.remove("same"));
  const text = event.target.dataset.text;
  tip.hidden = text === undefined;
  if (tip.hidden) return;
  tip.textContent = text;
  points.get(text).forEach(point => point.classList.add("same"));
  const left = Math.min(event.clientX + 12, document.documentElement.clientWidth - tip.offsetWidth - 4);
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 12)}px`;
});
