"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const pair = data.sides.length > 1;
  const words = { success: "success", lost: "success lost", failure: "failure", error: "simulator error" };
  const ranks = ["failure", "error", "lost", "success"];
  const byId = (id) => document.getElementById(id);

  /** An element with properties, attributes (data-, aria-) and children. */
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.includes("-")) element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children);
    return element;
  }

  function svg(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  const spaced = (name) => name.replaceAll("_", " ");
  const succeeded = (side) => side.outcome === "success";
  const subgoals = (episode) => data.tasks[episode.task].subgoals;
  const reachedRank = (episode, side) => subgoals(episode).indexOf(side.reached);

  function relation(episode) {
    if (episode.sides.some((side) => side.outcome === "error")) return "error";
    const [a, b] = episode.sides.map(succeeded);
    if (a && b) return "both";
    if (!a && !b) return "neither";
    return a ? "a" : "b";
  }

  // ---- tiles -------------------------------------------------------------------------------------------------------

  function badge(side, label = "") {
    return make("span", { className: `badge ${side.outcome}` }, label + (label ? "" : words[side.outcome]));
  }

  /** The sub-goals of an episode over its steps, success lowest, as a small picture. */
  function strip(episode, side) {
    const names = subgoals(episode);
    const picture = svg("svg", {
      class: "strip", viewBox: `0 0 ${data.tasks[episode.task].max_steps} ${names.length}`,
      preserveAspectRatio: "none", "aria-hidden": "true",
    });
    names.forEach((name, row) => {
      for (const [begin, end] of side.flags[name] ?? []) {
        picture.append(svg("rect", {
          x: begin, width: end - begin, y: row + 0.08, height: 0.84, class: name === "success" ? "success" : "",
        }));
      }
    });
    return picture;
  }

  function pictures(episode) {
    if (!episode.sides.some((side) => side.picture)) return [];
    const images = episode.sides.map((side) =>
      side.picture
        ? make("img", { src: `data:image/jpeg;base64,${side.picture}`, alt: "", loading: "lazy" })
        : make("span"));
    const film = episode.sides.some((side) => side.video !== null)
      ? [make("span", { className: "film" }, "\u25b6 video")] : [];
    return [make("span", { className: "pictures" }, ...images, ...film)];
  }

  function when(side) {
    return side.first === null ? `${side.steps} steps` : `success at ${side.first} of ${side.steps}`;
  }

  const trials = data.episodes.some((episode) => episode.trial > 0);

  /** Layout, and what else tells the episode from others of its task. */
  function where(episode) {
    const variant = episode.variant === "default" ? "" : `${episode.variant}, `;
    return variant + episode.layout + (trials ? `, trial ${episode.trial}` : "");
  }

  /** Why an episode failed: its class, and what happened. */
  function why(side) {
    if (!side.failure) return [];
    const label = make("span", { className: "why-class" }, data.failures[side.failure]);
    return [make("span", { className: "why" }, label, side.why === data.failures[side.failure] ? "" : `: ${side.why}`)];
  }

  function tile(episode) {
    const name = data.tasks[episode.task].label;
    const spoken = episode.sides.map((side, i) => (pair ? `${data.sides[i]} ` : "") + words[side.outcome]).join(", ");
    const film = episode.sides.some((side) => side.video !== null && !side.picture) ? "\u25b6" : "";
    const [only] = episode.sides;
    const results = pair
      ? [make("span", { className: "strips" }, ...episode.sides.map((side, i) =>
        make("span", {}, badge(side, data.sides[i]), ...why(side), strip(episode, side))))]
      : [make("span", { className: "tile-line" }, badge(only),
        make("span", { className: "tile-meta" }, only.first === null ? "" : `step ${only.first}`)),
      ...why(only), strip(episode, only)];
    const button = make("button", {
      type: "button", className: "tile", "aria-label": `${name}, ${where(episode)}: ${spoken}`, title: episode.id,
    },
    ...pictures(episode),
    make("span", { className: "tile-text" },
      make("span", { className: "tile-line" },
        make("span", { className: "tile-name" }, name), make("span", { className: "muted" }, film)),
      make("span", { className: "tile-line tile-meta" }, where(episode), make("span", {}, pair ? "" : `${only.steps} steps`)),
      ...results));
    button.addEventListener("click", () => open(episode));
    return make("li", {}, button);
  }

  // ---- filters -----------------------------------------------------------------------------------------------------

  const filters = byId("filters");
  const tiles = byId("tiles");
  tiles.classList.toggle("pairs", pair);
  for (const [index, episode] of data.episodes.entries()) {
    episode.index = index;
    episode.element = tile(episode);
  }
  tiles.append(...data.episodes.map((episode) => episode.element));
  let shown = data.episodes;

  const failures = new Set(data.episodes.flatMap((episode) => episode.sides.map((side) => side.failure)));
  for (const [key, label] of Object.entries(data.failures)) {
    if (failures.has(key)) filters.elements.failure.append(new Option(label, key));
  }
  const stages = ["nothing", ...new Set(Object.values(data.tasks).flatMap((task) => task.subgoals))];
  for (const name of stages) filters.elements.reached.append(new Option(spaced(name), name));

  function matches(episode, chosen) {
    return (!chosen.task || episode.task === chosen.task)
      && (!chosen.outcome || episode.sides[0].outcome === chosen.outcome)
      && (!chosen.relation || relation(episode) === chosen.relation)
      && (!chosen.failure || episode.sides.some((side) => side.failure === chosen.failure))
      && (!chosen.reached || episode.sides.some((side) => side.reached === chosen.reached));
  }

  const never = 1e9;
  const keys = {
    address: () => 0,
    outcome: (episode) => Math.min(...episode.sides.map((side) => ranks.indexOf(side.outcome))),
    reached: (episode) => Math.min(...episode.sides.map((side) => reachedRank(episode, side))),
    first: (episode) => Math.min(...episode.sides.map((side) => side.first ?? never)),
    steps: (episode) => Math.min(...episode.sides.map((side) => side.steps)),
  };

  /** The address behind "#": an episode, then the filters that are not as they are at first. */
  function address(episode = "") {
    const chosen = [...new FormData(filters)].filter(([name, value]) => value && !(name === "sort" && value === "address"));
    const query = new URLSearchParams(chosen).toString();
    const hash = encodeURIComponent(episode) + (query ? `?${query}` : "");
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  /** Filters and episode of the address; filters that are none are left alone. */
  function follow_address() {
    const [episode, query = ""] = location.hash.slice(1).split("?");
    for (const [name, value] of new URLSearchParams(query)) {
      const field = filters.elements[name];
      if (field && [...field.options].some((option) => option.value === value)) field.value = value;
    }
    update();
    const wanted = decodeURIComponent(episode);
    const linked = data.episodes.find((one) => one.id === wanted);
    if (linked) open(linked);
  }

  function update() {
    const chosen = Object.fromEntries(new FormData(filters));
    const key = keys[chosen.sort];
    shown = data.episodes.filter((episode) => matches(episode, chosen));
    shown.sort((x, y) => key(x) - key(y) || x.index - y.index);
    tiles.replaceChildren(...shown.map((episode) => episode.element));
    byId("shown").textContent = `${shown.length} of ${data.episodes.length} episodes`;
    byId("none").hidden = shown.length > 0;
  }

  filters.addEventListener("change", () => { update(); address(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(() => { update(); address(); }));
  for (const button of document.querySelectorAll("[data-failure]")) {
    button.addEventListener("click", () => {
      filters.elements.failure.value = button.dataset.failure;
      update();
      address();
      filters.scrollIntoView();
    });
  }

  // ---- player ------------------------------------------------------------------------------------------------------

  const player = byId("player");
  const scrubber = byId("step");
  player.classList.toggle("pair", pair);
  let current = null;
  let panes = [];
  const urls = new Map();

  function videoUrl(number) {
    if (!urls.has(number)) {
      const bytes = Uint8Array.from(atob(byId(`video-${number}`).textContent), (c) => c.charCodeAt(0));
      urls.set(number, URL.createObjectURL(new Blob([bytes], { type: "video/mp4" })));
    }
    return urls.get(number);
  }

  /** What stands in for a video that nobody has rendered yet. */
  function missing(side) {
    if (!side.command) return make("div", { className: "missing" }, side.error ?? "No states were stored.");
    const copy = make("button", { type: "button" }, "Copy command");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(side.command);
        copy.textContent = "Copied";
      } catch {
        copy.textContent = "Select the text and copy it";
      }
    });
    const picture = side.picture
      ? [make("img", { src: `data:image/jpeg;base64,${side.picture}`, alt: "The scene at the end of the episode" })] : [];
    const place = side.file ? [make("span", { className: "place" }, `Looked for at ${decodeURI(side.file)}, beside this page.`)] : [];
    return make("div", { className: "missing" }, ...picture,
      make("span", {}, "This video has not been rendered. Where the run was made, this makes it; then open the episode again:"),
      make("code", {}, side.command), copy, ...place);
  }

  /** The video of a side, embedded or next to the page; the command to make it if there is none. */
  function stage(side, pane) {
    if (side.video === null && !side.file) return missing(side);
    const box = make("div");
    const video = make("video", { controls: true, muted: true, playsInline: true, preload: "auto" });
    video.src = side.video === null ? side.file : videoUrl(side.video);
    video.addEventListener("error", () => {
      pane.video = null;
      // The browser's own line above it reads like a fault of the page.
      console.info(`No fault: the video ${video.src} has not been rendered. To make it: ${side.command}`);
      box.replaceChildren(missing(side));
      ready();
    });
    video.addEventListener("loadedmetadata", () => { pane.video = video; ready(); });
    video.addEventListener("timeupdate", () => follow(pane));
    video.addEventListener("play", () => tick(pane));
    for (const name of ["play", "pause", "seeked"]) video.addEventListener(name, () => synchronise(pane, name));
    box.append(video);
    return box;
  }

  /** One line of the timeline: stretches of steps, and the playhead. */
  function lane(side, spans, kind, name) {
    const picture = svg("svg", {
      class: `lane ${name === "success" ? "success" : ""}`, viewBox: `0 0 ${Math.max(side.steps, 1)} 1`,
      preserveAspectRatio: "none", "aria-hidden": "true",
    });
    for (const [begin, end] of spans) {
      picture.append(svg("rect", { x: begin, width: end - begin, y: 0, height: 1, class: kind }));
    }
    picture.append(svg("line", { class: "head", x1: 0, x2: 0, y1: 0, y2: 1 }));
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      seek(Math.ceil(side.steps * (event.clientX - box.left) / box.width));
    });
    return picture;
  }

  /** Every other chunk is drawn dark, so that its boundaries show. */
  function chunks(side) {
    const ends = [...side.decisions.slice(1), side.steps];
    return side.decisions.map((begin, i) => [begin, ends[i]]).filter((_, i) => i % 2 === 0);
  }

  function timeline(episode, side, pane) {
    const rows = make("div", { className: "lanes" });
    const add = (name, spans, kind) => {
      const label = make("span", { className: "lane-name" }, spaced(name));
      const picture = lane(side, spans, kind, name);
      rows.append(label, picture);
      pane.lanes.push({ label, spans: kind === "on" ? spans : [], head: picture.querySelector(".head") });
    };
    if (side.decisions.length) add("action chunks", chunks(side), "chunk");
    const names = [...subgoals(episode).filter((name) => name in side.flags)];
    names.push(...Object.keys(side.flags).filter((name) => !names.includes(name)));
    for (const name of names) add(name, side.flags[name], "on");
    return rows;
  }

  /** What happened when; a click shows that step. */
  function events(side) {
    return make("div", { className: "events" }, ...side.events.map(([step, words]) => {
      const button = make("button", { type: "button" }, `${step}: ${words}`);
      button.addEventListener("click", () => seek(step));
      return button;
    }));
  }

  function paneOf(episode, side, index) {
    const pane = { side, video: null, lanes: [] };
    const result = side.error ?? `${side.why ? `${side.why}; ` : ""}${when(side)}${side.reached === "success" ? "" : `, reached: ${spaced(side.reached)}`}`;
    const head = make("div", { className: "side-head" },
      make("span", {},
        ...(pair ? [make("span", { className: `side side-${data.sides[index].toLowerCase()}` }, data.sides[index])] : []),
        side.agent),
      make("span", {}, make("span", { className: "muted" }, `${result}  `), badge(side)));
    pane.element = make("div", {}, head,
      make("div", { className: "side-body" }, stage(side, pane), timeline(episode, side, pane), events(side)));
    return pane;
  }

  function open(episode) {
    stop();
    current = episode;
    byId("player-title").textContent = `${data.tasks[episode.task].label}, ${where(episode)}`;
    panes = episode.sides.map((side, index) => paneOf(episode, side, index));
    byId("sides").replaceChildren(...panes.map((pane) => pane.element));
    scrubber.max = Math.max(...episode.sides.map((side) => side.steps));
    ready();
    mark(0);
    if (!player.open) player.showModal();
    address(episode.id);
  }

  function stop() {
    for (const pane of panes) pane.video?.pause();
    panes = [];
  }

  const playing = () => panes.some((pane) => pane.video && !pane.video.paused && !pane.video.ended);

  function ready() {
    byId("play").hidden = !panes.some((pane) => pane.video);
    byId("play").textContent = playing() ? "Pause" : "Play";
  }

  // A video has a frame for the initial state and one per step.
  const stepOf = (pane) =>
    Math.min(pane.side.steps, Math.floor(pane.video.currentTime / pane.video.duration * (pane.side.steps + 1) + 1e-3));
  const timeOf = (pane, step) => (Math.min(step, pane.side.steps) + 0.5) / (pane.side.steps + 1) * pane.video.duration;

  function chunkText(side, step) {
    const chunk = side.decisions.filter((begin) => begin < step).length;
    return side.decisions.length ? `, chunk ${Math.max(chunk, 1)} of ${side.decisions.length}` : "";
  }

  /** What the robot was told in the state after a step; the sides may have come to different stages. */
  function toldText(step) {
    const texts = panes.map(({ side }) => side.told.filter(([begin]) => begin <= Math.min(step, side.steps)).at(-1)[1]);
    if (new Set(texts).size === 1) return texts[0];
    return texts.map((text, index) => `${data.sides[index]}: ${text}`).join(" / ");
  }

  /** What the policy last said comes next in the state after a step; empty where it was not asked. */
  function saidText(step) {
    const texts = panes
      .filter(({ side }) => side.said)
      .map(({ side }) => side.said.filter(([begin]) => begin <= Math.min(step, side.steps)).at(-1)[1]);
    return texts.join(" / ");
  }

  /** Show a step in all timelines. */
  function mark(step) {
    scrubber.value = step;
    if (panes.length) byId("player-instruction").textContent = toldText(step);
    byId("player-said").textContent = saidText(step);
    byId("step-text").textContent = `step ${step} of ${scrubber.max}${panes.length ? chunkText(panes[0].side, step) : ""}`;
    for (const pane of panes) {
      const at = Math.min(step, pane.side.steps);
      for (const { label, spans, head } of pane.lanes) {
        head.setAttribute("x1", at);
        head.setAttribute("x2", at);
        label.classList.toggle("now", spans.some(([begin, end]) => begin < at && at <= end));
      }
    }
  }

  function seek(step) {
    mark(step);
    for (const pane of panes) if (pane.video) pane.video.currentTime = timeOf(pane, step);
  }

  /** The longest video leads; a shorter one ends before it. */
  const leader = () => panes.filter((pane) => pane.video).sort((x, y) => y.side.steps - x.side.steps)[0];

  function follow(pane) {
    if (pane === leader() && playing()) mark(stepOf(pane));
  }

  function tick(pane) {
    follow(pane);
    if (playing() && panes.includes(pane)) requestAnimationFrame(() => tick(pane));
  }

  function synchronise(pane, what) {
    if (!panes.includes(pane)) return;
    for (const other of panes) {
      if (other === pane || !other.video) continue;
      const apart = Math.abs(other.video.currentTime - pane.video.currentTime);
      if (what === "play" && other.video.paused && !other.video.ended) other.video.play();
      if (what === "pause" && !pane.video.ended && !other.video.paused) other.video.pause();
      if (what === "seeked" && apart > 0.3 && pane.video.currentTime < other.video.duration) {
        other.video.currentTime = pane.video.currentTime;
      }
    }
    if (what === "seeked" && !playing()) mark(stepOf(pane));
    ready();
  }

  function togglePlay() {
    const start = !playing();
    const ended = panes.every((pane) => !pane.video || pane.video.ended);
    if (start && ended) seek(0);
    for (const { video } of panes) if (video) start ? video.play() : video.pause();
  }

  function turn(by) {
    const at = shown.indexOf(current);
    if (shown.length) open(shown[(at + by + shown.length) % shown.length]);
  }

  scrubber.addEventListener("input", () => {
    for (const pane of panes) pane.video?.pause();
    seek(Number(scrubber.value));
  });
  byId("play").addEventListener("click", togglePlay);
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("close").addEventListener("click", () => player.close());
  player.addEventListener("click", (event) => { if (event.target === player) player.close(); });
  player.addEventListener("close", () => {
    stop();
    address();
  });
  player.addEventListener("keydown", (event) => {
    if (["INPUT", "VIDEO"].includes(event.target.tagName)) return;
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  });

  // ---- theme and start ---------------------------------------------------------------------------------------------

  const theme = (name) => { document.documentElement.dataset.theme = name; };
  theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  byId("theme").addEventListener("click", () =>
    theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

  follow_address();
  addEventListener("hashchange", follow_address);
})();
