r"""Builds a records directory from text.

    python -m data_prep.build_tfrecords \
        --input='corpus/*.jsonl.zst' --vocab_dir=vocabulary --output=records --max_seq_length=512

It runs on this machine with all cores (--runner=local, the default) or as an Apache Beam job. Beam's
own options follow "--":

    python -m data_prep.build_tfrecords --input='gs://bucket/corpus/*' \
        --vocab_dir=gs://bucket/vocab --output=gs://bucket/records \
        --runner=FlinkRunner -- --flink_master=host:8081 --parallelism=64

The same input, settings and version give the same bytes on every runner with any number of
workers. To continue a stopped job, run the same command again.
"""

import dataclasses

from absl import flags

from data_prep.build import workers
from data_prep.build.settings import BuildConfig
from data_prep.command_line import prepare_tool
from electra_es.errors import run_main
from electra_es.flags import define_config_flags, parse_flags_before_dashes, refuse_flags


def _refuse_unused(config: BuildConfig) -> None:
    if config.dedup != "near":
        refuse_flags(f"--dedup={config.dedup}", ("near_duplicate_threshold",))
    if config.dedup == "none":
        refuse_flags("--dedup=none", ("max_copies",))
    if config.scheme == "original":
        refuse_flags("--scheme=original", ("packing",))
    if not config.language:
        refuse_flags("no --language", ("min_language_probability", "language_detector"))
    if config.runner != "local":
        # Beam's local runner has workers, but uses its own temporary directories.
        unused = ("work_dir",) if config.runner == "DirectRunner" else ("work_dir", "workers")
        refuse_flags(f"--runner={config.runner}", unused)


def main() -> None:
    define_config_flags(BuildConfig)
    prepare_tool()
    beam_options = parse_flags_before_dashes()
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(BuildConfig)}
    config = BuildConfig(**{name: value for name, value in values.items() if value is not None})
    _refuse_unused(config)
    if config.runner == "local" and config.workers != 1:
        workers.start_server()
    # Imported only now: it imports TensorFlow, while the server does the same in parallel.
    from data_prep.build.job import build_tfrecords
    try:
        info = build_tfrecords(config, beam_options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from what is done") from None
    print(f"{config.output}: {info.num_examples('train')} train and "
          f"{info.num_examples('validation')} validation examples of up to {info.max_seq_length} "
          f"tokens in {len(info.examples['train'])} + {len(info.examples['validation'])} shards")


if __name__ == "__main__":
    run_main(main)
