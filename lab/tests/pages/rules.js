// What every screen has to keep to, in place of axe-core, which is not ours to carry: the rules of
// WCAG 2.2 A and AA that a program can tell, and a few of our own. The body of a function; returns
// what is at fault, one text each. Run in the page, as it is seen then.
const faults = [];
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const seen = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
const named = (element) => {
  const html = element.outerHTML.replace(/\s+/g, " ");
  return html.length > 120 ? `${html.slice(0, 120)}…` : html;
};
const fault = (rule, element) => faults.push(element ? `${rule}: ${named(element)}` : rule);
const text = (element) => element.textContent.replace(/\s+/g, " ").trim();

// The whole page.
if (!document.documentElement.lang) fault("the page does not say its language");
if (!/^.+ · Carnet$/.test(document.title)) fault(`its title is ${document.title}`);
if (all("h1").filter(seen).length !== 1) fault(`it has ${all("h1").length} first headings`);
let level = 0;
for (const heading of all("h1, h2, h3, h4, h5, h6").filter(seen)) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) fault("a level of headings is left out", heading);
  if (!text(heading)) fault("a heading is empty", heading);
  level = next;
}
for (const landmark of ["header", "main"]) {
  if (all(`body > ${landmark}`).length !== 1) fault(`not one landmark ${landmark}`);
}
for (const element of document.body.children) {
  const skips = element.matches("a.skip") && document.querySelector(element.getAttribute("href"));
  if (!skips && !element.matches("header, main, footer, script")) fault("outside of every landmark", element);
}
if (all("a[href], button, input, select, summary").filter(seen)[0] !== document.querySelector("a.skip")) {
  fault("the way to the content is not the first thing");
}
for (const nav of all("nav")) if (!nav.ariaLabel) fault("a navigation has no name", nav);
const ids = all("[id]").map((element) => element.id);
for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) fault(`the id ${id} is there twice`);
for (const element of all("[tabindex]")) if (element.tabIndex > 0) fault("it changes the order of tabs", element);
for (const element of all("[style], [onclick], [onerror], [onload], main script, iframe, object, embed")) {
  fault("not ours", element);
}
if (globalThis.isMarked !== undefined) fault("a script that somebody typed has run");
for (const link of all("link[href], script[src], img[src], use[href]")) {
  if (new URL(link.href?.baseVal ?? link.href ?? link.src, location).origin !== location.origin) fault("from elsewhere", link);
}
for (const part of [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]) {
  if (part.encodedBodySize > 200_000) fault(`${part.name} has ${part.encodedBodySize} bytes`);
}

// Names of what is used.
const referred = (element, attribute) => (element.getAttribute(attribute) ?? "").split(/\s+/).filter(Boolean)
  .map((id) => document.getElementById(id) ?? fault(`its ${attribute} leads nowhere (${id})`, element))
  .filter(Boolean);
const nameOf = (element) => element.ariaLabel || referred(element, "aria-labelledby").map(text).join(" ")
  || [...(element.labels ?? [])].map(text).join(" ") || (element.matches("input, select, textarea, meter") ? "" : text(element))
  || element.querySelector(":scope > title")?.textContent || "";
const fields = all("input:not([type=hidden], [hidden]), select, textarea");
for (const field of fields) {
  if (!nameOf(field).trim()) fault("a field without a label", field);
  if (!field.name) fault("a field that is not sent", field);
  referred(field, "aria-describedby");
  if (field.ariaInvalid === "true") {
    const said = referred(field, "aria-describedby").filter((by) => by.matches(".faults"));
    if (!said.some((by) => text(by))) fault("at fault, and it is not said why", field);
  }
}
for (const group of all("fieldset")) if (!group.querySelector(":scope > legend")) fault("a group without a legend", group);
for (const radio of all("input[type=radio]").filter(seen)) {
  if (!radio.closest("fieldset, [role=radiogroup]")) fault("one of several, and not said of what", radio);
}
for (const used of all("a[href], button, summary, meter, progress, [role=img]")) {
  if (!nameOf(used).trim()) fault("it has no name", used);
}
for (const link of all("a:not([href])")) if (!link.closest("svg")) fault("a link to nowhere", link);
for (const used of all("a, button")) if (used.querySelector("a, button, input, select, summary")) fault("one inside of another", used);
for (const button of all("button")) if (!button.form && button.type === "submit") fault("a button of no form", button);
for (const picture of all("svg")) {
  const says = picture.ariaLabel && ["img", "group"].includes(picture.getAttribute("role"));
  if (!picture.closest("[aria-hidden=true]") && !says) fault("a picture that says nothing", picture);
}
for (const picture of all("img")) if (!picture.hasAttribute("alt")) fault("a picture that says nothing", picture);
for (const element of all("dl > *")) if (!element.matches("dt, dd, div")) fault("no term and no description", element);
for (const element of all("ul > *, ol > *")) if (!element.matches("li")) fault("no item of its list", element);

// Tables: on a phone a cell says itself which column it is of.
for (const table of all("table")) {
  const heads = all("thead th", table);
  if (heads.length === 0) fault("a table without heads", table);
  for (const head of heads) if (!text(head)) fault("a column without a head", head);
  for (const row of all("tbody tr", table)) {
    const cells = [...row.cells];
    const spans = cells.some((cell) => cell.colSpan > 1);
    if (!spans && cells.length !== heads.length) fault("more or fewer cells than heads", row);
    for (const [at, cell] of cells.entries()) {
      const label = cell.dataset.label;
      if (!spans && label !== undefined && heads[at] && !text(heads[at]).toLowerCase().includes(label.toLowerCase())) {
        fault(`a cell of the column ${text(heads[at])} calls itself ${label}`, cell);
      }
    }
  }
}

