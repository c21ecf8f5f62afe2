/** Elements from data. Text enters as text nodes only: names and answers are not ours and never markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element with a class, attributes and children (elements or strings). */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set the text if it differs, so that a selection in it outlives a beat without news. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const kept = new WeakMap();

/**
 * One child of `parent` per item, in their order; those whose key was there before are the same elements,
 * so focus and transitions outlive an update. `make(item)` gives `{root, update(item)}`.
 * Returns the views, by key.
 */
export function keep(parent, items, key, make) {
  const before = kept.get(parent) ?? new Map();
  const views = new Map();
  for (const item of items) views.set(key(item), before.get(key(item)) ?? make(item));
  for (const [name, view] of before) if (!views.has(name)) view.root.remove();
  let place = parent.firstElementChild;
  for (const item of items) {
    const view = views.get(key(item));
    if (view.root === place) place = place.nextElementSibling;
    else parent.insertBefore(view.root, place);
    view.update(item);
  }
  kept.set(parent, views);
  return views;
}
