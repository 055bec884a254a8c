"""One call of the command: reads texts, classifies them, prints scores or compares them with the data."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from electra_es.errors import warn
from electra_es.finetuning.formats.rows import Rows
from electra_es.zero_shot import evaluation, stream
from electra_es.zero_shot.classifier import load_classifier
from electra_es.zero_shot.readers import Columns, Document, read_documents


@dataclass(frozen=True)
class Job:
    """What the flags say.

    Attributes:
      model: `model/` of a trial of fine-tuning.
      labels, template, multi_label, batch_size: see `ZeroShotClassifier`.
      source: a file of texts, or empty.
      columns: of the file. If it names a column of classes, the scores are compared with these.
      skip_bad_rows: whether lines that cannot be used are left out and counted.
      form: one of `stream.FORMATS`.
      output: a file for the scores; empty: they are printed.
    """

    model: str
    labels: Sequence[str]
    template: str
    multi_label: bool
    batch_size: int
    source: str
    columns: Columns
    skip_bad_rows: bool
    form: str
    output: str


def run(job: Job, texts: Sequence[str]) -> None:
    """Does the job.

    Args:
      texts: those of the command line, where there is no file.

    Raises:
      UsageError: a file, a line of it, or a model that cannot be used.
    """
    documents = _read(job) if job.source else [Document(text) for text in texts]
    classify = functools.partial(load_classifier(job.model, job.batch_size), labels=job.labels,
                                 template=job.template, multi_label=job.multi_label)
    results = stream.classify_stream(
        classify, [document.text for document in documents], len(job.labels))
    as_lines = stream.FORMATS[job.form]
    if not job.columns.label:
        stream.write_lines(as_lines(results, job.labels), job.output)
        return
    found = list(results)
    if job.output:
        stream.write_lines(as_lines(found, job.labels), job.output)
    scored = evaluation.evaluate([document.label for document in documents],
                                 [result.labels[0] for result in found], job.labels)
    print(evaluation.to_json(scored) if job.form == "json" else evaluation.to_table(scored))


def _read(job: Job) -> list[Document]:
    rows = Rows(job.skip_bad_rows)
    documents = read_documents(job.source, job.columns, rows)
    for why, count in rows.dropped.items():
        warn(f"{job.source}: {count:,} left out: {why}")
    return documents
