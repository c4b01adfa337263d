"use strict";
// Sorts, searches and filters the leaderboard, filters other tables, keeps both in the address, and copies blocks of code.
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  const select = (node) => {
    if (node.select) return node.select();
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  const copy = (text, node) => {
    // Pages from a disk have no clipboard: the text is selected, for the keyboard.
    select(node);
    return navigator.clipboard ? navigator.clipboard.writeText(text).then(() => true, () => false) : Promise.resolve(false);
  };
  const say = (button, done) => {
    const before = button.dataset.text || (button.dataset.text = button.textContent);
    button.textContent = done ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = before; }, 1500);
  };

  for (const button of all(".copy")) {
    const block = button.parentNode.querySelector("pre");
    button.hidden = false;
    button.addEventListener("click", () => copy(block.textContent, block).then((done) => say(button, done)));
  }

  const filtered = document.querySelector("table.filtered");
  if (filtered) {
    const form = document.querySelector(".rows");
    const lines = [...filtered.tBodies[0].rows];
    const choices = all("select", form);
    const draw = () => {
      const fits = (line) => choices.every((s) => !s.value || line.dataset[s.dataset.of || s.name].split(" ").includes(s.value));
      let count = 0;
      for (const line of lines) { line.hidden = !fits(line); count += !line.hidden; }
      form.querySelector("[role=status]").textContent = `${count || "no"} of ${lines.length} ${filtered.dataset.noun}`;
      document.querySelector(".none").hidden = count > 0;
      differ(count === 1 && choices.every((s) => s.value) ? lines.find((line) => !line.hidden) : null);
    };
    const differ = (line) => { // the images on which two defenses differ, as links
      const place = document.querySelector(".differ");
      if (!place) return;
      place.hidden = !line || !("a" in line.dataset);
      place.replaceChildren(...(place.hidden ? [] : line.dataset.pair.split(" ")).map((slug, i) => {
        const part = document.createElement("p");
        part.append(`Only ${line.cells[i].textContent} is right on: `);
        for (const index of line.dataset["ab"[i]].split(" ").filter(Boolean)) {
          const link = document.createElement("a");
          link.href = `${slug}-images.html#i${index}`;
          link.textContent = index;
          part.append(link, " ");
        }
        return part;
      }));
    };
    const read = () => { // "#state=only&label=3", or "#i17", which is shown whatever was chosen
      const hash = location.hash.slice(1);
      const state = new URLSearchParams(hash.includes("=") ? hash : "");
      for (const s of choices) {
        const value = state.get(s.name) || "";
        s.value = [...s.options].some((o) => o.value === value) ? value : "";
      }
      draw();
      const target = hash && !hash.includes("=") && document.getElementById(hash);
      if (target) target.scrollIntoView({ block: "center" });
    };
    const changed = () => {
      draw();
      const hash = choices.filter((s) => s.value).map((s) => `${s.name}=${s.value}`).join("&");
      try { history.replaceState(null, "", location.href.split("#")[0] + (hash && `#${hash}`)); } catch { /* stays */ }
    };
    form.hidden = false;
    form.addEventListener("input", changed);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(changed));
    document.querySelector("[name=reset]").addEventListener("click", () => form.reset());
    addEventListener("hashchange", read);
    read();
  }

  const table = document.getElementById("board");
  if (!table) return;
  const form = document.querySelector(".controls");
  const status = form.querySelector("[role=status]");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filters = all("select", form);
  const boxes = all("[name=cols]", form);
  const heads = [...table.tHead.rows[0].cells].map((cell, index) => ({
    cell, index, key: cell.dataset.k, text: "t" in cell.dataset, rising: "up" in cell.dataset,
    low: cell.dataset.l, high: cell.dataset.h, group: (cell.className.match(/g-(\w+)/) || [])[1],
  }));
  const searched = heads.filter((h) => ["defense", "worst_attack", "venue", "parts"].includes(h.key)).map((h) => h.index);
  const words = rows.map((row) => searched.map((i) => row.cells[i].textContent).join(" ").toLowerCase());
  const shownFirst = boxes.filter((box) => box.defaultChecked).map((box) => box.value);
  const narrow = matchMedia("(max-width: 40rem)").matches;
  const usual = narrow ? ["core"] : shownFirst;
  let sort = null; // {key, falling}

  const number = (cell, name) => (name in cell.dataset ? Number(cell.dataset[name]) : NaN);
  const order = new Intl.Collator(undefined, { numeric: true });
  const compare = (head, falling) => (a, b) => {
    const x = a.cells[head.index], y = b.cells[head.index];
    const none = ("n" in x.dataset) - ("n" in y.dataset);
    if (none || "n" in x.dataset) return none;
    const sign = falling ? -1 : 1;
    if (head.text) return sign * order.compare(x.textContent, y.textContent);
    const by = number(x, "v") - number(y, "v");
    if (by || head.key !== "rank_low") return sign * by || 0;
    return sign * (number(x, "h") - number(y, "h"));
  };

  const shown = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const fits = (row, i) => {
    const query = form.q.value.trim().toLowerCase();
    return query.split(/\s+/).every((word) => words[i].includes(word)) &&
      filters.every((filter) => !filter.value || row.dataset[filter.name] === filter.value);
  };

  const draw = () => {
    const head = sort && heads.find((h) => h.key === sort.key);
    const sorted = head ? [...rows].sort(compare(head, sort.falling)) : rows;
    body.append(...sorted);
    for (const h of heads) {
      if (h === head) h.cell.setAttribute("aria-sort", sort.falling ? "descending" : "ascending");
      else h.cell.removeAttribute("aria-sort");
    }
    let count = 0;
    rows.forEach((row, i) => { row.hidden = !fits(row, i); count += !row.hidden; });
    table.className = shown().map((group) => `s-${group}`).join(" ");
    const text = `${count ? count : "no"} of ${rows.length} rows`;
    if (status.textContent !== text) status.textContent = text;
    document.querySelector(".none").hidden = count > 0;
  };

  const address = () => {
    const state = new URLSearchParams();
    if (form.q.value.trim()) state.set("q", form.q.value.trim());
    if (sort) state.set("sort", sort.key + (sort.falling ? "-" : ""));
    if (shown().join() !== usual.join()) state.set("cols", shown().join());
    for (const filter of filters) if (filter.value) state.set(filter.name, filter.value);
    const hash = state.toString().replaceAll("%2C", ",");
    return location.href.split("#")[0] + (hash ? `#${hash}` : "");
  };
  const changed = () => {
    draw();
    try { history.replaceState(null, "", address()); } catch { /* the address stays as it is */ }
  };

  const read = () => {
    const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    const given = (state.get("sort") || "").match(/^(.*?)(-?)$/);
    form.q.value = state.get("q") || "";
    sort = heads.some((h) => h.key === given[1]) ? { key: given[1], falling: given[2] === "-" } : null;
    const groups = (state.get("cols") || "").split(",").filter((name) => boxes.some((box) => box.value === name));
    for (const box of boxes) box.checked = (groups.length ? groups : usual).includes(box.value);
    for (const filter of filters) {
      const value = state.get(filter.name) || "";
      filter.value = [...filter.options].some((o) => (o.value || "") === value) ? value : "";
    }
    draw();
  };

  const quoted = (text) => {
    const line = text.replace(/\s+/g, " ").trim();
    const safe = /^[=+@]/.test(line) ? `'${line}` : line; // no formula for a spreadsheet
    return /[",]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = () => {
    const heads_ = heads.filter((h) => !h.group || shown().includes(h.group));
    const title = (h) => (h.group === "attacks" ? h.cell.firstElementChild.textContent : h.key);
    const names = heads_.flatMap((h) => (h.key === "rank_low" ? [h.low, h.high] : [title(h), h.low, h.high].filter(Boolean)));
    const lines = [...body.rows].filter((row) => !row.hidden).map((row) => heads_.flatMap((h) => {
      const cell = row.cells[h.index];
      const ends = h.low ? [cell.dataset.l || "", cell.dataset.h || ""] : [];
      if (h.key === "rank_low") return ends;
      const own = cell.querySelector("a") && !h.group ? cell.querySelector("a").textContent : cell.textContent;
      return [h.text ? ("n" in cell.dataset ? "" : own) : cell.dataset.v || "", ...ends];
    }));
    return [names, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };

  for (const head of heads) {
    const label = head.cell.querySelector("span");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...label.childNodes);
    label.append(button);
    button.addEventListener("click", () => {
      const again = sort && sort.key === head.key;
      sort = { key: head.key, falling: again ? !sort.falling : !head.rising };
      changed();
    });
  }
  form.hidden = false;
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  const cleared = () => { // after the form's own reset
    for (const box of boxes) box.checked = usual.includes(box.value);
    sort = null;
    form.querySelector(".given").hidden = true;
    changed();
  };
  form.addEventListener("reset", () => setTimeout(cleared));
  document.querySelector("[name=reset]").addEventListener("click", () => form.reset());
  form.elements.link.addEventListener("click", (event) => {
    const line = form.querySelector(".given");
    form.address.value = address();
    line.hidden = false;
    form.address.focus();
    copy(form.address.value, form.address).then((done) => say(event.target, done));
  });
  form.elements.csv.addEventListener("click", () => {
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    anchor.download = `${table.dataset.name}.csv`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
  });
  for (const box of all(".choose")) {
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { box.open = false; box.firstElementChild.focus(); }
    });
    document.addEventListener("click", (event) => { if (!box.contains(event.target)) box.open = false; });
  }
  addEventListener("hashchange", read);
  read();
})();
