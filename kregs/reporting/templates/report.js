"use strict";
// Sorts a table by a click on its head, and shows the rows that contain the words of a text field.
for (const box of document.querySelectorAll("[data-sortable]")) {
  const body = box.querySelector("tbody");
  const heads = [...box.querySelectorAll("th")];
  const rows = [...body.rows];
  const unknown = "–";
  const words = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());

  const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const isNumber = (text) => text.trim() !== "" && Number.isFinite(Number(text));

  function sortBy(column) {
    const ascending = heads[column].getAttribute("aria-sort") !== "ascending";
    const known = rows.filter((row) => valueOf(row, column) !== unknown);
    const absent = rows.filter((row) => valueOf(row, column) === unknown);
    const numbers = known.every((row) => isNumber(valueOf(row, column)));
    const order = (a, b) => {
      const [left, right] = [valueOf(a, column), valueOf(b, column)];
      return numbers ? Number(left) - Number(right) : left.localeCompare(right);
    };
    known.sort((a, b) => (ascending ? order(a, b) : order(b, a)));
    body.append(...known, ...absent); // what is absent stays last
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(column));
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
  });

  const bar = document.createElement("div");
  bar.className = "filter";
  const label = document.createElement("label");
  label.textContent = "Show rows with ";
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "words or numbers";
  const count = document.createElement("output");
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !wanted.every((word) => words[place].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = field.value.trim() ? `${shown} of ${rows.length}` : "";
  });
  label.append(field);
  bar.append(label, count);
  box.before(bar);
}
