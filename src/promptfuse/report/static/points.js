"use strict";
// Every photo as a point, drawn into a plot when it is opened: of the runs that the gallery shows.

const NEAR = "http://www.w3.org/2000/svg";

function drawCloud(details) {
  const cloud = details.querySelector(".cloud");
  if (!cloud) return;
  const frame = JSON.parse(details.dataset.frame);
  const along = ([low, high, from, to], value) => from + ((value - low) / (high - low)) * (to - from);
  const [across, up] = [frame.across, frame.up].map((key) => report.metrics.findIndex((one) => one.key === key));
  const found = document.createDocumentFragment();
  for (const [id, , captions] of report.photos) {
    captions.forEach(([text, numbers], run) => {
      if (state.hide.has(run) || text === null || numbers[across] === null || numbers[up] === null) return;
      const point = document.createElementNS(NEAR, "circle");
      point.setAttribute("cx", along(frame.x, numbers[across]).toFixed(1));
      point.setAttribute("cy", along(frame.y, numbers[up]).toFixed(1));
      point.setAttribute("r", "2");
      point.setAttribute("fill", report.runs[run].colour);
      const title = document.createElementNS(NEAR, "title");
      title.textContent = `${report.runs[run].name}: ${text}\n${id}`;
      point.append(title);
      found.append(point);
    });
  }
  cloud.replaceChildren(found);
}

for (const details of document.querySelectorAll("details.each")) {
  details.addEventListener("toggle", () => details.open && drawCloud(details));
  if (details.open) drawCloud(details);
}
// Runs are shown and hidden by the gallery's form, whose own listener came first.
form.addEventListener("change", (event) => {
  if (event.target.name === "shown") document.querySelectorAll("details.each[open]").forEach(drawCloud);
});
