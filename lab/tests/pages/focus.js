// Notes what gets the focus from now on, and whether that is seen; returns how many things are to
// get it, one after the other. `globalThis.focused` has it afterwards. The body of a function.
const keys = (element) => `${element.tagName} ${element.getAttribute("href") ?? element.name ?? ""} ${element.value ?? ""} ${element.textContent.replace(/\s+/g, " ").trim()}`;
const group = (element) => (element.type === "radio" ? `radio ${element.name}` : keys(element));
const wanted = () => [...document.querySelectorAll("a[href], button, input:not([type=hidden], [hidden]), select, textarea, summary")]
  .filter((element) => !element.disabled && element.checkVisibility({ visibilityProperty: true }))
  .map(group);
const reached = new Map();
// In a picture it is the stroke of a shape that tells.
const stroke = (shape) => shape && `${getComputedStyle(shape).stroke} ${getComputedStyle(shape).strokeWidth}`;
globalThis.focused = () => ({
  missed: wanted().filter((key) => !reached.has(key)),
  unseen: [...reached].filter(([, { isOutlined, shape, drawn }]) => !isOutlined && stroke(shape) === drawn).map(([key]) => key),
});
document.addEventListener("focusin", ({ target }) => {
  const style = getComputedStyle(target);
  const isOutlined = style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2;
  const shape = target.closest("svg") ? target.querySelector("circle, rect, path") : undefined;
  reached.set(group(target), { isOutlined, shape, drawn: stroke(shape) });
});
document.activeElement?.blur();
document.body.tabIndex = -1;
document.body.focus();
document.body.removeAttribute("tabindex");
return wanted().length;
