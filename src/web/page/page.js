// Everything works without this. It refreshes what is shown, and brings `/` to the search.
"use strict";
(() => {
  const EVERY_MS = 5000;

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = document.activeElement;
    if (at && at.matches("input, textarea, select")) return;
    const search = document.getElementById("find");
    if (!search) return;
    event.preventDefault();
    search.focus();
    search.select();
  });

  const shown = () => document.querySelectorAll("[data-live][id]");
  const bar = document.getElementById("live");
  if (!bar || shown().length === 0) return;
  const button = bar.querySelector("button");
  const status = bar.querySelector("[role=status]");
  let paused = false;
  bar.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on updating" : "Pause updates";
  });

  // What somebody is reading, marking or has opened stays as it is.
  const isInUse = (part) => {
    if (part.contains(document.activeElement)) return true;
    if (part.querySelector("details[open]")) return true;
    const marked = document.getSelection();
    return marked && !marked.isCollapsed && part.contains(marked.anchorNode);
  };

  const refresh = async () => {
    const answer = await fetch(location.href, {
      headers: { "x-settled-live": "1" }, credentials: "same-origin", redirect: "error",
    });
    if (answer.status === 401) {
      // The session is over: the page leads to the sign-in.
      location.reload();
      return;
    }
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of shown()) {
      const next = fresh.getElementById(part.id);
      if (next && !isInUse(part) && next.innerHTML !== part.innerHTML) {
        part.replaceChildren(...document.importNode(next, true).childNodes);
      }
    }
  };

  const turn = async () => {
    if (!paused && !document.hidden) {
      try {
        await refresh();
        status.textContent = "";
        bar.classList.remove("bad");
      } catch {
        status.textContent = "The daemon does not answer; what is shown is old.";
        bar.classList.add("bad");
      }
    }
    setTimeout(turn, EVERY_MS);
  };
  setTimeout(turn, EVERY_MS);
})();
