// The page to play with: 200 headlines on a map, before and after a fit.
// PLAYGROUND, the data, is written by docs/_extensions/playground.py.
"use strict";

(() => {
  const SIZE = 640, MARGIN = 38, REACH = 26, SECONDS = 1.8;
  // A shape for each class, about as large as a circle of radius 7.
  const SHAPES = [
    "M7 0A7 7 0 1 1 -7 0A7 7 0 1 1 7 0Z",
    "M0 -8.5L8 6H-8Z",
    "M-6.2 -6.2H6.2V6.2H-6.2Z",
    "M0 -9L9 0L0 9L-9 0Z",
    "M-2.7 -8H2.7V-2.7H8V2.7H2.7V8H-2.7V2.7H-8V-2.7H-2.7Z",
  ];
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const box = document.getElementById("playground");
  if (!box) return;
  if (typeof PLAYGROUND === "undefined") {
    box.textContent = "The data of the map were not made with this site.";
    return;
  }

  const { classes, points, silhouettes } = PLAYGROUND;
  points.forEach(describe);
  const wrong = points.filter(point => !point.right).length;
  const state = { when: 0, goal: 0, chosen: null, only: null };

  // ---- small helpers

  function make(tag, attributes = {}, ...children) {
    const drawn = ["svg", "g", "path", "line", "circle", "text"].includes(tag);
    const element = drawn
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
      element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function describe(point, row) {
    point.row = row;
    point.text = point.words.map(([piece]) => piece).join("");
    const likeliest = Math.max(...point.probabilities);
    point.predicted = point.probabilities.indexOf(likeliest);
    point.right = point.predicted === point.topic;
    const values = point.words.map(([, value]) => Math.abs(value ?? 0));
    point.strongest = Math.max(...values, 0.01);
    point.late = ((row * 37) % points.length) / points.length;  // who leaves last
  }

  function icon(topic, hollow = false) {
    const look = `pg-icon pg-topic-${topic}${hollow ? " pg-wrong" : ""}`;
    return make("svg", { viewBox: "-11 -11 22 22", class: look, "aria-hidden": true },
      make("path", { d: SHAPES[topic % SHAPES.length] }));
  }

  function percent(share) {
    if (share > 0.995) return "> 99%";
    return share < 0.005 ? "< 1%" : `${Math.round(100 * share)}%`;
  }

  // ---- the map

  function placeOf(point, when) {
    // Points leave one after the other, and arrive gently.
    const part = Math.min(Math.max(1.4 * when - 0.4 * point.late, 0), 1);
    const way = part * part * (3 - 2 * part);
    return [0, 1].map(axis => {
      const [a, b] = [point.before[axis], point.after[axis]];
      return SIZE / 2 + (SIZE / 2 - MARGIN) * (a + (b - a) * way);
    });
  }

  const trail = make("line", { class: "pg-trail" });
  const start = make("circle", { class: "pg-start", r: 4 });
  const ring = make("circle", { class: "pg-ring", r: 15 });
  const dots = points.map(point => make("g", {
    "data-row": point.row, role: "option", tabindex: -1, "aria-selected": false,
    class: `pg-dot pg-topic-${point.topic}${point.right ? "" : " pg-wrong"}`,
    "aria-label": `${point.text}. Topic ${classes[point.topic]}, `
      + `predicted ${classes[point.predicted]}`,
  }, make("path", { d: SHAPES[point.topic % SHAPES.length] })));
  const names = classes.map((name, topic) => {
    // Above most of its points.
    const own = points.filter(point => point.topic === topic && point.right);
    const at = (axis, share) => {
      const sorted = own.map(point => placeOf(point, 1)[axis]).sort((a, b) => a - b);
      return sorted[Math.floor(share * sorted.length)] ?? SIZE / 2;
    };
    const half = 8.5 * name.length;
    const x = Math.min(Math.max(at(0, 0.5), half), SIZE - half);
    return make("text", { x, y: Math.max(at(1, 0.04) - 18, 16) }, name);
  });
  const labels = make("g", { class: "pg-names", "aria-hidden": true }, ...names);
  const map = make("svg", {
    viewBox: `0 0 ${SIZE} ${SIZE}`, class: "pg-map", role: "listbox",
    "aria-label": "Map of headlines. Arrow keys go from one to the next.",
  }, trail, start, ...dots, labels, ring);
  const hint = make("div", { class: "pg-hint", "aria-hidden": true });

  function draw() {
    for (const point of points) {
      point.place = placeOf(point, state.when);
      const [x, y] = point.place.map(number => number.toFixed(1));
      dots[point.row].setAttribute("transform", `translate(${x} ${y})`);
    }
    labels.style.opacity = Math.max(0, 3 * state.when - 2);
    slider.value = Math.round(100 * state.when);
    slider.style.setProperty("--when", state.when);
    slider.setAttribute("aria-valuetext",
      `${slider.value}% of the way to fine-tuned`);
    ends.forEach((end, i) => {
      end.firstChild.checked = i === Math.round(state.when);
    });
    drawTrail();
  }

  function drawTrail() {
    if (!state.chosen) return;
    const [x1, y1] = placeOf(state.chosen, 0), [x2, y2] = state.chosen.place;
    const put = (element, values) => Object.entries(values).forEach(
      ([name, value]) => element.setAttribute(name, value.toFixed(1)));
    put(trail, { x1, y1, x2, y2 });
    put(start, { cx: x1, cy: y1 });
    put(ring, { cx: x2, cy: y2 });
  }

  function go(goal) {
    state.goal = goal;
    if (still.matches) {
      state.when = goal;
      draw();
      return;
    }
    let last = null;
    const step = now => {
      if (state.goal !== goal) return;
      const moved = last === null ? 0 : (now - last) / 1000 / SECONDS;
      last = now;
      const left = goal - state.when;
      state.when += Math.sign(left) * Math.min(Math.abs(left), moved);
      draw();
      if (state.when !== goal) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  // ---- the switch: two ends, and a slider between them

  const ends = ["before", "after"].map((when, i) => {
    const input = make("input", { type: "radio", name: "when", value: when });
    input.addEventListener("click", () => go(i));
    return make("label", { class: "pg-end" }, input,
      make("span", { class: "pg-end-name" }, ["Pretrained", "Fine-tuned"][i]),
      make("span", { class: "pg-end-score" }, "silhouette ",
        make("b", { "data-silhouette": when }, silhouettes[i].toFixed(2))));
  });
  const slider = make("input", {
    type: "range", min: 0, max: 100, class: "pg-slider",
    "aria-label": "From pretrained to fine-tuned",
  });
  slider.addEventListener("input", () => {
    state.when = state.goal = slider.value / 100;
    draw();
  });
  const bar = make("div", { class: "pg-bar", role: "group", "aria-label": "Model" },
    ends[0], slider, ends[1]);

  // ---- the legend, which also keeps one kind of dots

  function keeper(look, name, count, keeps) {
    const button = make("button", { type: "button", "aria-pressed": false },
      look, `${name} `, make("span", { class: "pg-count" }, count));
    button.addEventListener("click", () => {
      state.only = state.only === button ? null : button;
      for (const other of legend.children)
        other.setAttribute("aria-pressed", other === state.only);
      for (const point of points)
        dots[point.row].classList.toggle("pg-dim", !!state.only && !keeps(point));
    });
    return button;
  }

  const legend = make("div", {
    class: "pg-legend", role: "group", "aria-label": "Keep only",
  }, ...classes.map((name, topic) => keeper(icon(topic), name,
    points.filter(point => point.topic === topic).length,
    point => point.topic === topic)),
  keeper(icon(0, true), "wrong", wrong, point => !point.right));
  legend.lastChild.classList.add("pg-keep-wrong");

  // ---- the card of a headline

  const card = make("div", { class: "pg-card" });

  function choose(point, focus = false) {
    if (state.chosen) {
      const old = dots[state.chosen.row];
      old.setAttribute("tabindex", -1);
      old.setAttribute("aria-selected", false);
    }
    state.chosen = point;
    const dot = dots[point.row];
    dot.setAttribute("tabindex", 0);
    dot.setAttribute("aria-selected", true);
    if (focus) dot.focus({ preventScroll: true });
    const without = make("p", { class: "pg-without", "aria-live": "polite" });
    card.replaceChildren(verdict(point), headline(point, without), key(point),
      without, chances(point));
    drawTrail();
  }

  function verdict(point) {
    const [said, is] = [classes[point.predicted], classes[point.topic]];
    const share = percent(point.probabilities[point.predicted]);
    return make("p", { class: "pg-verdict" },
      make("span", { class: point.right ? "pg-yes" : "pg-no" },
        point.right ? "✓ right" : "✗ wrong"),
      " predicted ", make("b", { "data-class": said }, said), ` with ${share}`,
      ...(point.right ? [] : [", but it is ", make("b", {}, is)]));
  }

  function headline(point, without) {
    let strongest = null;
    const pieces = point.words.map(([piece, value]) => {
      if (value === null) return piece;
      const share = Math.abs(value) / point.strongest;
      const look = share < 0.04 ? "" : value > 0 ? "pg-raises" : "pg-lowers";
      const word = make("button", { type: "button", "data-value": value,
        class: `pg-word ${look}`, style: `--share: ${share.toFixed(2)}` }, piece);
      const tell = () => {
        without.textContent = sayWithout(point, piece, value);
      };
      for (const event of ["pointerenter", "focus", "click"])
        word.addEventListener(event, tell);
      if (share === 1) strongest = tell;
      return word;
    });
    strongest?.();
    return make("p", { class: "pg-headline" }, ...pieces);
  }

  function sayWithout(point, word, value) {
    // A value is in log-odds: the odds without the word follow from it.
    const share = point.probabilities[point.predicted];
    const bounded = Math.min(Math.max(share, 5e-4), 1 - 5e-4);
    const left = 1 / (1 + Math.exp(value) * (1 - bounded) / bounded);
    const [from, to] = [percent(share), percent(left)];
    const name = classes[point.predicted];
    if (from === to) return `Without “${word}”, ${name} stays at ${from}.`;
    const way = value > 0 ? "falls" : "rises";
    return `Without “${word}”, ${name} ${way} from ${from} to ${to}.`;
  }

  function key(point) {
    const name = classes[point.predicted];
    return make("p", { class: "pg-key" },
      make("span", { class: "pg-raises", style: "--share: 1" }, "speaks for"), " or ",
      make("span", { class: "pg-lowers", style: "--share: 1" }, "against"), ` ${name}`);
  }

  function chances(point) {
    const rows = classes.map((name, topic) => make("div", {
      class: `pg-chance pg-topic-${topic}`, role: "listitem",
    }, icon(topic), make("span", {}, name,
      ...(topic === point.topic ? [make("i", {}, " true")] : [])),
    make("span", { class: "pg-track", "aria-hidden": true }, make("span", {
      style: `width: ${(100 * point.probabilities[topic]).toFixed(1)}%` })),
    make("span", { class: "pg-share" }, percent(point.probabilities[topic]))));
    return make("div", { class: "pg-chances", role: "list",
      "aria-label": "Probabilities" }, ...rows);
  }

  // ---- pointer and keys

  function nearest(event) {
    const frame = map.getBoundingClientRect(), scale = SIZE / frame.width;
    const x = (event.clientX - frame.left) * scale;
    const y = (event.clientY - frame.top) * scale;
    const away = point => Math.hypot(point.place[0] - x, point.place[1] - y);
    const shown = points.filter(
      point => !dots[point.row].classList.contains("pg-dim"));
    const best = shown.reduce((a, b) => (away(b) < away(a) ? b : a));
    return away(best) <= REACH * Math.max(1, scale) ? best : null;
  }

  function neighbour(key) {
    const [axis, sign] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, -1],
      ArrowDown: [1, 1] }[key] ?? [];
    if (axis === undefined) return null;
    const from = state.chosen.place;
    const costs = points.map(point => {
      const ahead = sign * (point.place[axis] - from[axis]);
      const aside = Math.abs(point.place[1 - axis] - from[1 - axis]);
      const dim = dots[point.row].classList.contains("pg-dim");
      return ahead <= 0 || dim ? Infinity : ahead + 2 * aside;
    });
    const least = Math.min(...costs);
    return least < Infinity ? points[costs.indexOf(least)] : state.chosen;
  }

  map.addEventListener("click", event => {
    const dot = event.target.closest("[data-row]");
    const point = dot ? points[dot.dataset.row] : nearest(event);
    if (point) choose(point, true);
  });
  map.addEventListener("keydown", event => {
    const next = neighbour(event.key)
      ?? { Home: points[0], End: points.at(-1) }[event.key];
    if (next) choose(next, true);
    else if (event.key === "Enter" || event.key === " ")
      choose(points[event.target.dataset.row], true);
    else return;
    event.preventDefault();
  });
  map.addEventListener("pointermove", event => {
    const point = event.pointerType === "mouse" ? nearest(event) : null;
    map.classList.toggle("pg-near", !!point);
    hint.classList.toggle("pg-shown", !!point);
    if (!point) return;
    hint.textContent = point.text;
    const [x, y] = point.place.map(number => 100 * number / SIZE);
    hint.style.cssText = `top: ${y}%; left: ${x}%; --shift: ${-x}%`;
  });
  map.addEventListener("pointerleave", () => hint.classList.remove("pg-shown"));

  // ---- begin: a wrong one is chosen, and the points go once when they are seen

  box.replaceChildren(bar, make("div", { class: "pg-stage" },
    make("div", { class: "pg-paper" }, map, hint), legend, card));
  draw();
  choose(points.find(point => !point.right) ?? points[0]);
  let timer;
  const watch = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    watch.disconnect();
    timer = setTimeout(() => go(1), still.matches ? 0 : 900);
  }, { threshold: 0.4 });
  watch.observe(map);
  for (const own of ["click", "input"])
    box.addEventListener(own, () => {
      watch.disconnect();
      clearTimeout(timer);
    });
})();
