// What a browser is asked about the report: its colors, what it fetched, what sticks out, what is hard to read.
"use strict";

function rgba(text) {
  const parts = text.match(/[\d.]+/g).map(Number);
  return parts.length < 4 ? [...parts, 1] : parts;
}

function over(top, below) {
  return [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat([1]);
}

function background(element) {
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    layers.push(rgba(getComputedStyle(each).backgroundColor));
  }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
}

// Relative luminance and contrast as WCAG 2 defines them.
function luminance(color) {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = color.slice(0, 3).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(element) {
  const back = background(element);
  const text = over(rgba(getComputedStyle(element).color), back);
  const [bright, dim] = [luminance(back), luminance(text)].sort((x, y) => y - x);
  return (bright + 0.05) / (dim + 0.05);
}

function isRead(element) {
  const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const shown = element.getClientRects().length && getComputedStyle(element).visibility === "visible";
  return text && shown && !["SCRIPT", "title"].includes(element.tagName);
}

addEventListener("load", async () => {
  for (const button of document.querySelectorAll(".copy button")) button.click();
  await new Promise((done) => setTimeout(done, 300));
  const read = [...document.body.querySelectorAll("*")].filter(isRead);
  const width = document.documentElement.clientWidth;
  const widths = (selector) =>
    [...document.querySelectorAll(selector)].map((each) => each.getBoundingClientRect().width);
  const found = {
    background: getComputedStyle(document.body).backgroundColor,
    fetched: performance.getEntriesByType("resource").map((each) => each.name),
    overflow: document.documentElement.scrollWidth - width,
    outside: read.filter((each) => each.getBoundingClientRect().right > width + 1).map((each) => each.textContent),
    pale: read.map((each) => [contrast(each), each.textContent.slice(0, 30)]).filter((each) => each[0] < 4.5),
    bars: widths(".lanes .bar"),
    curves: widths("polyline"),
    read: read.length,
    copied: [...document.querySelectorAll(".copy button")].filter((each) => each.textContent === "copied").length,
    copies: document.querySelectorAll(".copy button").length,
    first: document.querySelector("section h2").textContent,
    red: getComputedStyle(document.querySelector(".bar.failed") || document.body).backgroundColor,
    stacked: [...document.querySelectorAll(".stack td")].map((each) => getComputedStyle(each).display),
  };
  const told = document.createElement("pre");
  told.id = "probe";
  told.textContent = JSON.stringify(found);
  parent.document.body.append(told);  // the page is in a frame, whose width may be less than any window's
});
