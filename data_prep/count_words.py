r"""Counts the words of a corpus, for `train_vocabulary`.

    python -m data_prep.count_words --input='corpus/*.jsonl.gz' --output=counts.tsv --workers=8

As an Apache Beam job, whose own options come after "--":

    python -m data_prep.count_words --input='gs://bucket/corpus/*' --output=gs://bucket/counts.tsv \
        --sample_fraction=0.05 --min_count=5 --runner=FlinkRunner -- --flink_master=host:8081

Then:

    python -m data_prep.train_vocabulary --counts=counts.tsv --output=vocabulary --vocab_size=50000

Words are those of the tokeniser: the operations that normalise and split text here also tokenise it
later. `counts.tsv` has lines `word<TAB>count`; `counts.tsv.json` beside it says how text was
normalised.
"""

from collections import Counter

from absl import flags

from data_prep.command_line import (
    MAX_BAD_FRACTION,
    MOST_BAD,
    OCCURRENCES,
    SAMPLED,
    WORKERS,
    prepare_tool,
)
from data_prep.outputs import check_apart
from data_prep.words import counting
from electra_es import files
from electra_es.config import TextConfig
from electra_es.errors import UsageError, run_main
from electra_es.flags import (
    command_line_settings,
    define,
    define_config_flags,
    parse_flags_before_dashes,
    refuse_flags,
)
from electra_es.settings import NAME, PATH, PATHS


def main() -> None:
    define("input", str, None, "Text files: comma-separated paths, globs or folders.", PATHS)
    define("output", str, None, "The file of counts to write.", PATH)
    define("sample_fraction", float, 1.0, "Share of the documents, chosen by content hash.", SAMPLED)
    define("min_count", int, 1, "Leave out words that occur less often.", OCCURRENCES)
    define("runner", str, "local", "local, or a Beam runner: DirectRunner, FlinkRunner, ...", NAME)
    define("workers", int, 0, "Processes of runner=local and DirectRunner; 0: one a core.", WORKERS)
    define("max_bad_fraction", float, MAX_BAD_FRACTION,
           "End if more of the documents, or of their bytes, cannot be read.", MOST_BAD)
    define("overwrite", bool, False, "Replace the output if it exists.")
    define_config_flags(TextConfig, skip=("vocab_size", "vocab_sha256"))
    prepare_tool()
    beam_options = parse_flags_before_dashes()
    values = flags.FLAGS
    if not values.input or not values.output:
        raise UsageError("--input and --output are needed")
    if values.runner not in ("local", "DirectRunner"):
        refuse_flags(f"--runner={values.runner}", ("workers",))
    if files.exists(values.output) and not values.overwrite:
        raise UsageError(f"{values.output}: exists: --overwrite replaces it")
    files.check_can_be_file(values.output)
    check_apart(f"output={values.output}", [values.output, values.output + ".json"],
                input=values.input)
    config = TextConfig(**command_line_settings(values, []))
    files.remove(values.output + ".json")
    if values.runner != "local":
        counting.beam_count_files(
            values.input, values.output, config, beam_options=beam_options,
            sample_fraction=values.sample_fraction, min_count=values.min_count, runner=values.runner,
            workers=values.workers, max_bad_fraction=values.max_bad_fraction)
        counting.write_settings(values.output, config)
        print(f"{values.output}: written")
        return
    if beam_options:
        raise UsageError(f"{beam_options[0]}: Beam's options need a Beam runner")
    words = counting.count_files(values.input, config, sample_fraction=values.sample_fraction,
                                 workers=values.workers, max_bad_fraction=values.max_bad_fraction)
    kept = Counter({word: number for word, number in words.items() if number >= values.min_count})
    counting.write_counts(kept, values.output)
    counting.write_settings(values.output, config)
    print(f"{values.output}: {len(kept)} different words, {kept.total()} in all")


if __name__ == "__main__":
    run_main(main)
