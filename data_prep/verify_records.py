r"""Checks that records are made of the text that they name: builds some shards again and compares.

    python -m data_prep.verify_records --records=records --input='corpus/*.txt'

The settings are those in info.json, the vocabulary is the copy beside the records. Every part of the
input is read and tokenised again; of the shards only `--shards` are written, into a temporary
directory. Ends with exit code 1 if a file, a shard or a number of examples differs.
"""

import dataclasses
import os
import random
import tempfile
from collections.abc import Sequence

from absl import flags

from data_prep.build import engine_local
from data_prep.build.description import Job
from data_prep.build.job import KEYS_FILE, shown_name
from data_prep.build.tasks import plan_tasks
from data_prep.command_line import WORKERS, prepare_tool
from data_prep.corpus import listing
from data_prep.corpus.decontamination import runs_sha256, write_keys
from electra_es import files
from electra_es.data.records import SPLITS, RecordsInfo, load_records_info, shard_paths
from electra_es.errors import CheckFailed, UsageError, run_main
from electra_es.flags import define, parse_flags_only
from electra_es.settings import PATH, PATHS, Range
from electra_es.text.tokenizer import load_tokenizer


def verify(directory: str, input: str, validation_input: str = "", decontaminate: str = "", *,
           num_shards: int = 2, workers: int = 0) -> list[str]:
    """Builds `num_shards` shards of a records directory again and compares them.

    Returns:
      names of the shards that were compared.

    Raises:
      UsageError: no records of this project, or input that cannot be read.
      CheckFailed: the input, a shard or a number of examples is another one.
    """
    info = load_records_info(directory)
    if not info.settings or not info.sources:
        raise UsageError(f"{directory}: does not say how it was built: expected records of "
                         "data_prep.build_tfrecords, of a version that writes settings into info.json")
    tokenizer = load_tokenizer(directory)
    held_out = listing.list_files(validation_input) if validation_input else []
    inputs = listing.without(listing.list_files(input), held_out)
    try:
        job = Job.from_values(info.settings, directory, "")
    except (TypeError, KeyError):
        raise UsageError(f"{directory}: was built by another version of data_prep.build_tfrecords: "
                         "expected the same") from None
    if runs_sha256(decontaminate) != job.decontaminate_sha256:
        raise CheckFailed(f"decontaminate={decontaminate}: {directory} was built with "
                          f"{'other' if job.decontaminate_sha256 else 'no'} files of tasks")
    tasks = plan_tasks(inputs, held_out, job.input_format)
    _check_names([*inputs, *held_out], info)
    if job.fingerprint(tokenizer.config.vocab_sha256, tasks) != info.fingerprint:
        raise CheckFailed(f"{directory}: the input, the vocabulary or the settings are not those of its "
                          "fingerprint")
    paths = [path for split in SPLITS for path in shard_paths(directory, info, split)]
    counts = [count for split in SPLITS for count in info.examples.get(split, [])]
    draws = random.Random(info.fingerprint)
    chosen = sorted(draws.sample(range(len(paths)), min(num_shards, len(paths))))
    with tempfile.TemporaryDirectory() as scratch:
        if decontaminate:
            job = dataclasses.replace(job, decontaminate_keys=os.path.join(scratch, KEYS_FILE))
            write_keys(decontaminate, job.decontaminate_keys)
        new = [os.path.join(scratch, os.path.basename(path)) for path in paths]
        found, _, checksums = engine_local.run(
            tasks, job, len(tokenizer.vocab), new, os.path.join(scratch, "work"), workers, 1.0,
            only=chosen)
        for source, (path, _) in zip(info.sources, [*inputs, *held_out], strict=True):
            kinds = {checksum.partition(":")[0] for checksum in (source["checksum"], checksums[path])}
            if len(kinds) == 1 and source["checksum"] != checksums[path]:
                raise CheckFailed(f"{path}: {checksums[path]}, {directory} was built from "
                                  f"{source['checksum']}")
        for shard, count in zip(chosen, found, strict=True):
            if count != counts[shard]:
                raise CheckFailed(f"{paths[shard]}: {count} examples come out, info.json has "
                                  f"{counts[shard]}")
            if files.read_bytes(paths[shard]) != files.read_bytes(new[shard]):
                raise CheckFailed(f"{paths[shard]}: other bytes come out")
    return [os.path.basename(paths[shard]) for shard in chosen]


def _check_names(found: Sequence[tuple[str, int]], info: RecordsInfo) -> None:
    names = [(shown_name(path), size) for path, size in found]
    expected = [(source["name"], source["bytes"]) for source in info.sources]
    if names == expected:
        return
    missing = [f"{name} of {size:,} bytes" for name, size in expected if (name, size) not in names]
    more = [f"{name} of {size:,} bytes" for name, size in names if (name, size) not in expected]
    raise CheckFailed("the input is another one: " + "; ".join(
        [*(f"missing: {name}" for name in missing[:2]),
         *(f"not in the records: {name}" for name in more[:2])] or ["the files are in another order"]))


def main() -> None:
    define("records", str, "", "Records directory to check.", PATH)
    define("input", str, "", "The text that it was built from, as for build_tfrecords.", PATHS)
    define("validation_input", str, "", "Files that were held out, if there were any.", PATHS)
    define("decontaminate", str, "", "The files of tasks that it was built without.", PATHS)
    define("shards", int, 2, "How many shards to build again.",
           Range(low=1, high=99_999, why="names of shards have five digits"))
    define("workers", int, 0, "Processes; 0: one a core.", WORKERS)
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    if not values.records or not values.input:
        raise UsageError("--records and --input are needed")
    names = verify(values.records, values.input, values.validation_input, values.decontaminate,
                   num_shards=values.shards, workers=values.workers)
    print(f"{values.records}: the input has the checksums in info.json; the same bytes come out: "
          f"{', '.join(names)}")


if __name__ == "__main__":
    run_main(main)
