// As a form is filled in, it is sent as a preview, and what the server answers is put in place of
// what stood there. Nothing is saved by it. Without this module there is a button for the same.
const PAUSE_MS = 350;
let timer;
let asked;

const formOf = (page) => page.querySelector("form[data-preview]");

/** Marks what is shown as no longer that of what is filled in. */
function setPending(isPending) {
  for (const answer of document.querySelectorAll("[data-answer]")) {
    answer.toggleAttribute("data-pending", isPending);
  }
}

/** What is said at each field, as the server says it; what is filled in stays. */
function tell(form, fresh) {
  for (const field of form.querySelectorAll(".field")) {
    const input = field.querySelector("[id]");
    const freshInput = input === null ? null : fresh.querySelector(`#${CSS.escape(input.id)}`);
    if (freshInput === null) {
      continue;
    }
    const freshField = freshInput.closest(".field");
    field.className = freshField.className;
    field.querySelectorAll(":scope > .faults, :scope > .warnings").forEach((old) => old.remove());
    field.append(...freshField.querySelectorAll(":scope > .faults, :scope > .warnings"));
    for (const attribute of ["aria-describedby", "aria-invalid"]) {
      if (freshInput.hasAttribute(attribute)) {
        input.setAttribute(attribute, freshInput.getAttribute(attribute));
      } else {
        input.removeAttribute(attribute);
      }
    }
    const pick = field.querySelector("select[data-adds-to]");
    if (pick !== null && pick.value !== "") {
      input.value = freshInput.value;
      pick.value = "";
    }
  }
  // What is wrong is told at its field; a notice of it would take the focus from who types.
  form.querySelectorAll(".notice").forEach((old) => old.remove());
  form.querySelector("[name=form_token]").after(...fresh.querySelectorAll(".notice.warn"));
}

async function preview(form) {
  asked?.abort();
  asked = new AbortController();
  const fields = new URLSearchParams(new FormData(form));
  fields.set("act", "preview");
  setPending(true);
  const answer = await fetch(form.action, {
    method: "POST",
    headers: { accept: "text/html" },
    body: fields,
    signal: asked.signal,
  });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = formOf(page);
  if (answer.redirected || fresh === null) {
    return;
  }
  // What cannot be read yet leaves the picture as it was, marked as old.
  for (const old of document.querySelectorAll("[data-answer]")) {
    const answered = page.getElementById(old.id);
    if (answered !== null && (answer.ok || answered.childElementCount > 0 || old.id === "summary")) {
      old.replaceChildren(...answered.childNodes);
    }
  }
  setPending(!answer.ok);
  tell(form, fresh);
}

function ask(form, pause) {
  clearTimeout(timer);
  timer = setTimeout(() => preview(form).catch(() => {}), pause);
}

for (const kind of ["input", "change"]) {
  document.addEventListener(kind, (event) => {
    const form = event.target.closest?.("form[data-preview]");
    // A choice is made at once; of what is picked, how it is meant counts only with it.
    if (form && !event.target.name.endsWith("_as")) {
      ask(form, event.target.tagName === "SELECT" ? 0 : PAUSE_MS);
    }
  });
}

// A form that comes without an answer gets one.
const empty = document.querySelector("form[data-preview] #preview:empty");
if (empty !== null && document.querySelector(".faults") === null) {
  ask(empty.closest("form"), 0);
}
