// What the page does in the browser by itself. Loaded once, in the document's head.
(() => {
  const save = (text, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  // A spreadsheet would run what begins like a formula.
  const harmless = (value) => (/^[=+@\t]|^-(?![\d.])/.test(value) ? `'${value}` : value);

  const csv = (table) =>
    [...table.rows]
      .map((row) => [...row.cells].filter((cell) => !cell.classList.contains("pick")))
      .map((cells) => cells.map((cell) => quoted(harmless(cell.dataset.value ?? cell.innerText.trim()))).join(","))
      .join("\r\n");

  // The numbers of the frame "x" stand in "x-numbers", its figure in "x", what is picked goes to "x-picked".
  const frameOf = (element) => element.closest('[id$="-numbers"]')?.id.replace(/-numbers$/, "");

  const pick = (frame, value) => {
    const field = document.querySelector(`#${frame}-picked textarea, #${frame}-picked input`);
    if (!field || value === undefined || value === null) return;
    field.value = String(value);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-save], [data-pick]");
    const frame = button && frameOf(button);
    if (!frame) return;
    if (button.dataset.pick !== undefined) return pick(frame, button.dataset.pick);
    const box = button.closest(".studio-numbers");
    const name = (box.dataset.name || frame).toLowerCase().replace(/[^a-z0-9]+/g, "-");
    if (button.dataset.save === "csv") save(csv(box.querySelector("table")), "text/csv", `${name}.csv`);
    const graph = document.querySelector(`#${frame} .js-plotly-plot`);
    if (button.dataset.save === "svg" && graph && window.Plotly) saveSvg(graph, name);
  });

  // A file has no style sheet: what the page's own style sets is written into the figure first.
  const saveSvg = async (graph, name) => {
    const { width, height } = graph.getBoundingClientRect();
    const colour = "#222";
    const layout = { ...graph.layout, width, height, font: { ...graph.layout.font, color: colour }, paper_bgcolor: "#fff" };
    const url = await window.Plotly.toImage({ data: graph.data, layout }, { format: "svg", width, height });
    save(decodeURIComponent(url.slice(url.indexOf(",") + 1)), "image/svg+xml", `${name}.svg`);
  };

  const listen = () => {
    for (const graph of document.querySelectorAll(".js-plotly-plot")) {
      if (graph.studioListens || !graph.on) continue;
      const frame = graph.closest('[id].studio-frame')?.id;
      if (!frame) continue;
      graph.studioListens = true;
      graph.on("plotly_click", (event) => {
        const data = event.points?.[0]?.customdata;
        pick(frame, Array.isArray(data) ? data[0] : data);
      });
    }
  };
  new MutationObserver(listen).observe(document.documentElement, { childList: true, subtree: true });
})();
