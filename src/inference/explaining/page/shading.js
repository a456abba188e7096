// Shows explanations. Texts are not trusted: they go on the page by textContent alone.
"use strict";

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function told(prediction) {
  const labels = [].concat(prediction.label ?? []);
  const chances = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 5);
  const all = chances.map(([name, chance]) => `${name} ${chance.toFixed(4)}`).join(", ");
  return [labels.join(", ") || "no label", all];
}

// The text, each word shaded by its part in the score: for the label, against it, or not read.
function show(explanation) {
  const box = element("article", "");
  const [label, chances] = told(explanation);
  const head = element("p", "", "prediction");
  head.append(element("strong", label, "label"), element("span", ` ${chances}`));
  const most = Math.max(...explanation.pieces.map((piece) => Math.abs(piece.weight ?? 0))) || 1;
  const text = element("p", "", "text");
  for (const piece of explanation.pieces) {
    const span = element("span", piece.text, piece.weight === null ? "unread" : piece.weight < 0 ? "against" : "for");
    if (piece.weight !== null) {
      span.style.setProperty("--strength", `${Math.round((100 * Math.abs(piece.weight)) / most)}%`);
      span.title = piece.weight.toFixed(4);
    }
    text.append(span);
  }
  const key = element("p", "", "key");
  key.append(element("span", `for ${explanation.for}`, "for"), " ");
  key.append(element("span", explanation.against === null ? "against it" : `for ${explanation.against}`, "against"));
  if (explanation.pieces.some((piece) => piece.weight === null)) key.append(" ", element("span", "not read", "unread"));
  if (explanation.together > 1) key.append(` ${explanation.together} words are weighed together.`);
  box.append(head, text, key);
  if (explanation.windows.length > 1) {
    const list = element("ol", "", "windows");
    for (const window of explanation.windows) {
      const item = element("li", "");
      item.append(element("strong", told(window)[0]), ` ${told(window)[1]} `, element("q", window.text));
      list.append(item);
    }
    box.append(element("p", "Read in windows, whose logits are averaged:"), list);
  }
  return box;
}
