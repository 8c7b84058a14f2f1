// What a browser is asked about the fleet's page once it has looked twice; the same page again at 400 px.
"use strict";

function outside(root, width) {
  return [...root.querySelectorAll("td, span, h1, b, p")]
    .filter((each) => each.getClientRects().length && each.getBoundingClientRect().right > width + 1)
    .map((each) => each.textContent.slice(0, 40));
}

function tell() {
  const frame = document.createElement("iframe");
  frame.style.width = "400px";
  frame.style.height = "800px";
  frame.style.border = "0";
  document.body.append(frame);
  const inner = frame.contentDocument;
  inner.head.append(document.querySelector("style").cloneNode(true));
  inner.body.append(document.querySelector("main").cloneNode(true));
  const found = {
    rows: document.querySelectorAll("tbody tr").length,
    states: [...document.querySelectorAll("td.state .pill")].map((each) => each.textContent),
    title: document.title,
    text: document.querySelector("main").innerText,
    images: document.images.length,
    looked: Number(document.body.dataset.looked),
    fetched: performance.getEntriesByType("resource").map((each) => each.name),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    narrow_overflow: inner.documentElement.scrollWidth - 400,
    narrow_outside: outside(inner, 400),
  };
  const told = document.createElement("pre");
  told.id = "probe";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
}

function wait() {
  if (Number(document.body.dataset.looked || 0) >= 2) tell();
  else setTimeout(wait, 100);
}
wait();
