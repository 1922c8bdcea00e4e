/* Draws interactive figures when they come near the reader: plotly.js (4.8 MB) is fetched once a page, and only then. */
(() => {
  const library = new URL("plotly.min.js", document.currentScript.src).href;
  let loading;

  const load = () => {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = library;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`cannot load ${library}`));
      document.head.append(script);
    });
    return loading;
  };

  const draw = async sheet => {
    if (sheet.dataset.drawn) { return; }
    sheet.dataset.drawn = "true";
    await load();
    const figure = JSON.parse(sheet.querySelector("script").textContent);
    const box = sheet.querySelector(".plotly-graph-div");
    await Plotly.newPlot(box, figure.data, figure.layout, { responsive: true, displaylogo: false });
  };

  const start = () => {
    const sheets = [...document.querySelectorAll(".xf-plotly")];
    if (!sheets.length) { return; }
    const observer = new IntersectionObserver(entries => {
      for (const entry of entries.filter(e => e.isIntersecting)) {
        observer.unobserve(entry.target);
        draw(entry.target);
      }
    }, { rootMargin: "600px 0px" });
    sheets.forEach(sheet => observer.observe(sheet));
    window.addEventListener("beforeprint", () => sheets.forEach(draw));
  };

  if (document.readyState === "loading") { document.addEventListener("DOMContentLoaded", start); } else { start(); }
})();
