// What the page does in the browser by itself. Loaded once, in the document's head.
(() => {
  // Gradio shows an answer once its request has been taken up. Were a request taken up later than those after it, as on a
  // busy server, its older picture would come last and stay. So each is sent when the one before it has been taken up.
  const LONGEST_WAIT_MS = 10000;
  const send = window.fetch;
  let takenUp = Promise.resolve();
  window.fetch = (url, ...others) => {
    const address = String(url?.url ?? url);
    if (address.includes("/queue/data")) return streamed(() => send(url, ...others));
    if (!address.includes("/queue/join")) return send(url, ...others);
    const answer = takenUp.then(() => send(url, ...others)).then(noted);
    takenUp = Promise.race([answer.catch(() => {}), new Promise((end) => setTimeout(end, LONGEST_WAIT_MS))]);
    return answer;
  };

  // The answers come by a stream, which the server closes once it has sent all that it knows of. A request that is taken
  // up just then would wait for ever, since the page still takes that stream for open; and a stream that is opened for an
  // answer which the one before has brought would never be closed. So it is kept here who waits: a stream goes on while
  // anybody does, and is closed at once where nobody does.
  const waiting = new Set(), answered = new Set();
  const CLOSE = 'data: {"msg":"close_stream"}';
  const noted = async (response) => {
    const { event_id: id } = await response.clone().json().catch(() => ({}));
    if (id && !answered.delete(id)) waiting.add(id);
    return response;
  };
  const streamed = async (open) => {
    const first = waiting.size ? await open() : new Response(`${CLOSE}\n\n`);
    if (!first.ok || !first.body) return first;
    const messages = told(first, open), encoder = new TextEncoder();
    const body = new ReadableStream({
      async pull(stream) {
        const { done, value } = await messages.next();
        if (done) stream.close();
        else stream.enqueue(encoder.encode(`${value}\n\n`));
      },
    });
    return new Response(body, { headers: first.headers });
  };
  const told = async function* (first, open) {
    for (let response = first; response.ok; response = await open()) {
      let isClosed = false;
      for await (const message of messagesOf(response.body)) {
        const [, kind] = message.match(/"msg": ?"(\w+)"/) ?? [], [, id] = message.match(/"event_id": ?"(\w+)"/) ?? [];
        if (kind === "process_completed" && !waiting.delete(id)) answered.add(id);
        isClosed = kind === "close_stream";
        if (!isClosed) yield message;
      }
      if (!isClosed || !waiting.size) break;
    }
    waiting.clear();
    yield CLOSE;
  };
  const messagesOf = async function* (body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const messages = (rest + value).split("\n\n");
      rest = messages.pop();
      yield* messages;
    }
  };

  const save = (text, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  // A spreadsheet would run what begins like a formula; numbers stay numbers.
  const isNumber = (value) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value);
  const harmless = (value) => (/^\s*[=+@\-＝＋－＠]|^[\t\r\n]/.test(value) && !isNumber(value) ? `'${value}` : value);

  const csv = (table) =>
    [...table.rows]
      .map((row) => [...row.cells].filter((cell) => !cell.classList.contains("pick")))
      // Not innerText: where the table is folded, that is empty.
      .map((cells) => cells.map((cell) => quoted(harmless(cell.dataset.value ?? cell.textContent.trim()))).join(","))
      .join("\r\n");

  // The numbers of the frame "x" stand in "x-numbers" (or say whose they are), its figure in "x", what is picked goes to "x-picked".
  const frameOf = (element) =>
    element.closest("[data-frame]")?.dataset.frame ?? element.closest('[id$="-numbers"]')?.id.replace(/-numbers$/, "");

  const pick = (frame, value) => {
    const field = document.querySelector(`#${frame}-picked textarea, #${frame}-picked input`);
    if (!field || value === undefined || value === null) return;
    field.value = String(value);
    field.dispatchEvent(new Event("input", { bubbles: true }));
    // Gradio tells of input at a key's press only.
    field.dispatchEvent(new KeyboardEvent("keypress", { key: "Unidentified", bubbles: true }));
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-save], [data-pick]");
    const frame = button && frameOf(button);
    if (!frame) return;
    if (button.dataset.pick !== undefined) return pick(frame, button.dataset.pick);
    const box = button.closest(".studio-saved");
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

  // What is drawn while its tab is hidden has a width of its own: it is made to fit once it is seen.
  const fitting = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const drawn = target._fullLayout?.width;
      if (drawn && target.offsetParent && Math.abs(drawn - target.clientWidth) > 1) window.Plotly?.Plots.resize(target);
    }
  });

  // What hovering tells of a heatmap's cells travels once, however many panels there are.
  const share = (graph) => {
    const cells = graph.layout?.meta?.cells;
    if (!cells || !window.Plotly) return;
    const bare = [...graph.data.keys()].filter((index) => graph.data[index].type === "heatmap" && !graph.data[index].text);
    if (bare.length) window.Plotly.restyle(graph, { text: [cells] }, bare);
  };

  const listen = () => {
    for (const graph of document.querySelectorAll(".js-plotly-plot")) {
      share(graph);
      if (!graph.studioFits) fitting.observe(graph);
      graph.studioFits = true;
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
  const TOURED = "fisher-merge-studio-toured";
  const remember = () => {
    try { localStorage.setItem(TOURED, "yes"); } catch { /* private windows may refuse: the tour is offered again */ }
    invite(false);
  };
  const invite = (isNew) => {
    for (const part of document.querySelectorAll(".studio-invitation span, [data-tour=dismiss]")) part.hidden = !isNew;
  };
  const welcome = () => {
    const invitation = document.querySelector(".studio-invitation");
    if (!invitation || invitation.studioSeen) return;
    invitation.studioSeen = true;
    let toured = null;
    try { toured = localStorage.getItem(TOURED); } catch { toured = "yes"; }
    invite(!toured);
  };

  let at = -1, cameFrom = null;
  const show = (index) => {
    const steps = JSON.parse(document.querySelector(".studio-invitation").dataset.steps);
    if (index < 0 || index >= steps.length) return end();
    if (at < 0) cameFrom = document.activeElement;
    at = index;
    const step = steps[index];
    // On a phone some tabs stand in a menu of their own.
    const tabs = document.querySelectorAll("button[role=tab], .overflow-dropdown button");
    const tab = [...tabs].find((one) => one.textContent.trim() === step.tab);
    if (tab && tab.getAttribute("aria-selected") !== "true") tab.click();
    const card = document.querySelector(".studio-tour") ?? document.body.appendChild(document.createElement("div"));
    card.className = "studio-tour";
    card.setAttribute("role", "dialog");
    card.setAttribute("aria-labelledby", "studio-tour-title");
    card.innerHTML = `<h2 id="studio-tour-title" tabindex="-1"></h2><p></p><div class="buttons"><span></span>
      <button type="button" class="studio-save" data-tour="back">Back</button>
      <button type="button" class="studio-save" data-tour="next"></button>
      <button type="button" class="studio-save" data-tour="end">End</button></div>`;
    card.querySelector("h2").textContent = step.title;
    card.querySelector("p").textContent = step.text;
    card.querySelector("span").textContent = `${index + 1} of ${steps.length}`;
    card.querySelector("[data-tour=back]").disabled = index === 0;
    card.querySelector("[data-tour=next]").textContent = index + 1 < steps.length ? "Next" : "Done";
    card.querySelector("h2").focus({ preventScroll: true });
    point(step.target, index, 20);
  };
  // A tab is drawn a moment after it is opened.
  const point = (target, index, tries) => {
    if (index !== at) return;
    for (const old of document.querySelectorAll(".studio-toured")) old.classList.remove("studio-toured");
    const found = document.querySelector(target);
    if (!found?.getClientRects().length) return tries && setTimeout(() => point(target, index, tries - 1), 150);
    found.classList.add("studio-toured");
    found.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  };
  const end = () => {
    at = -1;
    document.querySelector(".studio-tour")?.remove();
    for (const old of document.querySelectorAll(".studio-toured")) old.classList.remove("studio-toured");
    remember();
    cameFrom?.focus?.();
  };
  document.addEventListener("click", (event) => {
    const move = event.target.closest?.("[data-tour]")?.dataset.tour;
    if (move === "start") show(0);
    if (move === "dismiss") remember();
    if (move === "back") show(at - 1);
    if (move === "next") show(at + 1);
    if (move === "end") end();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && at >= 0 && end());

  // All rows are asked for once their preview is painted.
  let settling = null;
  const settle = () => {
    const name = document.querySelector("[data-preview]")?.dataset.preview;
    if (!name || name === settling) return;
    settling = name;
    requestAnimationFrame(() => setTimeout(() => pick("preview", name)));
  };

  const changed = () => { listen(); welcome(); settle(); };
  new MutationObserver(changed).observe(document.documentElement, { childList: true, subtree: true });
})();
