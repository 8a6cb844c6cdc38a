// Building nodes. Nothing here, and nothing built on it, ever parses HTML: texts become text nodes, so that
// what a model or a file's name says cannot become markup. The page's policy (Trusted Types) enforces it.

const SVG = 'http://www.w3.org/2000/svg';

/** A new element. `properties`: `class`, `on` (event -> listener), `dataset`; all else is an attribute, where
 * true is an empty one and false, null and undefined are none. Children are nodes, texts, or lists of them; what is
 * empty or false is none. */
export function h(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** The same for a drawing. */
export function svg(tag, properties = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), properties, children);
}

function furnish(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === 'dataset') {
      Object.assign(element.dataset, value);
    } else {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  element.append(...flat(children));
  return element;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child || child === 0);
}

/** Put `children` in the place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren(...flat(children));
  return element;
}

// 24 x 24, drawn with a stroke.
const ICONS = {
  plus: 'M12 5v14M5 12h14',
  close: 'M6 6l12 12M18 6L6 18',
  menu: 'M4 7h16M4 12h16M4 17h16',
  send: 'M12 20V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  edit: 'M4 20l1-4L16 5l3 3L8 19zM14 7l3 3',
  trash: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13',
  again: 'M20 12a8 8 0 1 1-2.5-5.8M20 4v4h-4',
  image: 'M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01',
  camera: 'M4 8h4l1.5-2h5L16 8h4v11H4zM12 16a3 3 0 1 0 0-6 3 3 0 0 0 0 6z',
  search: 'M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5L20 20',
  download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
  upload: 'M12 16V5M7 9l5-5 5 5M5 20h14',
  settings: 'M4 7h9M17 7h3M4 17h3M11 17h9M15 9.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM9 19.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z',
  more: 'M6 12h.01M12 12h.01M18 12h.01',
  warning: 'M12 4l9 16H3zM12 10v4M12 17h.01',
  play: 'M8 5l11 7-11 7z',
};

/** A drawn sign beside a text, or alone in a button that has a label. */
export function icon(name) {
  return svg('svg', { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true' }, svg('path', { d: ICONS[name] }));
}

/** A button with a text and, where one is named, a sign before it. `look` has classes beside "button". */
export function textButton(text, onClick, look = '', sign = '') {
  return h('button', { type: 'button', class: `button ${look}`.trim(), on: { click: onClick } }, sign && icon(sign), text);
}

/** An input below its label. */
export function field(label, input, properties = {}) {
  return h('label', { class: 'field', ...properties }, h('span', {}, label), input);
}

/** A button with a sign, whose name is read to who cannot see it. */
export function iconButton(name, label, onClick, properties = {}) {
  const { class: extra = '', ...rest } = properties;
  return h(
    'button',
    { type: 'button', class: `icon-button ${extra}`.trim(), 'aria-label': label, title: label, on: { click: onClick }, ...rest },
    icon(name),
  );
}
