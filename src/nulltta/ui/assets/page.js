// What the page does in the browser alone: prompts from examples and words, rewards as chips, comparing two pictures.
// The text of the reward is the only truth about it: chips and weights write it, and are drawn from it.
(() => {
  "use strict";
  const HEAVIEST = 100; // the largest weight, either way
  const NUMBER = String.raw`\d+\.?\d*(?:e[+-]?\d+)?|\.\d+`;
  const NAME = String.raw`[a-z][\w.]*(?:-[a-z][\w.]*)*`;
  const TOKEN = new RegExp(String.raw`\s*(?:${NUMBER}|${NAME}(?::(?:"[^"]*"|[^\s()+*,"]+))?|([-+*(),]))`, "iy");
  const TERM = new RegExp(`^(?:(${NUMBER})\\s*\\*\\s*)?(${NAME}(?::#[0-9a-f]{6})?)$`, "i");

  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  /** Write into a text field of Gradio's as if it were typed. */
  function write(selector, text) {
    const field = one(`${selector} textarea`);
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // ---- rewards ----

  /** Split a sum into its terms: {name, weight} or, of what a chip cannot show, {text, weight} with a weight of ±1. */
  function termsOf(text) {
    const terms = [];
    let [depth, sign, from, at] = [0, 1, 0, 0];
    const end = (to) => {
      const term = text.slice(from, to).trim();
      const [, factor, name] = TERM.exec(term) ?? [];
      if (name && !terms.some((each) => each.name === name)) terms.push({ name, weight: sign * Number(factor ?? 1) });
      else if (term) terms.push({ text: term, weight: sign });
    };
    for (TOKEN.lastIndex = 0; ; ) {
      const found = TOKEN.exec(text);
      if (!found) break; // at the end, or where the text is malformed
      at = TOKEN.lastIndex;
      depth += { "(": 1, ")": -1 }[found[1]] ?? 0;
      if (depth || !"+-".includes(found[1] ?? "none")) continue;
      end(at - 1);
      [sign, from] = [found[1] === "-" ? -1 : 1, at];
    }
    end(text.length);
    return terms;
  }

  function written(terms) {
    const factor = (weight) => (Math.abs(weight) === 1 ? "" : `${Number(Math.abs(weight).toPrecision(6))}*`);
    const signed = ({ name, text, weight }, i) =>
      `${i ? (weight < 0 ? " - " : " + ") : weight < 0 ? "-" : ""}${text ?? factor(weight) + name}`;
    return terms.map(signed).join("");
  }

  const tooHeavy = (weight) => !(Math.abs(weight) <= HEAVIEST); // what is not a number is too

  /** Say what of the reward the chips do not show: a weight that was typed and not taken, or a term that is text. */
  function explain(foreign) {
    const typed = document.activeElement;
    const refused = typed?.matches(".rewards [type=number]") && tooHeavy(typed.valueAsNumber);
    const place = one(".better .refused");
    place.textContent = refused
      ? `The weight of ${typed.closest("li").dataset.reward} must be a number between -${HEAVIEST} and ${HEAVIEST}; ` +
        "the reward is unchanged."
      : foreign
        ? "A part of this reward is written as text. What you tick is added to it."
        : "";
    place.hidden = !place.textContent;
  }

  /** Draw the chips from the text. */
  function drawChips() {
    const field = one("#reward textarea");
    if (!field || !one(".better")) return;
    const terms = termsOf(field.value);
    const weights = new Map(terms.filter(({ name }) => name).map(({ name, weight }) => [name, weight]));
    const shown = new Set(all(".rewards li").map((item) => item.dataset.reward));
    const foreign = terms.some(({ name }) => !shown.has(name));
    explain(foreign);
    if (foreign) document.body.classList.add("reward-as-text");
    for (const item of all(".rewards li")) {
      const weight = weights.get(item.dataset.reward);
      const [box, bar, number] = all("input", item);
      box.checked = weight !== undefined;
      item.classList.toggle("chosen", box.checked);
      if (!box.checked) continue;
      const most = Math.max(1, Math.abs(weight), Number(bar.max));
      bar.max = most;
      bar.min = weight < 0 || Number(bar.min) < 0 ? -most : 0;
      if (document.activeElement !== bar) bar.value = weight;
      if (document.activeElement !== number) number.value = weight;
    }
  }

  /** Set one reward's weight in the text; null removes it. */
  function weigh(name, weight) {
    const terms = termsOf(one("#reward textarea").value);
    const others = terms.filter((each) => each.name !== name);
    const place = terms.findIndex((each) => each.name === name);
    if (weight !== null) others.splice(place < 0 ? others.length : place, 0, { name, weight });
    write("#reward", written(others));
  }

  document.addEventListener("input", (event) => {
    const item = event.target.closest(".rewards li");
    if (item) {
      const name = item.dataset.reward;
      if (event.target.type === "checkbox") {
        weigh(name, event.target.checked ? (one("#reward textarea").value.trim() ? 0.3 : 1) : null);
      } else {
        const weight = event.target.valueAsNumber;
        if (!tooHeavy(weight)) weigh(name, weight);
      }
      drawChips();
    } else if (event.target.closest("#reward")) {
      drawChips();
    }
  });
  document.addEventListener("focusout", (event) => {
    if (event.target.closest(".rewards li")) setTimeout(drawChips);
  });

  // ---- prompts ----

  function useWords(box) {
    const [count, thing, second, background, style] = all("select", box);
    const many = thing.selectedOptions[0].dataset.many;
    second.disabled = count.selectedIndex > 0;
    const things = count.selectedIndex ? `${count.value} ${many}` : thing.value + (second.value && ` and ${second.value}`);
    write("#prompts", `${things} on ${background.value} background, ${style.value} style`);
  }

  document.addEventListener("change", (event) => {
    const box = event.target.closest(".words");
    if (box) useWords(box);
    if (event.target.name === "compare") event.target.closest(".compare").dataset.mode = event.target.value;
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      one("#align:not(:disabled)")?.click();
    }
  });

  // ---- pictures ----

  document.addEventListener("input", (event) => {
    if (event.target.matches(".compare .at")) {
      event.target.parentElement.style.setProperty("--at", `${event.target.value}%`);
    }
  });
  const held = (event, holding) => event.target.closest?.(".compare .pictures")?.classList.toggle("held", holding);
  const isHold = (event) => event.target.matches?.(".compare .hold") && [" ", "Enter"].includes(event.key);
  document.addEventListener("pointerdown", (event) => held(event, true));
  document.addEventListener("keydown", (event) => isHold(event) && held(event, true));
  for (const name of ["pointerup", "pointercancel", "keyup", "focusout"]) {
    document.addEventListener(name, () => all(".compare .held").forEach((box) => box.classList.remove("held")));
  }

  /** Save a file under a name that says what it shows; the server names its files by numbers. */
  async function save(link) {
    const answer = await fetch(link.href);
    const local = document.createElement("a");
    local.href = URL.createObjectURL(await answer.blob());
    local.download = link.dataset.save;
    local.click();
    setTimeout(() => URL.revokeObjectURL(local.href), 60000);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-save]");
    if (link) {
      event.preventDefault();
      save(link);
    }
    const example = event.target.closest("[data-prompt]");
    if (example) write("#prompts", example.dataset.prompt);
    if (event.target.closest(".try")) one("#align")?.click();
    if (event.target.closest("#as-text")) {
      const open = document.body.classList.toggle("reward-as-text");
      event.target.setAttribute("aria-expanded", open);
      if (open) one("#reward textarea").focus();
    }
  });

  // ---- the first view ----

  /** Play the clean estimates of the shipped run while its curve draws itself. */
  function play(frame) {
    const frames = Number(frame.style.getPropertyValue("--n"));
    let i = 1;
    const timer = setInterval(() => {
      if (!frame.isConnected) return clearInterval(timer);
      frame.style.setProperty("--i", i);
      if (++i >= frames) clearInterval(timer);
    }, 160);
  }

  function begin() {
    drawChips();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) all(".frame.playing").forEach(play);
  }
  const waiting = setInterval(() => {
    if (!one("#reward textarea") || !one(".better")) return;
    clearInterval(waiting);
    begin();
  }, 50);
  window.nulltta = { drawChips };
})();
