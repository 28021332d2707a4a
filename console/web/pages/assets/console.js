// Makes the pages live. Each is whole without this script, and what the server sends is shown as
// the server made it: parsed into a document of its own, where no script runs, never as markup.
"use strict";
(() => {
  const root = document.documentElement;
  const main = document.querySelector("main");
  const base = document.body.dataset.base;
  const SOONEST = 1000,
    SETTLE = 3000,
    POLL = 15000;

  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const kept = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  };
  const keep = (name, value) => {
    try {
      localStorage.setItem(name, value);
    } catch {
      /* private */
    }
  };

  // -- relative times go on, by the server's clock

  let skew = 0;
  const setClock = (page) => {
    skew = Date.now() - Date.parse(page.documentElement.dataset.now);
  };
  const pad = (number) => String(Math.floor(number)).padStart(2, "0");
  const span = (seconds) => {
    if (seconds < 60) return `${Math.floor(seconds)}s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)}m${pad(seconds % 60)}s`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)}h${pad((seconds % 3600) / 60)}m`;
    return `${Math.floor(seconds / 86400)}d${pad((seconds % 86400) / 3600)}h`;
  };
  const tick = () => {
    for (const time of document.querySelectorAll("time.ago")) {
      const away = (Date.parse(time.dateTime) + skew - Date.now()) / 1000;
      const text = away > 0 ? `in ${span(away)}` : `${span(-away)} ago`;
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // -- parts of the page are exchanged for those of the page as it is now

  const plain = (node) => {
    const copy = node.cloneNode(true);
    copy.classList.remove("news");
    for (const time of copy.querySelectorAll("time.ago")) time.textContent = "";
    return copy;
  };
  const differ = (one, other) => !plain(one).isEqualNode(plain(other));
  const isFilled = (field) => field.value !== field.defaultValue;
  const inUse = (node) =>
    node.contains(document.activeElement) ||
    node.querySelector("details[open]") ||
    [...node.querySelectorAll("input, textarea")].some(isFilled);
  const exchange = (old, fresh) => {
    if (!differ(old, fresh) || inUse(old)) return;
    const adopted = document.adoptNode(fresh);
    if (old.matches("td, .card")) adopted.classList.add("news");
    old.replaceWith(adopted);
  };
  const take = (page) => {
    setClock(page);
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = page.querySelector(`[data-live="${CSS.escape(old.dataset.live)}"]`);
      if (!fresh) continue;
      if (old.matches("tbody")) takeRows(old, fresh);
      else exchange(old, fresh);
    }
    tick();
  };
  const takeRows = (body, fresh) => {
    const rows = [...body.rows].filter((row) => row.id);
    const known = new Map(rows.map((row) => [row.id, row]));
    const added = [];
    for (const row of [...fresh.rows].filter((each) => each.id)) {
      const old = known.get(row.id);
      if (!old) {
        added.push(row);
        continue;
      }
      known.delete(row.id);
      [...old.cells].forEach((cell, place) => {
        if (row.cells[place]) exchange(cell, row.cells[place].cloneNode(true));
      });
    }
    const last = rows.findLastIndex((row) => !known.has(row.id)); // those behind were pushed off
    rows.forEach((row, place) => row.classList.toggle("gone", known.has(row.id) && place < last));
    if (rows.length === 0) {
      body.replaceWith(document.adoptNode(fresh));
      return;
    }
    if (body.dataset.rows === "append") body.append(...added.map((row) => document.adoptNode(row)));
    else announce(body, fresh, added.length, known.size && last >= 0);
  };
  const announce = (body, fresh, count, hasGone) => {
    const box = body.closest(".scroll");
    box.previousElementSibling?.matches(".fresh") && box.previousElementSibling.remove();
    if (!count && !(hasGone && body.querySelector(".gone"))) return;
    const noun = body.dataset.noun;
    const text = count
      ? `${count} new ${noun}${count === 1 ? "" : "s"}: show`
      : `some ${noun}s left this list: update`;
    const button = make(
      "button",
      {
        type: "button",
        onclick: () => {
          button.parentElement.remove();
          body.replaceWith(document.adoptNode(fresh));
          tick();
        },
      },
      text,
    );
    const line = make("p", {className: "fresh"}, button);
    line.setAttribute("role", "status");
    box.before(line);
  };

  // -- when to look again: at a message of the stream, and now and then

  let source = null,
    timer = null,
    settling = null,
    busy = false,
    began = 0,
    took = 0;
  let paused = kept("runfold-paused") === "yes";
  const isLive = base && !("still" in main.dataset) && main.querySelector("[data-live]");
  const look = async (address = location.href) => {
    if (busy) return false;
    busy = true;
    began = performance.now();
    try {
      const answer = await fetch(address, {headers: {Accept: "text/html"}});
      if (answer.redirected) {
        stop();
        return false;
      } // the session is over: the page stays readable
      if (answer.ok) take(new DOMParser().parseFromString(await answer.text(), "text/html"));
      return answer.ok;
    } catch {
      return false; // the server is away: the stream connects again
    } finally {
      took = performance.now() - began;
      busy = false;
    }
  };
  const lookSoon = () => {
    if (timer !== null || document.hidden || paused) return;
    const wait = Math.max(0, began + Math.max(SOONEST, 4 * took) - performance.now());
    timer = setTimeout(async () => {
      timer = null;
      if (!(await look())) return;
      settle();
    }, wait);
  };
  const settle = () => {
    // what projections add up comes a moment after the event
    clearTimeout(settling);
    settling = setTimeout(() => {
      if (!paused && !document.hidden) look();
    }, SETTLE);
  };
  const stop = () => {
    source?.close();
    source = null;
    say("off");
  };
  const listen = () => {
    if (!isLive || source || paused || document.hidden) {
      if (paused) say("paused");
      return;
    }
    source = new EventSource(`${base}/live${main.dataset.run ? `?run=${main.dataset.run}` : ""}`);
    source.addEventListener("change", lookSoon);
    source.onopen = () => {
      say("live");
      lookSoon();
    };
    source.onerror = () => say(source?.readyState === EventSource.CLOSED ? "off" : "waiting");
  };
  const WORDS = {live: "● live", paused: "‖ paused", waiting: "○ reconnecting", off: "○ not live"};
  const lamp = make("button", {type: "button", className: "lamp", title: "Pause or resume"}, "○");
  const say = (state) => {
    lamp.dataset.state = state;
    lamp.textContent = WORDS[state];
  };
  const togglePause = () => {
    paused = !paused;
    keep("runfold-paused", paused ? "yes" : "no");
    stop();
    if (paused) say("paused");
    else listen();
  };
  lamp.onclick = togglePause;

  // -- theme and time zone, kept by the server

  const choices = document.querySelector("form[action='/view']");
  const choose = (changes) =>
    fetch("/view", {
      method: "POST",
      redirect: "manual",
      body: new URLSearchParams({
        theme: root.dataset.theme,
        zone: choices.zone.value,
        to: "/",
        ...changes,
      }),
    });
  const nextTheme = () => {
    const names = ["auto", "light", "dark"];
    root.dataset.theme = names[(names.indexOf(root.dataset.theme) + 1) % names.length];
    choices.theme.value = root.dataset.theme;
    themes.textContent = `◐ ${root.dataset.theme}`;
    choose({});
  };
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const otherZone = async () => {
    await choose({zone: choices.zone.value === "UTC" ? here : "UTC"});
    location.reload();
  };
  const themes = make(
    "button",
    {type: "button", title: "Theme", onclick: nextTheme},
    `◐ ${root.dataset.theme}`,
  );
  const zones = make(
    "button",
    {type: "button", title: "Time zone: UTC or yours", onclick: otherZone},
    choices.zone.value,
  );

  // -- sliders need no button: the page of their values is fetched as they move

  const sliders = document.querySelector("form[data-slide]");
  if (sliders) {
    let sliding = null;
    const slide = async () => {
      if (busy) {
        sliding = setTimeout(slide, 100);
        return;
      }
      const address = `?${new URLSearchParams(new FormData(sliders))}`;
      if (await look(address)) history.replaceState(null, "", address);
    };
    sliders.addEventListener("input", (event) => {
      if (event.target.type !== "range") return;
      if (sliders.vs) sliders.vs.value = Math.max(1, sliders.at.value - 1);
      clearTimeout(sliding);
      sliding = setTimeout(slide, 80);
    });
  }

  // -- what the ledger shows is checked here, by a program of its own

  for (const place of document.querySelectorAll("[data-verify]")) {
    const said = make("span", {className: "small"});
    said.setAttribute("role", "status");
    const button = make(
      "button",
      {
        type: "button",
        onclick: async () => {
          button.disabled = true;
          const {verify} = await import(root.dataset.verifier);
          const event = Number(place.dataset.event) || null;
          const result = await verify(
            `${base}/runs/${place.dataset.verify}/chain.json`,
            event,
            (text) => {
              said.textContent = text;
            },
          );
          said.className = `small state ${result.ok ? "s-completed" : "s-failed"}`;
          said.textContent = `${result.ok ? "✔" : "✖"} ${result.text}`;
          button.disabled = false;
        },
      },
      "Verify in this browser",
    );
    place.append(button, " ", said);
  }

  // -- keyboard and palette

  const links = [...document.querySelectorAll("header nav a")];
  document
    .querySelector("header nav [aria-current]")
    ?.scrollIntoView({block: "nearest", inline: "center"});
  const keys = new Map();
  for (const link of links) {
    const free = [...link.textContent.toLowerCase()].find(
      (each) => /[a-z]/.test(each) && !keys.has(each),
    );
    if (free) keys.set(free, link);
  }
  const search = document.querySelector("main .query");
  const rowLinks = () =>
    [...main.querySelectorAll("tbody tr")].map((row) => row.querySelector("a")).filter(Boolean);
  const step = (by) => {
    const rows = rowLinks();
    const row = document.activeElement.closest("tbody tr");
    const at = rows.findIndex((link) => row?.contains(link));
    const next = rows[at < 0 ? 0 : Math.min(Math.max(at + by, 0), rows.length - 1)];
    next?.focus();
    next?.scrollIntoView({block: "nearest"});
  };
  const dialog = (title, ...children) => {
    const box = make("dialog", {}, make("h2", {}, title), ...children);
    box.setAttribute("aria-label", title);
    box.addEventListener("click", (event) => {
      if (event.target === box) box.close();
    });
    box.addEventListener("close", () => box.remove());
    document.body.append(box);
    box.showModal();
    return box;
  };
  const help = () => {
    const all = [
      ["j k", "next and previous row"],
      ["Enter", "open it"],
      ["/", "search runs"],
      ["Ctrl-K", "go anywhere"],
      ["?", "this help"],
      ...[...keys].map(([key, link]) => [`g ${key}`, link.textContent.trim()]),
    ];
    const list = make(
      "dl",
      {className: "facts-list"},
      ...all.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)]),
    );
    const single = make("input", {type: "checkbox", checked: kept("runfold-keys") !== "off"});
    single.onchange = () => keep("runfold-keys", single.checked ? "on" : "off");
    dialog("Keyboard", list, make("label", {}, single, " keys without Ctrl"));
  };
  const palette = () => {
    const input = make("input", {
      className: "query",
      placeholder: "a page, a state, or a query for runs",
      autocomplete: "off",
    });
    const list = make("ul", {id: "palette", className: "palette"});
    const box = dialog("Go to", input, list);
    for (const [name, value] of [
      ["role", "combobox"],
      ["aria-label", "Go to"],
      ["aria-expanded", "true"],
      ["aria-controls", "palette"],
    ])
      input.setAttribute(name, value);
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Places");
    const runs = (query) => () => {
      location.href = `${base}/runs?q=${encodeURIComponent(query)}`;
    };
    const fixed = [
      ...links.map((link) => [
        link.textContent.trim(),
        () => {
          location.href = link.href;
        },
      ]),
      ...(base
        ? ["failed", "running", "pending", "waiting_approval"].map((state) => [
            `Runs: ${state.replace("_", " ")}`,
            runs(`state:${state}`),
          ])
        : []),
      ["Change the theme", nextTheme],
      ["Change the time zone", otherZone],
      ...(isLive ? [["Pause or resume live updates", togglePause]] : []),
      ["Keyboard help", help],
    ];
    let at = 0,
      shown = [];
    const draw = () => {
      const text = input.value.trim().toLowerCase();
      shown = fixed.filter(([name]) => name.toLowerCase().includes(text));
      if (text && base)
        shown.push([`Runs that fit: ${input.value.trim()}`, runs(input.value.trim())]);
      at = Math.min(at, shown.length - 1);
      list.replaceChildren(
        ...shown.map(([name], place) => {
          const item = make("li", {id: `palette-${place}`, onclick: () => go(place)}, name);
          item.setAttribute("role", "option");
          item.setAttribute("aria-selected", place === at);
          return item;
        }),
      );
      input.setAttribute("aria-activedescendant", `palette-${at}`);
      list.children[at]?.scrollIntoView({block: "nearest"});
    };
    const go = (place) => {
      box.close();
      shown[place]?.[1]();
    };
    input.oninput = () => {
      at = 0;
      draw();
    };
    input.onkeydown = (event) => {
      const by = {ArrowDown: 1, ArrowUp: -1}[event.key];
      if (by) {
        at = Math.min(Math.max(at + by, 0), shown.length - 1);
        draw();
        event.preventDefault();
      }
      if (event.key === "Enter") {
        go(at);
        event.preventDefault();
      }
    };
    draw();
    input.focus();
  };
  let going = -Infinity;
  const press = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      if (!document.querySelector("dialog[open]")) palette();
      return;
    }
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || kept("runfold-keys") === "off")
      return;
    if (performance.now() - going < 1500) {
      going = -Infinity;
      if (keys.has(event.key)) location.href = keys.get(event.key).href;
      return;
    }
    if (event.key === "g") going = performance.now();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "?") help();
    else if (event.key === "/" && base) {
      event.preventDefault();
      if (search) search.focus();
      else location.href = `${base}/runs`;
    }
  };

  document.addEventListener("keydown", press);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else listen();
  });
  const finder = make(
    "button",
    {type: "button", title: "Go anywhere (Ctrl-K); ? lists the keys", onclick: palette},
    /Mac|iP/.test(navigator.platform) ? "⌘K" : "Ctrl K",
  );
  finder.setAttribute("aria-label", "Go anywhere");
  const tools = make("div", {className: "tools"}, ...(isLive ? [lamp] : []), zones, themes, finder);
  document.querySelector("header").append(tools);
  setClock(document);
  tick();
  setInterval(tick, 1000);
  setInterval(() => {
    if (!isLive) return;
    lookSoon();
    if (source?.readyState === EventSource.CLOSED) {
      source = null; // it was refused, for which a browser does not try again
      listen();
    }
  }, POLL);
  listen();
})();
