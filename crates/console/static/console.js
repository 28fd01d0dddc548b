// Conveniences. Every page works without them.

// Copy buttons are hidden without JavaScript.
for (const button of document.querySelectorAll("button[data-copy]")) prepareCopy(button);

function prepareCopy(button) {
  button.hidden = false;
  const label = button.textContent;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    const copied = await copy(document.getElementById(button.dataset.copy));
    button.textContent = copied ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = label), 2000);
  });
}

// `navigator.clipboard` exists over https and on localhost only. `execCommand` copies the selection; if that
// fails too, the text stays selected for the keyboard.
async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return document.execCommand("copy");
  }
}

// A page with a secret is the response to a form, so going back to it would send the form again. When a link
// leaves the page, replace its history entry by a page that says that the secret was shown once.
if (document.querySelector(".secret")) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='/']");
    const staysOpen = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (link && !staysOpen) history.replaceState(null, "", "/console/shown");
  });
}

// A part of a page that is refreshed every two seconds while the page is visible:
//   <div aria-live="polite"><div data-refresh="/console/…/status">…</div></div>
// The response replaces the part; one without `data-refresh` is the last. A response with `data-reload`
// reloads the whole page, since other parts of it have changed too.
for (const part of document.querySelectorAll("[data-refresh]")) refresh(part);

function refresh(part) {
  setTimeout(async () => {
    if (!part.isConnected) return;
    if (document.hidden) return refresh(part);
    try {
      const answer = await fetch(part.dataset.refresh, { headers: { accept: "text/html", "x-howdah-part": "1" } });
      // Signed out meanwhile: reload to get to the sign-in page.
      if (answer.redirected) return location.reload();
      if (!answer.ok) return refresh(part);
      const made = document.createElement("template");
      made.innerHTML = await answer.text();
      const next = made.content.firstElementChild;
      if (!next) return;
      if (next.hasAttribute("data-reload")) return location.reload();
      for (const button of next.querySelectorAll("button[data-copy]")) prepareCopy(button);
      part.replaceWith(next);
      if (next.dataset.refresh) refresh(next);
    } catch {
      refresh(part);
    }
  }, 2000);
}
