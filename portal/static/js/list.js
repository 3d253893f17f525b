// The list of runs: ticking for a comparison, keys, and addresses without empty parts.
"use strict";

// --- up to five to compare; one more takes the place of the first ---------------------------------------------------
const picked = [];

function showPicks() {
  const form = document.querySelector("[data-picks]");
  if (!form) return;
  const most = Number(form.dataset.picks);
  const boxes = [...form.querySelectorAll("input[name=run]")];
  const ids = boxes.filter((box) => box.checked).map((box) => box.value);
  picked.splice(0, picked.length, ...picked.filter((id) => ids.includes(id)), ...ids.filter((id) => !picked.includes(id)));
  while (picked.length > most) {
    const dropped = picked.shift();
    boxes.find((box) => box.value === dropped).checked = false;
  }
  form.querySelector("[data-compare]").disabled = picked.length < 2;
  form.querySelector("[data-pick-hint]").textContent =
    picked.length === 0
      ? `Tick two to ${most} finished runs to compare them.`
      : picked.length === 1
        ? "One ticked: tick another to compare with."
        : `${picked.length} ticked.`;
}

document.addEventListener("change", (e) => {
  if (e.target.matches("[data-picks] input[name=run]")) showPicks();
});
document.addEventListener("htmx:after:swap", showPicks);
showPicks();

// --- the form's empty fields are no part of the address ---------------------------------------------------------------
for (const form of document.querySelectorAll("[data-find]")) {
  form.addEventListener("formdata", (e) => {
    for (const [name, value] of [...e.formData.entries()]) {
      if (!value || (name === "sort" && value === "-created")) e.formData.delete(name);
    }
  });
}

// --- keys -------------------------------------------------------------------------------------------------------------
const help = document.getElementById("keys");
for (const element of document.querySelectorAll("[data-with-script]")) element.hidden = false;

const rows = () => [...document.querySelectorAll(".runs tbody tr")];
const here = () => rows().findIndex((row) => row.contains(document.activeElement));

function go(step) {
  const all = rows();
  if (!all.length) return;
  const now = here();
  const next = now < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, now + step));
  const link = all[next].querySelector("a");
  link.focus();
  all[next].scrollIntoView({ block: "nearest" });
}

function tick() {
  const box = rows()[here()]?.querySelector("input[name=run]");
  if (box) box.click();
}

const follow = (rel) => document.querySelector(`.pager a[rel=${rel}]`)?.click();
const KEYS = {
  j: () => go(1),
  k: () => go(-1),
  x: tick,
  c: () => document.querySelector("[data-compare]:not(:disabled)")?.click(),
  n: () => follow("next"),
  p: () => follow("prev"),
  "/": () => document.getElementById("find-q").focus(),
  "?": () => help.togglePopover(),
};

document.addEventListener("keydown", (e) => {
  const typing = e.target.closest?.("input:not([type=checkbox]), select, textarea, [contenteditable]");
  if (typing && e.key === "Escape") typing.blur();
  const act = KEYS[e.key];
  if (!act || typing || e.ctrlKey || e.metaKey || e.altKey) return;
  e.preventDefault();
  act();
});
