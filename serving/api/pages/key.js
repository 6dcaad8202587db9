// Sends requests with the caller's key. If the server refuses one for want of a credential, a form asks for a key, and
// the request is sent again. The key is kept in this tab's session only, and is written nowhere into the page.
import { make } from "./make.js";

const PLACE = "headway-key";
const REFUSED = "The server does not accept this key. It may be mistyped, expired or revoked.";
let asking = null; // a promise while the form is shown

export const hasKey = () => sessionStorage.getItem(PLACE) !== null;
export const isAsking = () => asking !== null;

// Like fetch, for paths of this server. Waits for as long as the form is shown.
export async function send(path, options = {}) {
  for (;;) {
    if (asking) await asking;
    const key = sessionStorage.getItem(PLACE);
    const response = await sendWith(key, path, options);
    if (response.status !== 401) return response;
    if (key === sessionStorage.getItem(PLACE)) {
      sessionStorage.removeItem(PLACE);
      asking ??= askForKey(key === null ? "" : REFUSED);
    }
  }
}

function sendWith(key, path, options) {
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  return fetch(path, { ...options, headers: { ...options.headers, ...headers } });
}

// Shows the form in place of the page, until a key was accepted.
function askForKey(reason) {
  const field = make("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false", autocapitalize: "none",
    required: true, "aria-describedby": "key-note key-error" });
  const error = make("p", { class: "alarm", id: "key-error", role: "alert", hidden: !reason }, reason);
  const open = make("button", {}, "Open");
  const form = make("form", { class: "card ask", novalidate: true },
    make("h1", {}, "This server asks for a key"),
    make("div", { class: "field" }, make("label", { for: "key" }, "API key"), field),
    error, make("div", { class: "row" }, open),
    make("p", { class: "soft", id: "key-note" }, "Kept in this tab until you close it or forget the key. Whoever runs the server makes keys with ",
      make("code", {}, "headway keys create"), "."));
  const main = document.querySelector("main");
  main.classList.add("locked");
  main.prepend(form);
  showWhetherKeyed();
  field.focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      open.disabled = true;
      const refusal = await refusalOf(field.value.trim());
      open.disabled = false;
      error.textContent = refusal;
      error.hidden = !refusal;
      if (refusal) {
        field.select();
        field.focus();
        return;
      }
      sessionStorage.setItem(PLACE, field.value.trim());
      field.value = "";
      form.remove();
      main.classList.remove("locked");
      asking = null;
      showWhetherKeyed();
      resolve();
    });
  });
}

// Returns why the key is not accepted, "" if it is.
async function refusalOf(key) {
  if (!key) return "Type or paste a key first.";
  if (!/^[\x21-\x7e]+$/.test(key)) return "A key has no blanks and no special letters: copy it again, as a whole.";
  try {
    const answer = await sendWith(key, "/v2", { cache: "no-store" });
    if (answer.status === 401) return REFUSED;
    if (answer.status === 429 || answer.status >= 500) return (await answer.json()).error;
    return "";
  } catch (failure) {
    return `The server does not answer: ${failure.message}`;
  }
}

function forget() {
  sessionStorage.removeItem(PLACE);
  location.reload(); // the page then holds nothing that was shown for the key
}

// Shows what there is only for callers with a key: links, and a button to forget it.
function showWhetherKeyed() {
  const shown = hasKey();
  for (const element of document.querySelectorAll("[data-keyed]")) element.hidden = !shown;
  document.getElementById("forget")?.remove();
  if (shown) document.querySelector(".top").append(make("button", { type: "button", class: "quiet", id: "forget", onclick: forget }, "Forget key"));
}

// A link cannot send a header: with a key, what it leads to is fetched and then shown.
for (const link of document.querySelectorAll('a[href="/openapi.json"]')) {
  link.addEventListener("click", async (event) => {
    if (!hasKey()) return;
    event.preventDefault();
    const answer = await send("/openapi.json");
    location.assign(URL.createObjectURL(await answer.blob()));
  });
}
showWhetherKeyed();
