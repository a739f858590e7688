"use strict";
(() => {
  // ---- light, dark, or as the system has it
  const root = document.documentElement;
  const tools = document.getElementById("tools");
  const remember = {
    get() { try { return localStorage.getItem("optiprune-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("optiprune-theme", value); } catch { /* not kept */ } },
  };
  const label = document.createElement("label");
  label.append("Theme ");
  const choice = document.createElement("select");
  for (const [value, text] of [["system", "as the system"], ["light", "light"], ["dark", "dark"]]) {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text;
    choice.append(option);
  }
  const before = remember.get();
  choice.value = ["light", "dark"].includes(before) ? before : "system";
  root.dataset.theme = choice.value;
  choice.addEventListener("change", () => {
    root.dataset.theme = choice.value;
    remember.set(choice.value);
  });
  label.append(choice);
  tools.append(label);
  tools.hidden = false;

  // ---- tables that sort
  const said = document.getElementById("said");
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const valueOf = (cell) => {
    const text = cell.dataset.v ?? cell.textContent;
    return text === "–" || text === "" ? null : text;
  };
  const sort = (table, index, down) => {
    const body = table.tBodies[0];
    const numeric = table.tHead.rows[0].cells[index].classList.contains("n");
    const rows = Array.from(body.rows, (row) => [valueOf(row.cells[index]), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);  // none comes last
      const order = numeric ? Number(a) - Number(b) : compare(a, b);
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  };
  for (const table of document.querySelectorAll("table.sorts")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, index, down);
        said.textContent = `Sorted by ${button.textContent}, ${down ? "descending" : "ascending"}`;
      });
    });
  }

  // ---- what is folded opens for print, and for a link that leads into it
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
    opened = [];
  });
})();
