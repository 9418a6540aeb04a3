"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const one = (selector, within = document) => within.querySelector(selector);
  root.classList.add("js");

  // Light and dark. A page opened as a file may have no storage; the choice is then lost.
  const stored = () => {
    try { return localStorage.getItem("indad-theme"); } catch { return null; }
  };
  const store = (theme) => {
    try { localStorage.setItem("indad-theme", theme); } catch { /* no storage */ }
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const themeButton = one("#theme");
  const nameTheme = () => { themeButton.textContent = isDark() ? "Light" : "Dark"; };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  nameTheme();
  system.addEventListener("change", nameTheme);
  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    nameTheme();
  });

  // Tabs.
  for (const list of all("[role=tablist]")) {
    const tabs = all("[role=tab]", list);
    const choose = (chosen) => {
      for (const tab of tabs) {
        const on = tab === chosen;
        tab.setAttribute("aria-selected", on);
        tab.tabIndex = on ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
      }
    };
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => choose(tab));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = tabs[(i + step + tabs.length) % tabs.length];
        choose(next);
        next.focus();
        event.preventDefault();
      });
    });
    if (tabs.length) choose(tabs[0]);
  }

  // Sort the body only; averages stay at the bottom. A third click restores the order.
  const order = new Map();
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const sortBy = (table, column) => {
    const body = table.tBodies[0];
    if (!order.has(body)) order.set(body, Array.from(body.rows));
    const heads = Array.from(table.tHead.rows[0].cells);
    const before = heads[column].getAttribute("aria-sort");
    const original = order.get(body);
    const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
    const numeric = original.some((row) => row.cells[column].dataset.v !== undefined);
    // Numbers start with the highest, names with the first letter.
    const turns = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const now = before === turns[0] ? turns[1] : before === turns[1] ? "none" : turns[0];
    for (const head of heads) {
      if (head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
    }
    heads[column].setAttribute("aria-sort", now);
    const sign = now === "descending" ? -1 : 1;
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      if (!numeric) return sign * collator.compare(x, y);
      const missing = (x === "") - (y === ""); // missing values come last in both orders
      return missing || sign * (Number(x) - Number(y));
    };
    body.append(...(now === "none" ? original : original.slice().sort(compare)));
  };
  for (const table of all("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((head, i) => {
      const button = one("button", head);
      if (button) button.addEventListener("click", () => sortBy(table, i));
    });
  }

  // Filter rows, choose columns, hide intervals and papers.
  const filter = one("#filter");
  const plain = (text) => text.toLowerCase().replace(/[_\s-]+/g, " ").trim();
  if (filter) {
    filter.addEventListener("input", () => {
      const words = plain(filter.value).split(" ").filter(Boolean);
      const shown = new Map();
      for (const row of all("#results tr[data-row]")) {
        const name = plain(row.dataset.name);
        row.hidden = !words.every((word) => name.includes(word));
        shown.set(row.dataset.row, !row.hidden);
      }
      const count = Array.from(shown.values()).filter(Boolean).length;
      one("#filter-count").textContent = words.length ? `${count} of ${shown.size}` : "";
    });
  }
  for (const box of all("[data-show]")) {
    const apply = () => one("#results").classList.toggle(`no-${box.dataset.show}`, !box.checked);
    box.addEventListener("change", apply);
    apply(); // browsers restore the state of a box when a page is reloaded
  }
  for (const box of all("[data-toggle]")) {
    const apply = () => {
      for (const each of all(`#results [data-e="${box.dataset.toggle}"]`)) {
        if (each.ownerSVGElement) each.style.display = box.checked ? "" : "none";
        else each.hidden = !box.checked;
      }
    };
    box.addEventListener("change", apply);
    apply();
  }

  // Copy the visible part of a table as CSV, in full precision.
  const quote = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const written = (cell) =>
    cell.dataset.v ?? cell.dataset.text ?? cell.textContent.trim().replace(/\s+/g, " ");
  const csv = (table) => Array.from(table.rows)
    .filter((row) => !row.hidden)
    .map((row) => Array.from(row.cells).filter((cell) => !cell.hidden)
      .map((cell) => quote(written(cell))).join(","))
    .join("\n") + "\n";
  const copy = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* fall back */ }
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const button of all("[data-copy]")) {
    const label = button.textContent;
    button.addEventListener("click", async () => {
      const target = document.getElementById(button.dataset.copy);
      const done = await copy(target.tagName === "TABLE" ? csv(target) : target.textContent);
      button.textContent = done ? "Copied" : "Not allowed";
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  }

  // One category at a time; its address can be shared.
  const picker = one("#category");
  const panels = all(".category");
  const show = (number) => {
    const chosen = (number + panels.length) % panels.length;
    panels.forEach((panel, i) => { panel.hidden = i !== chosen; });
    picker.value = String(chosen);
    return chosen;
  };
  if (picker) {
    const addressed = () => {
      const match = /^#category-(\d+)$/.exec(location.hash);
      if (!match || Number(match[1]) >= panels.length) return;
      show(Number(match[1]));
      one("#categories").scrollIntoView();
    };
    const go = (number) => history.replaceState(null, "", `#category-${show(number)}`);
    show(0);
    picker.addEventListener("change", () => go(Number(picker.value)));
    one("#previous").addEventListener("click", () => go(Number(picker.value) - 1));
    one("#next").addEventListener("click", () => go(Number(picker.value) + 1));
    addEventListener("hashchange", addressed);
    addressed();
  }

  // Explain a mark on hover and on focus.
  const tip = one("#tip");
  const explain = (event) => {
    const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const box = mark.getBoundingClientRect();
    const right = root.clientWidth - tip.offsetWidth - 8;
    const left = Math.max(8, Math.min(box.left + (box.width - tip.offsetWidth) / 2, right));
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${box.top + scrollY - tip.offsetHeight - 8}px`;
  };
  for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, explain);
  document.addEventListener("focusout", () => { tip.hidden = true; });

  // Show pictures at full size.
  const dialog = one("#zoom");
  for (const button of all(".frame button")) {
    button.addEventListener("click", () => {
      const [picture, large] = [one("img", button), one("img", dialog)];
      large.src = picture.src;
      large.alt = picture.alt;
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", () => dialog.close());
})();