// A state is said by a sign or a word, and only besides by a colour.
const sign = /^[^\p{L}\p{N}\s]/u;
for (const state of all(".state:not(.none), .fault")) if (!sign.test(text(state))) fault("a state by its colour alone", state);
for (const notice of all(".notice.good, .notice.warn, .notice.bad")) {
  if (!/[●▲✕✓]/.test(notice.innerText) && !notice.querySelector("strong")) fault("a notice by its colour alone", notice);
}

// Contrast, as it is drawn.
const parse = (colour) => {
  const numbers = colour.match(/^rgba?\(([^)]*)\)$/)?.[1].split(/[\s,/]+/).filter(Boolean).map(Number)
    ?? colour.match(/^color\(srgb ([^)]*)\)$/)?.[1].split(/[\s/]+/).filter(Boolean).map((part, at) => Number(part) * (at < 3 ? 255 : 1));
  return numbers && { r: numbers[0], g: numbers[1], b: numbers[2], a: numbers[3] ?? 1 };
};
const over = (top, below) => {
  const mix = (channel) => top[channel] * top.a + below[channel] * (1 - top.a);
  return { r: mix("r"), g: mix("g"), b: mix("b"), a: 1 };
};
const luminance = ({ r, g, b }) => {
  const linear = (channel) => (channel / 255 <= 0.04045 ? channel / 255 / 12.92 : ((channel / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
};
const ratio = (one, other) => {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
};
const ground = (element) => {
  const below = element.parentElement ? ground(element.parentElement) : { r: 255, g: 255, b: 255, a: 1 };
  const colour = parse(getComputedStyle(element).backgroundColor);
  if (!colour) fault(`its ground is ${getComputedStyle(element).backgroundColor}`, element);
  return colour ? over(colour, below) : below;
};
const least = (style) => {
  const size = Number.parseFloat(style.fontSize);
  return size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
};
const readable = (element, style, colour, what, on = ground(element)) => {
  const ink = parse(colour);
  if (!ink) return fault(`its colour is ${colour}`, element);
  const found = ratio(over(ink, on), on);
  if (found < least(style)) fault(`${what} of ${found.toFixed(2)}, not ${least(style)}`, element);
};
for (const element of all("body *")) {
  const isOff = element.closest(":disabled") || element.closest("label")?.control?.disabled;
  if (isOff || !seen(element)) continue;
  const style = getComputedStyle(element);
  const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  // In a picture, what a text stands on is the shape before it.
  const shape = element.closest("svg") && element.previousElementSibling;
  const drawn = shape && parse(getComputedStyle(shape).fill);
  if (says && element.closest("svg")) readable(element, style, style.fill, "contrast in a picture", drawn ? over(drawn, ground(element)) : undefined);
  else if (says || element.matches("input:not([type=checkbox], [type=radio]), select, textarea")) readable(element, style, style.color, "contrast");
  for (const pseudo of ["::before", "::after", "::placeholder"]) {
    const drawn = getComputedStyle(element, pseudo);
    if (pseudo === "::placeholder" ? element.placeholder : !["none", "normal", '""'].includes(drawn.content)) {
      readable(element, drawn, drawn.color, `contrast (${pseudo})`);
    }
  }
  if (element.matches("input:not([type=checkbox], [type=radio]), select, textarea")) {
    const on = ground(element.parentElement);
    const found = ratio(over(parse(style.borderTopColor), on), on);
    if (found < 3) fault(`a field whose border has a contrast of ${found.toFixed(2)}, not 3`, element);
  }
}

// What is to be hit is large enough, or far enough from the next.
const targets = all("a[href], button:not(:disabled), summary, input:not([type=hidden], [hidden], :disabled), select, textarea")
  .filter((element) => seen(element) && !element.matches(".skip"))
  .map((element) => ({ element, box: (element.closest("label") ?? element).getBoundingClientRect() }));
const small = ({ box }) => box.width < 24 || box.height < 24;
const centre = ({ box }) => ({ x: box.x + box.width / 2, y: box.y + box.height / 2 });
for (const target of targets.filter(small)) {
  const parent = target.element.parentElement;
  const inText = getComputedStyle(target.element).display === "inline" && text(parent).length > text(target.element).length + 3;
  const at = centre(target);
  const crowded = targets.some((other) => {
    if (other === target) return false;
    if (small(other)) return Math.hypot(centre(other).x - at.x, centre(other).y - at.y) < 24;
    const x = Math.max(other.box.left, Math.min(at.x, other.box.right));
    const y = Math.max(other.box.top, Math.min(at.y, other.box.bottom));
    return Math.hypot(x - at.x, y - at.y) < 12;
  });
  if (!inText && crowded) fault(`small (${target.box.width.toFixed()} × ${target.box.height.toFixed()}) and close to another`, target.element);
}

// Nothing is beyond the edge of the screen.
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width) {
  const wide = all("main *").filter((element) => seen(element) && element.getBoundingClientRect().right > width + 1);
  fault(`wider than the screen, ${document.documentElement.scrollWidth} of ${width}`, wide.at(-1));
}
return faults;
