// Live updates: whenever the server says that something has changed, the page is fetched anew and
// its main part put in place of the old one. Without this module pages load themselves anew while
// something is being moved.
const main = document.querySelector("main[data-live]");
let source;

/** Whether somebody is about to fill something in, which is not to be taken away. */
function isBusy() {
  const fields = [...main.querySelectorAll("input:not([type=hidden]), select, textarea")];
  return fields.some((field) => field === document.activeElement
    || (field.defaultValue !== undefined && field.value !== field.defaultValue)
    || (field.defaultChecked !== undefined && field.checked !== field.defaultChecked)
    || isChosenAnew(field));
}

/** Whether something else is chosen in a list than the page came with. */
function isChosenAnew(field) {
  if (field.options === undefined) {
    return false;
  }
  const came = [...field.options].findIndex((option) => option.defaultSelected);
  return field.selectedIndex !== Math.max(came, 0);
}

/** What something is that has the focus, so that it is found again on the page that is put there. */
function place(element) {
  return element.getAttribute("href")
    ?? `${element.tagName} ${element.form?.getAttribute("action")} ${element.textContent}`;
}

async function update() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (answer.redirected) {
    // The session has ended.
    location.reload();
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main");
  if (fresh === null || isBusy() || fresh.innerHTML === main.innerHTML) {
    return;
  }
  const open = [...main.querySelectorAll("details[open] summary")].map((summary) => summary.textContent);
  const focused = main.contains(document.activeElement) && place(document.activeElement);
  main.replaceChildren(...fresh.childNodes);
  document.title = page.title;
  for (const summary of main.querySelectorAll("details summary")) {
    summary.parentElement.open = open.includes(summary.textContent);
  }
  if (focused) {
    [...main.querySelectorAll("a, button, summary")].find((element) => place(element) === focused)?.focus();
  }
}

/** A page that nobody looks at holds no connection: browsers have few of them for one server. */
function follow() {
  source?.close();
  source = undefined;
  if (document.visibilityState === "visible") {
    source = new EventSource("/live");
    source.addEventListener("changed", () => update().catch(() => {}));
  }
}

if (main !== null) {
  document.addEventListener("visibilitychange", () => {
    follow();
    if (document.visibilityState === "visible") {
      update().catch(() => {});
    }
  });
  follow();
}
