"use strict";

(() => {
  const start = document.getElementById("exam-start");
  const status = document.getElementById("exam-status");
  const result = document.getElementById("exam-result");

  const WHO = { discriminator: "Discriminador", generator: "Generador", frequency: "Contar palabras" };
  // Of the phenomena; others keep the name of their file.
  const NAMES = {
    accents: "Tildes",
    agreement: "Concordancia de género y número",
    clitics: "Pronombres átonos",
    determiners: "Determinantes",
    enye: "Ñ y n",
    personal_a: "A personal",
    por_para: "Por y para",
    prepositions: "Preposiciones",
    ser_estar: "Ser y estar",
    subject_verb: "Concordancia de sujeto y verbo",
    subjunctive: "Subjuntivo",
    tense: "Tiempos del verbo",
  };

  // Accuracy with its interval, on a line from 0 to 100 % with a mark at 50 %.
  function line(who, score) {
    const range = element("span", "range");
    range.style.left = `${100 * score.low}%`;
    range.style.width = `${100 * (score.high - score.low)}%`;
    const point = element("span", "point");
    point.style.left = `${100 * score.accuracy}%`;
    const track = element("span", "track", range, point);
    track.setAttribute("aria-hidden", "true");
    const figures = `${percent(score.accuracy)} (${percent(score.low)} a ${percent(score.high)})`;
    return element("span", "score", element("span", "who", WHO[who]), track, element("span", "number", figures));
  }

  function lines(part) {
    return Object.keys(WHO).filter((who) => part[who]).map((who) => line(who, part[who]));
  }

  function title(part) {
    return element("span", "name", `${NAMES[part.name] ?? part.name} · ${part.pairs} pares`);
  }

  const VERDICTS = { "✓": "acierta", "✗": "falla", "=": "empate" };

  // The two log probabilities that an examinee gives to the right and the wrong word.
  function scores(who, [right, wrong]) {
    const sign = element("span", "sign", right > wrong ? "✓" : right < wrong ? "✗" : "=");
    sign.setAttribute("role", "img");
    sign.setAttribute("aria-label", VERDICTS[sign.textContent]);
    const cell = element("td", "number", sign, ` ${decimal(right)} / ${decimal(wrong)}`);
    cell.dataset.who = WHO[who]; // a narrow page shows it before the cell
    return cell;
  }

  function pairRow(answer, examinees) {
    const sentence = element("th", "pair", answer.before, element("ins", "", answer.right), " ",
      element("del", "", answer.wrong), answer.after);
    sentence.scope = "row";
    return element("tr", "", sentence, ...examinees.map((who) => scores(who, answer.scores[who])));
  }

  function pairTable(answers) {
    const examinees = Object.keys(WHO).filter((who) => answers[0].scores[who]);
    const heads = ["Frase: palabra correcta e incorrecta", ...examinees.map((who) => WHO[who])].map((text) => {
      const head = element("th", "", text);
      head.scope = "col";
      return head;
    });
    const caption = element("caption", "", "Logaritmo de la probabilidad de la palabra correcta / de la incorrecta");
    return element("table", "pairs", caption, element("thead", "", element("tr", "", ...heads)),
      element("tbody", "", ...answers.map((answer) => pairRow(answer, examinees))));
  }

  function part(found, answers) {
    const box = element("details", "", element("summary", "", title(found), ...lines(found)));
    // Hundreds of rows are made only where someone looks.
    box.addEventListener("toggle", () => {
      if (box.open && !box.querySelector("table")) box.append(pairTable(answers));
    });
    return box;
  }

  function show(exam) {
    const name = exam.step === null ? "Todo el examen" : `Todo el examen, paso ${exam.step.toLocaleString("es")}`;
    const all = element("p", "all", title({ ...exam.all, name }), ...lines(exam.all));
    const parts = exam.phenomena.map((found) =>
      part(found, exam.answers.filter((answer) => answer.phenomenon === found.name)));
    const note = element("p", "note", "Entre paréntesis, el intervalo del 95 %. Abra un fenómeno para ver sus pares.");
    result.replaceChildren(all, note, ...parts);
  }

  start.addEventListener("click", async () => {
    start.disabled = true;
    status.textContent = "El modelo se examina; puede tardar medio minuto…";
    try {
      show(await ask("exam", {}));
      status.textContent = "";
    } catch (error) {
      status.textContent = `No se pudo hacer el examen: ${error.message}`;
    }
    start.disabled = false;
  });
})();
