// Makes an element: make("div", {class: "card"}, "text", otherElement). Properties that start with "on" are listeners.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// Makes a table that scrolls within itself where it is too wide.
export function scrolled(...rows) {
  return make("div", { class: "scroll", tabindex: 0 }, make("table", {}, ...rows));
}

export function shapeText(shape) {
  return shape.map((size) => (size < 0 ? "any" : size)).join(" × ");
}
