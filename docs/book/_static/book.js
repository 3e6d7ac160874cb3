// What is wider than its place can be scrolled by keyboard, too.
function reach() {
  for (const part of document.querySelectorAll("div.formula, article pre, .pst-scrollable-table-container, .output_area")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else if (part.matches("div.formula")) part.removeAttribute("tabindex");
  }
}
window.addEventListener("load", reach);
window.addEventListener("resize", reach);
