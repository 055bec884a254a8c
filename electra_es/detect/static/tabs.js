"use strict";

// Tabs as in the ARIA Authoring Practices: the arrows, Home and End choose among those that are active.
(async () => {
  const tabs = Array.from(document.querySelectorAll("[role=tab]"));
  const isActive = (tab) => tab.getAttribute("aria-disabled") !== "true";

  function show(chosen) {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
  }

  for (const tab of tabs) {
    tab.addEventListener("click", () => {
      if (isActive(tab)) show(tab);
    });
    tab.addEventListener("keydown", (event) => {
      const active = tabs.filter(isActive);
      const next = {
        ArrowLeft: active.indexOf(tab) - 1,
        ArrowRight: active.indexOf(tab) + 1,
        Home: 0,
        End: active.length - 1,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      const chosen = active[(next + active.length) % active.length];
      show(chosen);
      chosen.focus();
    });
  }

  // What the server was started with.
  try {
    const parts = await (await fetch("parts.json")).json();
    for (const [name, isThere] of Object.entries(parts)) {
      if (isThere) document.getElementById(`tab-${name}`).removeAttribute("aria-disabled");
    }
    document.getElementById("no-zero-shot").hidden = parts["zero-shot"];
    if (parts["zero-shot"]) document.getElementById("tab-zero-shot").removeAttribute("aria-describedby");
  } catch {
    // The other tabs stay as they are.
  }
})();
