// What every page does beyond links and forms. Everything here has a plain way without script.
"use strict";

const on = (event, selector, act) =>
  document.addEventListener(event, (e) => {
    const element = e.target.closest?.(selector);
    if (element) act(element, e);
  });

// --- theme: the cookie is read by the server, so that the next page comes in it at once ---------------------------
on("click", "[data-theme-choice]", (button) => {
  const theme = button.dataset.themeChoice;
  document.documentElement.dataset.theme = theme;
  document.cookie = `theme=${theme}; path=/; max-age=31536000; samesite=lax`;
  for (const other of document.querySelectorAll("[data-theme-choice]")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
});

// --- copying: the clipboard needs https or localhost, a lab's portal may have neither ------------------------------
async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "sr";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

on("click", "[data-copy]", async (button) => {
  await copy(button.dataset.copy);
  const label = button.lastChild;
  const before = label.textContent;
  if (button.classList.contains("done")) return;
  button.classList.add("done");
  label.textContent = "Copied";
  setTimeout(() => {
    button.classList.remove("done");
    label.textContent = before;
  }, 1500);
});

// --- forms ----------------------------------------------------------------------------------------------------------
on("change", "[data-submits]", (field) => field.form.requestSubmit());

on("click", "[data-set]", (button) => {
  for (const assignment of button.dataset.set.split(" ")) {
    const [name, value] = assignment.split("=");
    const field = document.getElementById(`f-${name}`);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.focus();
  }
});

// --- polling ----------------------------------------------------------------------------------------------------------
// A page that nobody sees asks for nothing.
document.addEventListener("htmx:before:request", (e) => {
  if (document.hidden && e.detail.ctx.request.method === "GET") e.preventDefault();
});

// A session that has ended answers with the sign-in page: go there instead of showing it inside this one.
document.addEventListener("htmx:before:response", (e) => {
  if (e.detail.ctx.response.raw.redirected) {
    e.preventDefault();
    window.location.reload();
  }
});

// A log that is read at its end stays at its end.
let logAtEnd = true;
const log = () => document.querySelector(".live .log");
document.addEventListener("htmx:before:swap", () => {
  const element = log();
  logAtEnd = !element || element.scrollHeight - element.scrollTop - element.clientHeight < 24;
});
document.addEventListener("htmx:after:swap", () => {
  const element = log();
  if (element && logAtEnd) element.scrollTop = element.scrollHeight;
});

for (const element of document.querySelectorAll("[data-no-script]")) element.hidden = true;
document.querySelector("[data-focus]")?.focus();
