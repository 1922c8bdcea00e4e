/* A box that scrolls sideways can be reached with the Tab key, so that arrow keys scroll it; other boxes are no stops. */
(() => {
  const boxes = "pre, .pst-scrollable-table-container, .output, .cell_output, .xf-plotly, .xf-claims, .xf-datasheet, figure";
  const scrolls = box => box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
  const update = () => {
    for (const box of document.querySelectorAll(boxes)) {
      if (scrolls(box)) { box.tabIndex = 0; } else if (box.tabIndex === 0) { box.removeAttribute("tabindex"); }
    }
  };
  const start = () => {
    update();
    new ResizeObserver(update).observe(document.body);
    window.addEventListener("load", update);
  };
  if (document.readyState === "loading") { document.addEventListener("DOMContentLoaded", start); } else { start(); }
})();
