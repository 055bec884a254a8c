r"""Classifies texts by labels that no model was trained for, with a model of inference.

    python -m electra_es.zero_shot --model=runs/inferes/trial-1/model \
        --labels="cultura,sociedad,economía,salud,deportes" \
        "El autor se perfila, a los 50 años de su muerte, como uno de los grandes de su siglo"
    python -m electra_es.zero_shot --model=DIR --labels=salud --labels='"paz, guerra"' --multi_label TEXT
    python -m electra_es.zero_shot --model=DIR --labels=... --input=news.jsonl --text_column=title \
        --format=csv --output=scores.csv
    python -m electra_es.zero_shot --model=DIR --labels=salud,deporte --input=news.jsonl \
        --label_column=topic --label_alias=Health=salud,Sport=deporte --skip_bad_rows

DIR is `model/` of a trial of `electra_es.finetuning.run` on a task of inference (inferes, xnli_es). The
scores are those of transformers' pipeline zero-shot-classification. With --label_column the scores are
compared with the data: accuracy and macro F1.
"""

import re
from typing import Literal

from absl import flags

from electra_es import files
from electra_es.config import BATCH
from electra_es.errors import UsageError, run_main
from electra_es.flags import define, parse_flags, refuse_flags, required
from electra_es.settings import NAME, PATH, Text
from electra_es.zero_shot.labels import TEMPLATE, check_texts, hypotheses, parse_aliases, parse_labels

_SENTENCE = Text("a sentence in one line, up to 500 characters, with {} for the label",
                 re.compile(r"[^\x00-\x1f-][^\x00-\x1f]{0,499}").fullmatch)


def _texts(name: str, help: str) -> flags.FlagHolder[list[str]]:
    return flags.DEFINE_multi_string(name, [], help, flag_values=flags.FLAGS)


def main() -> None:
    model = define("model", str, "", "Model of inference: the directory model/ of a trial.", PATH)
    label_flags = _texts("labels", "Labels separated by commas, those with a comma in double quotes; "
                         "may be repeated.")
    template = define("template", str, TEMPLATE, "Sentence about a text, with {} for the label.",
                      _SENTENCE)
    multi_label = define("multi_label", bool, False, "Several labels may be true of a text.")
    source = define("input", str, "", "File with a text a line (.txt), or JSON lines (.jsonl).", PATH)
    text_column = define("text_column", str, "text", "Key of the text in JSON lines.", NAME)
    label_column = define("label_column", str, "", "Key of the text's class in JSON lines: compares the "
                          "scores with it.", NAME)
    alias_flags = _texts("label_alias", "name=label: name of a class in the data, and the label that it "
                         "is; separated by commas; may be repeated.")
    skip = define("skip_bad_rows", bool, False, "Leave out (and count) lines that cannot be used.")
    form = define("format", Literal["table", "json", "csv"], "table", "Form of what is printed.")
    output = define("output", str, "", "File for the scores; none: they are printed.", PATH)
    batch_size = define("batch_size", int, 32, "Most pairs of text and label at once.", BATCH)
    texts = parse_flags()

    labels = parse_labels(label_flags.value)
    aliases = parse_aliases(alias_flags.value, labels)
    hypotheses(labels, template.value)  # a wrong template is refused before anything is loaded
    path = required(model, "a model of inference: the directory model/ of a trial")
    _refuse_without_effect(source.value, label_column.value)
    if label_column.value and form.value == "csv" and not output.value:
        raise UsageError("--format=csv with --label_column: expected --output=FILE for the scores")
    if bool(texts) == bool(source.value):
        raise UsageError("expected texts, or --input=FILE")
    check_texts(texts)
    if output.value:
        files.check_can_be_file(output.value)

    # Not above: TensorFlow takes seconds to import, and --help needs none of it.
    from electra_es.zero_shot.job import Job, run
    from electra_es.zero_shot.readers import Columns

    run(Job(model=path, labels=labels, template=template.value, multi_label=multi_label.value,
            batch_size=batch_size.value, source=source.value, skip_bad_rows=skip.value,
            columns=Columns(text_column.value, label_column.value, labels, aliases),
            form=form.value, output=output.value), texts)


def _refuse_without_effect(source: str, label_column: str) -> None:
    if not source:
        refuse_flags("no --input", ("text_column", "label_column", "label_alias", "skip_bad_rows"))
    elif not source.lower().endswith(".jsonl"):
        refuse_flags("an input that is not .jsonl", ("text_column", "label_column", "label_alias"))
    if not label_column:
        refuse_flags("no --label_column", ("label_alias",))


if __name__ == "__main__":
    run_main(main)
