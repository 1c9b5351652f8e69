"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  const theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    paintKernels();
  });

  // Tables: a click on a head sorts by it; what belongs to a row (its detail) goes with it.
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      head.tabIndex = 0;
      const sort = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => {
          const cell = row.cells[column];
          const value = cell.dataset.value ?? cell.textContent.trim();
          return value !== "" && !Number.isNaN(Number(value)) ? Number(value) : value;
        };
        const body = table.tBodies[0];
        const rows = all(":scope > tr:not(.detail)", body).map((row) => [key(row), row, row.nextElementSibling]);
        rows.sort(([a], [b]) => {
          const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
          return up ? order : -order;
        });
        for (const [, row, next] of rows) {
          body.append(row);
          if (next?.classList.contains("detail")) body.append(next);
        }
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  }

  // Pictures: scroll or drag to move, buttons or Ctrl and the wheel to zoom.
  const scales = new Map();
  const resize = (view, scale, at = null) => {
    const picture = view.querySelector("svg");
    if (!picture) return;
    const before = scales.get(view) ?? 1;
    const next = Math.min(6, Math.max(0.04, scale));
    const [x, y] = at ?? [view.clientWidth / 2, view.clientHeight / 2];
    const left = (view.scrollLeft + x) * (next / before) - x;
    const top = (view.scrollTop + y) * (next / before) - y;
    scales.set(view, next);
    picture.setAttribute("width", picture.viewBox.baseVal.width * next);
    picture.setAttribute("height", picture.viewBox.baseVal.height * next);
    view.scrollTo({ left, top, behavior: "instant" });
  };
  const fit = (view, whole, begin = false) => {
    const picture = view.querySelector("svg");
    if (!picture) return;
    const box = picture.viewBox.baseVal;
    const wide = (view.clientWidth - 14) / box.width;
    resize(view, whole ? Math.min(wide, (view.clientHeight - 14) / box.height) : Math.min(1.4, wide));
    if (begin) resize(view, Math.max(0.8, scales.get(view)));
    view.scrollTo({ left: 0, top: 0, behavior: "instant" });
    const first = picture.querySelector(".node").getBoundingClientRect();
    view.scrollTo({ left: first.left + first.width / 2 - view.getBoundingClientRect().left - view.clientWidth / 2, top: 0, behavior: "instant" });
  };
  for (const view of all(".view")) {
    fit(view, false, true);
    const picture = view.querySelector("svg");
    if (picture && matchMedia("(max-width: 760px)").matches) {
      view.style.height = `${Math.min(view.offsetHeight, picture.getBoundingClientRect().height + 20)}px`;
    }
    const act = { in: () => resize(view, scales.get(view) * 1.3), out: () => resize(view, scales.get(view) / 1.3), whole: () => fit(view, true), width: () => fit(view, false) };
    for (const button of all("button[data-zoom]", view.parentElement)) button.addEventListener("click", act[button.dataset.zoom]);
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const box = view.getBoundingClientRect();
      resize(view, scales.get(view) * Math.exp(-event.deltaY / 300), [event.clientX - box.left, event.clientY - box.top]);
    }, { passive: false });
    let from = null;
    view.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) from = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop, false];
    });
    addEventListener("pointermove", (event) => {
      if (!from) return;
      view.scrollTo({ left: from[0] - event.clientX, top: from[1] - event.clientY, behavior: "instant" });
      from[2] = true;
      view.classList.add("dragging");
    });
    addEventListener("pointerup", () => { from = null; view.classList.remove("dragging"); });
  }

  // A fold, wherever it is shown: one click marks it in the list, the pictures and the chart.
  const rows = all("tr.fold");
  const foldsOf = (element) => [...element.classList].filter((name) => /^r\d+$/.test(name));
  const show = (row, open) => {
    row.setAttribute("aria-expanded", String(open));
    row.nextElementSibling.hidden = !open;
  };
  const mark = (folds) => {
    const wanted = folds.map((name) => `.${name}`).join(",");
    for (const element of all(".marked")) element.classList.remove("marked");
    if (!wanted) return;
    for (const element of all(`.net .node, .net .cluster, .chart .point, tr.fold`)) {
      if (element.matches(wanted)) element.classList.add("marked");
    }
  };
  const reveal = (folds, except) => {
    for (const view of all(".view")) {
      if (view === except) continue;
      const box = view.querySelector(".cluster.marked, .node.marked")?.getBoundingClientRect();
      if (!box) continue;
      const frame = view.getBoundingClientRect();
      view.scrollTo({ left: view.scrollLeft + box.left + box.width / 2 - frame.left - frame.width / 2, top: view.scrollTop + box.top + box.height / 2 - frame.top - frame.height / 2, behavior: "smooth" });
    }
  };
  for (const row of rows) {
    const toggle = () => {
      const open = row.getAttribute("aria-expanded") !== "true";
      show(row, open);
      mark(open ? foldsOf(row) : []);
      if (open) reveal(foldsOf(row));
    };
    row.addEventListener("click", toggle);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") toggle(); });
    for (const button of all("button[data-show]", row.nextElementSibling)) {
      button.addEventListener("click", () => {
        mark(foldsOf(row));
        reveal(foldsOf(row));
        document.querySelector(".pictures")?.scrollIntoView({ block: "center" });
      });
    }
  }
  const choose = (element, view) => {
    const folds = foldsOf(element);
    if (!folds.length) return;
    mark(folds);
    reveal(folds, view);
    const row = rows.find((one) => one.classList.contains(folds[0]));
    if (row) show(row, true);
    return row;
  };
  for (const element of all(".net .node.region, .net .cluster.region")) {
    element.addEventListener("click", () => choose(element, element.closest(".view")));
    element.addEventListener("dblclick", () => choose(element)?.scrollIntoView({ block: "center" }));
  }
  for (const point of all(".chart .point.linked")) {
    point.addEventListener("click", () => choose(point)?.scrollIntoView({ block: "center" }));
  }

  // Search: rows that do not have the word go, boxes that do not have it fade.
  const field = document.getElementById("search");
  const count = document.getElementById("hits");
  field?.addEventListener("input", () => {
    const word = field.value.trim().toLowerCase();
    let hits = 0;
    for (const row of all("table.searchable tbody tr:not(.detail)")) {
      const text = `${row.textContent} ${row.dataset.words ?? ""}`.toLowerCase();
      row.hidden = word !== "" && !text.includes(word);
      if (!row.hidden) hits += 1;
      if (row.nextElementSibling?.classList.contains("detail")) {
        row.nextElementSibling.hidden = row.hidden || row.getAttribute("aria-expanded") !== "true";
      }
    }
    for (const picture of all(".net")) {
      picture.classList.toggle("searching", word !== "");
      for (const box of all(".node", picture)) {
        box.classList.toggle("hit", word !== "" && box.textContent.toLowerCase().includes(word));
      }
    }
    count.textContent = word === "" ? "" : `${hits} rows`;
  });

  // Kernels: one cell for each place, darker where the weights are larger.
  function paintKernels() {
    const data = document.getElementById("kernels");
    if (!data) return;
    const heat = getComputedStyle(root).getPropertyValue("--heat").trim().split(" ").map(Number);
    const kernels = JSON.parse(data.textContent);
    for (const canvas of all("canvas[data-kernel]")) {
      const rows = kernels[Number(canvas.dataset.kernel)];
      const side = Number(canvas.dataset.side);
      const [height, width] = [rows.length, rows[0].length];
      canvas.width = canvas.height = side;
      const paint = canvas.getContext("2d");
      const image = paint.createImageData(width, height);
      rows.flat().forEach((value, place) => image.data.set([...heat, Math.round(255 * Math.sqrt(value))], 4 * place));
      paint.putImageData(image, Math.floor((side - width) / 2), Math.floor((side - height) / 2));
    }
  }
  paintKernels();
})();
