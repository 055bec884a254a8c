"use strict";

const input = document.getElementById("text");
const result = document.getElementById("result");
const status = document.getElementById("status");
const PAUSE_MS = 250;

let timer = 0;
let newest = 0;

// One paragraph a sentence: its normalised text, with a span for every token.
// Offsets count characters (code points), so the text is taken apart by them and not by UTF-16 units.
function paragraph(sentence) {
  const line = document.createElement("p");
  const characters = Array.from(sentence.text);
  let place = 0;
  for (const token of sentence.tokens) {
    line.append(characters.slice(place, token.start).join(""));
    const span = document.createElement("span");
    span.className = token.probability > 0.5 ? "token replaced" : "token";
    span.style.backgroundColor = `rgb(220 38 38 / ${token.probability.toFixed(3)})`;
    span.title = `${token.token}: ${token.probability.toFixed(2)} (logit ${token.logit.toFixed(2)})`;
    span.textContent = characters.slice(token.start, token.end).join("");
    line.append(span);
    place = token.end;
  }
  line.append(characters.slice(place).join(""));
  return line;
}

function note(text) {
  const line = document.createElement("p");
  line.className = "note";
  line.textContent = text;
  return line;
}

async function score() {
  const request = ++newest;
  const sentences = input.value.split("\n").filter((line) => line.trim() !== "");
  try {
    const response = await fetch("detect", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sentences }),
    });
    const answer = await response.json();
    if (request !== newest) return; // a later one is on its way
    if (!response.ok) throw new Error(answer.error);
    status.textContent = "";
    result.replaceChildren();
    for (const sentence of answer) {
      result.append(paragraph(sentence));
      if (sentence.truncated) result.append(note("El final de esta frase no cabe en el modelo."));
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
