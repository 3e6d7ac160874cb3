// What is wider than its place can be scrolled by keyboard, too.
function reach() {
  for (const part of document.querySelectorAll("div.formula, article pre, .pst-scrollable-table-container, .output")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else if (part.matches("div.formula")) part.removeAttribute("tabindex");
  }
}
window.addEventListener("load", reach);
window.addEventListener("resize", reach);

// Buttons say aloud what they do: those that unfold a part of the sidebar, and the one that shows its name already; lists are lists.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("nav details > summary")) {
    const pages = button.closest("li")?.querySelector("a")?.textContent.trim();
    if (pages && !button.textContent.trim()) button.setAttribute("aria-label", `Pages of: ${pages}`);
  }
  document.querySelectorAll("dt.sig > dl").forEach((list) => { // the arguments of a function, which have no terms
    list.setAttribute("role", "list");
    for (const item of list.children) item.setAttribute("role", "listitem");
  });
  document.querySelectorAll(".search-button-field").forEach((button) => button.removeAttribute("aria-label"));
});
