"use strict";

// What the parts of the page share: requests, elements and numbers.

// Sends values as JSON and returns the answer; an Error has the server's line.
async function ask(path, values) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(values),
    });
  } catch {
    throw new Error("el servidor no responde");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// An element with a class and a content: elements, or strings, which stay text whatever is in them.
function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

// As Spanish writes them; the space before the sign does not break.
function percent(share) {
  return `${(100 * share).toLocaleString("es", { maximumFractionDigits: 1 })}\u00a0%`;
}

function decimal(number) {
  return number.toLocaleString("es", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}
