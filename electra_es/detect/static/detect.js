"use strict";

(() => {
  const input = document.getElementById("text");
  const result = document.getElementById("result");
  const status = document.getElementById("status");
  const PAUSE_MS = 250;

  let timer = 0;
  let newest = 0;

  // One paragraph a sentence: its normalised text, with a span for every token.
  // Offsets count characters (code points), so the text is taken apart by them and not by UTF-16 units.
  function paragraph(sentence) {
    const line = element("p");
    const characters = Array.from(sentence.text);
    let place = 0;
    for (const token of sentence.tokens) {
      line.append(characters.slice(place, token.start).join(""));
      const span = element("span", token.probability > 0.5 ? "token replaced" : "token",
        characters.slice(token.start, token.end).join(""));
      span.style.backgroundColor = `rgb(220 38 38 / ${token.probability.toFixed(3)})`;
      span.title = `${token.token}: ${token.probability.toFixed(2)} (logit ${token.logit.toFixed(2)})`;
      line.append(span);
      place = token.end;
    }
    line.append(characters.slice(place).join(""));
    return line;
  }

  async function score() {
    const request = ++newest;
    const sentences = input.value.split("\n").filter((line) => line.trim() !== "");
    try {
      const answer = await ask("detect", { sentences });
      if (request !== newest) return; // a later one is on its way
      status.textContent = "";
      result.replaceChildren();
      for (const sentence of answer) {
        result.append(paragraph(sentence));
        if (sentence.truncated) {
          result.append(element("p", "note", "El final de esta frase no cabe en el modelo."));
        }
      }
    } catch (error) {
      if (request === newest) status.textContent = `No se pudo analizar: ${error.message}`;
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(score, PAUSE_MS);
  });

  score();
})();
