"""Which documents of a task are kept: the rules of a job, on a quarter of a megabyte of text at a time.

The documents of a task are read by one process, in their order. Rules that take long, and the keys of
duplicates, are computed where `Work.each` says: a large compressed file has all workers.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_prep.build.description import Job, Task
from data_prep.build.statistics import Statistics
from data_prep.build.workers import ALONE, Work
from data_prep.corpus import cleaning, decontamination, quality, readers

# Arrays of so much text fit into the cache of a core: a fifth quicker than 1 MB.
_BATCH_CHARACTERS = 1 << 18


def kept_documents(task: Task, job: Job, statistics: Statistics, work: Work = ALONE
                   ) -> Iterator[readers.Document]:
    """Readable documents of a task that no rule drops; the others are counted."""
    documents = readers.read_documents(
        task.path, start=task.start, end=task.end, input_format=job.input_format,
        max_document_bytes=job.max_document_bytes,
        on_bad=functools.partial(statistics.add_bad, task.number, os.path.basename(task.path)),
        on_read=work.on_read)
    each = work.each if _takes_long(job) else ALONE.each
    for held, reasons in each(functools.partial(_reasons, job), _batches(documents)):
        for document, reason in zip(held, reasons, strict=True):
            statistics.labelled += document.language is not None
            if reason is None:
                yield document
            else:
                statistics.add_dropped(reason, len(document.text.encode()))


def _takes_long(job: Job) -> bool:
    """Whether the rules take so long that it is worth sending the text to other processes."""
    return bool(job.rules.quality or job.decontaminate_keys) or job.rules.language_detector != "none"


def _reasons(job: Job, documents: Sequence[readers.Document]) -> list[str | None]:
    """Why to drop each of several documents."""
    reasons = [job.rules.reason_to_drop(document) for document in documents]
    if job.rules.quality:
        left = [i for i, reason in enumerate(reasons) if reason is None]
        found = quality.reasons([documents[i].text for i in left], quality.THRESHOLDS[job.rules.quality])
        for i, reason in zip(left, found, strict=True):
            reasons[i] = reason
    if job.decontaminate_keys:
        left = [i for i, reason in enumerate(reasons) if reason is None]
        shared = decontamination.share_a_run([documents[i].text for i in left],
                                             decontamination.read_keys(job.decontaminate_keys))
        for i in np.array(left, np.int64)[shared]:
            reasons[i] = "contaminated"
    return reasons


def _batches(documents: Iterable[readers.Document]) -> Iterator[list[readers.Document]]:
    return readers.batches(documents, _BATCH_CHARACTERS, lambda document: len(document.text))


def document_keys(task: Task, job: Job, work: Work = ALONE) -> np.ndarray:
    """Duplicate keys of the task's kept documents, uint64 [documents, keys]."""
    batches = _batches(kept_documents(task, job, Statistics.empty(0), work))
    found = [keys for _, keys in work.each(functools.partial(_keys, job), batches)]
    return np.concatenate([np.zeros((0, cleaning.number_of_keys(
        job.dedup, job.near_duplicate_threshold)), np.uint64), *found])


def _keys(job: Job, documents: Sequence[readers.Document]) -> np.ndarray:
    return cleaning.duplicate_keys([document.text for document in documents], job.dedup,
                                   job.near_duplicate_threshold)
