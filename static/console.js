// Conveniences. Every page works without them.

// Buttons that copy: they are hidden until there is a script to do it.
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

// Browsers have `navigator.clipboard` over https and on this machine only. The older way copies what is
// selected; when that fails too, the text stays selected for the keyboard.
async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return document.execCommand("copy");
  }
}

// A secret stands on the answer to a form, and going back there would mean to send the form again. Once a
// link leads away, a page that says so is in its place.
if (document.querySelector(".secret")) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='/']");
    const staysOpen = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (link && !staysOpen) history.replaceState(null, "", "/console/shown");
  });
}

// A part of a page that is asked for again, every two seconds while the page is looked at:
//   <div aria-live="polite"><div data-refresh="/console/…/status">…</div></div>
// The answer is that part anew; one without `data-refresh` is the last. When the answer has
// `data-reload`, the whole page is asked for once more, since there is more to see on it.
for (const part of document.querySelectorAll("[data-refresh]")) refresh(part);

function refresh(part) {
  setTimeout(async () => {
    if (!part.isConnected) return;
    if (document.hidden) return refresh(part);
    try {
      const answer = await fetch(part.dataset.refresh, { headers: { accept: "text/html", "x-howdah-part": "1" } });
      // Signed out meanwhile: the page says so.
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
