r"""Finds vocabulary entries that can never become an input, and those that never did.

    python -m data_prep.audit_vocabulary --vocab_dir=vocabulary
    python -m data_prep.audit_vocabulary --vocab_dir=vocabulary --records=records \
        --max_unseen=500 --min_count=10 --output=audit.json

Ends with exit code 1 if more entries than allowed are unreachable or unseen.
"""

import os

import numpy as np
from absl import flags

from data_prep.command_line import OCCURRENCES, prepare_tool
from electra_es import files
from electra_es.data import records
from electra_es.errors import CheckFailed, UsageError, run_main
from electra_es.flags import define, parse_flags_only, refuse_flags
from electra_es.settings import PATH, Range
from electra_es.text.audit import AuditReport, audit, examples_by_class
from electra_es.text.tokenizer import Tokenizer, load_tokenizer


def load_id_counts(directory: str, tokenizer: Tokenizer, vocab_dir: str) -> np.ndarray:
    """How often each id occurs in a records directory, int64 [V].

    Raises:
      UsageError: no finished records with counts, or records of another vocabulary.
    """
    info = records.load_records_info(directory)
    records.check_vocabulary(info, directory, tokenizer.config, vocab_dir)
    counts = records.read_id_counts(directory, len(tokenizer.vocab))
    if counts is None:
        raise UsageError(f"{os.path.join(directory, records.ID_COUNTS_FILE)}: expected the counts that "
                         "data_prep.build_tfrecords writes")
    return counts


def check_thresholds(report: AuditReport, max_unreachable: int, max_unseen: int | None) -> None:
    """Raises CheckFailed if the report has more unreachable or unseen entries than allowed."""
    problems = []
    if report.num_unreachable > max_unreachable:
        problems.append(f"{report.num_unreachable} entries are unreachable, "
                        f"--max_unreachable={max_unreachable}")
    if max_unseen is not None and len(report.unseen or ()) > max_unseen:
        problems.append(f"{len(report.unseen or ())} entries are seen fewer than "
                        f"{report.min_count} times, --max_unseen={max_unseen}")
    if problems:
        raise CheckFailed("; ".join(problems))


def main() -> None:
    entries = Range(low=0, high=2**20, why="no vocabulary has more entries")
    define("vocab_dir", str, "", "Vocabulary directory, or a model directory.", PATH)
    define("records", str, "", "Records directory whose counts say what was seen.", PATH)
    define("max_unreachable", int, 0, "Most unreachable entries allowed.", entries)
    define("max_unseen", int, None, "Most unseen entries allowed (default: any number).", entries)
    define("min_count", int, 1, "An entry that occurs less often counts as unseen.", OCCURRENCES)
    define("output", str, "", "JSON file to write with every entry by name.", PATH)
    define("overwrite", bool, False, "Replace --output if it exists.")
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    if not values.vocab_dir:
        raise UsageError("--vocab_dir is needed")
    if not values.records:
        refuse_flags("no --records", ("max_unseen", "min_count"))
    if not values.output:
        refuse_flags("no --output", ("overwrite",))
    if values.output and files.exists(values.output) and not values.overwrite:
        raise UsageError(f"{values.output}: exists: --overwrite replaces it")
    tokenizer = load_tokenizer(values.vocab_dir)
    id_counts = (load_id_counts(values.records, tokenizer, values.vocab_dir)
                 if values.records else None)
    report = audit(tokenizer, id_counts, min_count=values.min_count)
    if values.output:
        files.write_bytes(values.output, report.to_json().encode())
    print("\n".join([report.summary(), *examples_by_class(report)]))
    check_thresholds(report, values.max_unreachable, values.max_unseen)


if __name__ == "__main__":
    run_main(main)
