// Tests of Markdown, put behind its modules: what they look at in the browser.

Object.assign(window, { markdownView, renderMarkdown, patchChildren, otherPlace, safeTarget, copyText });

/** All of `text` at once. */
window.whole = (text) => {
  const view = markdownView();
  view.append(text);
  view.end();
  view.work(Infinity, Infinity);
  return view.node;
};

/** `text` in pieces, shown after each; next() tells how long the next one is. */
window.streamed = (text, next) => {
  const view = markdownView();
  for (let at = 0; at < text.length; ) {
    const length = next();
    view.append(text.slice(at, at + length));
    view.work(Infinity, Infinity);
    at += length;
  }
  view.end();
  view.work(Infinity, Infinity);
  return view.node;
};

/** Numbers below n, the same for the same seed. */
window.seeded = (seed) => {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
};

/** Nodes as a short text: <p>a <b>c</b></p>, with what matters of a link, a list, a cell, a task, and code. */
window.tree = (node) => {
  if (node.nodeType === Node.TEXT_NODE) return node.data.replaceAll('<', '&lt;');
  if (node.matches('.md-code')) return `<pre ${node.querySelector('.md-language').textContent}>${node.querySelector('code').textContent}</pre>`;
  if (node.matches('.md-plain')) return `<plain>${node.textContent}</plain>`;
  const inner = [...node.childNodes].map(tree).join('');
  if (node.matches('.md, .md-part, .md-table')) return inner;
  if (node.matches('input')) return node.checked ? '[x]' : '[ ]';
  if (node.matches('br, hr')) return `<${node.localName}>`;
  const name = node.matches('.md-math') ? 'math' : node.matches('.md-place') ? 'place' : node.localName;
  const more = node.getAttribute('href') || node.getAttribute('start') || (node.matches('td, th') && node.className.slice(3)) || '';
  return `<${[name, more].join(' ').trim()}>${inner}</${name}>`;
};

/** Texts made of marks and words by chance, which come out another way in pieces than at once. */
window.differentInPieces = (number) => {
  const bits = ['# ', '## ', '- ', '* ', '1. ', '2) ', '> ', '```\n', '```py\n', '~~~\n', '| a | b |\n|---|---|\n', '| x | y |\n', '**', '*', '_',
      '~~', '`', '``', '[a](https://e.com)', '[', '](', '![', ')', '\n', '\n', '\n\n', '  ', '    ', '\t', 'word ', 'foo', 'bar.', '$x$', '$', '\\',
      '\\(', '\\)', '<br>', 'https://a.b/c', '---\n', '===\n', '- [ ] ', 'ש', '中文', '\u202e', '&amp;', ':', '|', '\r\n', '😀', '   1. ', 'x = "a" # c\n',
      '"'.repeat(3), '/* ', '*/'];
  const random = seeded(16);
  const different = [];
  for (let i = 0; i < number; i += 1) {
      const text = Array.from({ length: 1 + random(60) }, () => bits[random(bits.length)]).join('').repeat(i % 10 ? 1 : 1 + random(60));
      const length = text.length > 2000 ? 400 : 12;
      const wanted = whole(text).innerHTML;
      if (text.length < 300 && streamed(text, () => 1).innerHTML !== wanted) different.push(text);
      if (streamed(text, () => 1 + random(length)).innerHTML !== wanted) different.push(text);
  }
  return different;
};

/** What is put in while 10 000 tokens come, which make(i) gives. */
window.workOf = (make) => {
  const view = markdownView();
  const changes = new MutationObserver(() => {});
  changes.observe(view.node, { childList: true, characterData: true, subtree: true });
  let [most, sum, early] = [0, 0, 0];
  const old = new Set();
  const note = (records) => {
      const nodes = records.reduce((all, { addedNodes }) => all + addedNodes.length, 0);
      most = Math.max(most, nodes);
      sum += nodes;
      early += records.filter(({ target }) => old.has(target)).length;
  };
  for (let i = 0; i < 10_000; i += 1) {
      view.append(make(i));
      if (i % 3 === 0) view.work(Infinity, Infinity); // 60 frames a second, 200 tokens
      if (i % 10 === 0) note(changes.takeRecords());
      if (i === 5000) {
          let last = view.node;
          while (last.lastChild) last = last.lastChild;
          const ended = (node) => !node.contains(last);
          for (const node of [...view.node.querySelectorAll('p, pre, td, .md-box')].filter(ended)) old.add(node);
      }
  }
  view.end();
  view.work(Infinity, Infinity);
  const same = view.node.innerHTML === whole(view.text).innerHTML;
  return { most, mean: sum / 1000, early, same, nodes: view.node.getElementsByTagName('*').length };
};

window.faultsOf = async (texts, mostNodes, mostDeep) => {
    const faults = [];
    for (const text of texts) {
        const view = markdownView();
        document.getElementById('view').replaceChildren(view.node);
        // As it comes over the network: in pieces, the rest while the first ones are shown.
        for (let at = 0; at < text.length; at += 50_000) view.append(text.slice(at, at + 50_000));
        await view.end();
        const all = [...view.node.getElementsByTagName('*')];
        const deepest = all.reduce((most, node) => {
            let depth = 0;
            for (let at = node; at !== view.node && depth < 200; at = at.parentNode) depth += 1;
            return Math.max(most, depth);
        }, 0);
        const note = (fault) => faults.push(`${fault}: ${JSON.stringify(text.slice(0, 200))}`);
        const allowed = 'a blockquote br button code del div em h3 h4 h5 h6 hr input li ol p path pre span strong svg table tbody td th thead tr ul'.split(' ');
        const properties = 'aria-hidden aria-label aria-live checked class colspan d dir disabled href rel role start tabindex target title type viewBox'.split(' ');
        for (const node of all) {
            if (!allowed.includes(node.localName)) note(`an element ${node.localName}`);
            for (const { name } of node.attributes) if (!properties.includes(name)) note(`an attribute ${name}`);
            if (node.localName === 'a' && !/^(https?:\/\/|mailto:)/.test(node.href)) note(`a link to ${node.href}`);
        }
        if (all.length > mostNodes) note(`${all.length} nodes`);
        if (deepest > mostDeep) note(`${deepest} deep`);
        if (/[\u202a-\u202e\u2066-\u2069]/.test(view.node.textContent)) note('an override of the direction');
        if (view.text !== text) note('another text');
    }
    if (window.pwned) faults.push('a script ran');
    return faults;
};

window.ready = true;
