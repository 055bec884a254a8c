r"""Shows which tokens of a sentence look replaced.

    python -m electra_es.detect --model=runs/sample/model \
        "Estamos desayunando pan rosa con tomate y aceite de oliva."
    python -m electra_es.detect --model=DIR --input=sentences.txt > scores.tsv
    python -m electra_es.detect --model=DIR --json "Pan rosa." "Otra frase."
    python -m electra_es.detect --model=DIR --serve       # a page at http://127.0.0.1:8000
    python -m electra_es.detect --model=DIR --serve --zero_shot_model=runs/inferes/trial-1/model

DIR is a model directory, a SavedModel, a Hugging Face folder or an ONNX folder. In a terminal the
tokens have colours, with their logits below; in a pipe the output is a table. The page has the exam of
the model too, and with --zero_shot_model zero-shot classification.
"""

import functools
import os
import shutil
import sys

from electra_es.detect.scoring import (
    LoadedDetector,
    load_detector,
    read_sentences,
    to_json,
    to_table,
    to_terminal,
)
from electra_es.errors import UsageError, run_main
from electra_es.flags import define, parse_flags, refuse_flags, required
from electra_es.settings import NAME, PATH, Range, Text


def main() -> None:
    model = define("model", str, "", "Model directory or an export of one.", PATH)
    source = define("input", str, "", "File with a sentence a line; -: standard input.",
                    Text(f"- or {PATH}", lambda text: text == "-" or PATH.holds(text)))
    as_json = define("json", bool, False, "Print JSON.")
    serve = define("serve", bool, False, "Serve a page to type sentences into.")
    host = define("host", str, "127.0.0.1", "Address for --serve.", NAME)
    port = define("port", int, 8000, "Port for --serve; 0: any free one.",
                  Range(low=0, high=65_535, why="TCP has no other ports"))
    zero_shot_model = define("zero_shot_model", str, "", "Model of inference for --serve: the directory "
                             "model/ of a trial of fine-tuning.", PATH)
    sentences = parse_flags()
    if serve.value:
        refuse_flags("--serve", ("json",))
    else:
        refuse_flags("no --serve", ("host", "port", "zero_shot_model"))
    path = required(model, "a model directory or an export of one")
    if bool(sentences or source.value) == serve.value:
        raise UsageError("expected sentences, or --input=FILE, or --serve")
    if source.value:
        sentences = sentences + read_sentences(source.value)
    detector = load_detector(path)
    step_line = "" if detector.step is None else f"{path}: weights of step {detector.step:,}"
    if serve.value:
        print(step_line or path, flush=True)
        _serve(detector, path, host.value, port.value, zero_shot_model.value)
        return
    scored = detector(sentences)
    if as_json.value:
        print(to_json(scored))
    elif sys.stdout.isatty():
        print(*([f"{step_line}\n"] if step_line else []))
        print(to_terminal(scored, shutil.get_terminal_size().columns, "NO_COLOR" not in os.environ))
    else:
        print(to_table(scored))


def _serve(detector: LoadedDetector, path: str, host: str, port: int, zero_shot_model: str) -> None:
    """Serves the page with all its tabs."""
    from electra_es.detect.server import serve_forever
    from electra_es.exam.page import exam_of

    zero_shot = None
    if zero_shot_model:
        from electra_es.zero_shot.classifier import load_classifier
        from electra_es.zero_shot.page import answer

        zero_shot = functools.partial(answer, load_classifier(zero_shot_model, flag="--zero_shot_model"))
    serve_forever(detector, host, port, zero_shot=zero_shot, exam=functools.partial(exam_of, path))


if __name__ == "__main__":
    run_main(main)
