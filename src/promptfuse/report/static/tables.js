"use strict";
// Tables of numbers: their rows are sorted by a column when its head is chosen, best first.

for (const table of document.querySelectorAll("table.numbers")) {
  const body = table.tBodies[0];
  const given = [...body.rows];
  if (given.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const again = head.getAttribute("aria-sort");
      for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
      // The first column is the order that the runs were given in.
      let sign = head.dataset.better === "lower" ? 1 : -1;
      if (again === (sign > 0 ? "ascending" : "descending")) sign = -sign;
      const value = (row) => Number(row.cells[column].dataset.value ?? NaN);
      const sorted = column === 0 ? given : [...given].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y) || 0;
      });
      if (column > 0) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...sorted);
    });
  });
}
