"use strict";

(() => {
  const form = document.getElementById("zero-shot");
  const status = document.getElementById("zero-shot-status");
  const result = document.getElementById("zero-shot-result");
  const value = (name) => document.getElementById(`zero-shot-${name}`);

  let newest = 0;

  function row(label, score) {
    const fill = element("span", "fill");
    fill.style.width = `${100 * score}%`;
    const head = element("th", "", label);
    head.scope = "row";
    const bar = element("td", "bar", fill);
    bar.setAttribute("aria-hidden", "true");
    return element("tr", "", head, bar, element("td", "number", percent(score)));
  }

  function table(answer) {
    const rows = answer.labels.map((label, i) => row(label, answer.scores[i]));
    const caption = element("caption", "", answer.multi_label
      ? "Probabilidad de cada etiqueta, por separado"
      : `Probabilidad de las etiquetas, que suman ${percent(1)}`);
    return element("table", "bars", caption, element("tbody", "", ...rows));
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const request = ++newest;
    status.textContent = "Clasificando…";
    try {
      const answer = await ask("zero_shot", {
        text: value("text").value,
        labels: value("labels").value,
        template: value("template").value,
        multi_label: value("multi").checked,
      });
      if (request !== newest) return; // a later one is on its way
      status.textContent = "";
      result.replaceChildren(table(answer));
    } catch (error) {
      if (request !== newest) return;
      status.textContent = `No se pudo clasificar: ${error.message}`;
      result.replaceChildren();
    }
  });
})();
