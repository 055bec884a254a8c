"""The builder: every engine writes the same bytes, nothing is lost, and a stopped job can continue."""

import collections
import gzip
import hashlib
import json
import logging
import random

import numpy as np
import pytest
from builder_helpers import (
    TASK_BYTES,
    config,
    digests,
    examples_of,
    sentence,
    stats_of,
)

from data_prep import inspect_tfrecords
from data_prep.build import engine_local as pipeline_local
from data_prep.build import job as pipeline
from data_prep.build import tasks as pipeline_tasks
from data_prep.build.job import build_tfrecords
from data_prep.build.settings import BuildConfig
from electra_es.data import records
from electra_es.errors import UsageError
from electra_es.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("small_tasks")


@pytest.fixture(scope="module")
def built(corpus, vocab_dir, tmp_path_factory):
    """Records of the corpus by the local engine with one worker."""
    output = tmp_path_factory.mktemp("built") / "records"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_tasks, "TASK_BYTES", TASK_BYTES)
        info = build_tfrecords(config(corpus, vocab_dir, output))
    return output, info


@pytest.mark.parametrize("settings", [
    {"workers": 2}, {"runner": "DirectRunner", "workers": 1},
    {"runner": "DirectRunner", "workers": 2}],
    ids=["local-2", "beam-1", "beam-2"])
def test_same_bytes_on_every_engine(built, corpus, vocab_dir, tmp_path, settings):
    info = build_tfrecords(config(corpus, vocab_dir, tmp_path / "records", **settings))
    assert info == built[1]
    assert digests(tmp_path / "records") == digests(built[0])


@pytest.mark.parametrize("settings, expected", [
    ({}, "a049cdae04673601"), ({"dedup": "near", "packing": "none"}, "c6d9bdd73c6c024a"),
    ({"dedup": "exact", "min_chars": 30}, "5eac8eb3c8316558"),
    ({"scheme": "original"}, "ba45c0bb31169cf0")])
def test_the_bytes_are_those_of_the_first_version(corpus, vocab_dir, tmp_path, settings, expected):
    """A change of them is a change of every published record: it needs a new FORMAT_VERSION."""
    build_tfrecords(config(corpus, vocab_dir, tmp_path / "records", **settings))
    found = digests(tmp_path / "records")
    together = "".join(found[name] for name in sorted(found) if name.endswith(".tfrecord"))
    assert hashlib.sha256(together.encode()).hexdigest().startswith(expected)


def test_the_summary_adds_up_to_the_input(vocab_dir, tmp_path, caplog):
    """And says what every rule took, by documents and by bytes."""
    texts = ["casa de la ñ " * 20, "corto", "casa de la ñ " * 20, "casa común " * 15,
             "otra casa " * 900]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*texts, 7]), encoding="utf-8")
    with caplog.at_level(logging.INFO):
        build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "records", input=f"{tmp_path}/a.jsonl",
                               dedup="exact", min_chars=30, max_document_bytes=5_000, language="es",
                               max_bad_fraction=1.0, validation_fraction=0.0))
    table = {line.split("  ")[1].strip(): line for line in caplog.text.splitlines()
             if " documents " in line and " MB " in line}
    sizes = {name: float(line.split("documents")[1].split()[0]) for name, line in table.items()}
    numbers = {name: int(line.split("documents")[0].split()[-1]) for name, line in table.items()}
    assert numbers == {"kept": 2, "dropped: exact_duplicate": 1, "dropped: too_short": 1,
                       "not readable: huge_document": 1, "not readable: text_is_no_string": 1, "sum": 6}
    assert sum(sizes.values()) == pytest.approx(2 * sizes["sum"], abs=3e-3)
    stats = stats_of(tmp_path / "records")
    assert stats["text_bytes"] + sum(stats["dropped_bytes"].values()) == sum(
        len(text.encode()) for text in texts[:4])
    assert stats["bad_bytes"] == {"huge_document": 9_000, "text_is_no_string": 11}
    assert "language=es: 4 of the 4 documents have no label of their language" in caplog.text


def test_every_token_of_every_document_is_in_the_records_once(built, corpus, vocab_dir):
    output, info = built
    tokenizer = load_tokenizer(vocab_dir)
    texts = (corpus / "a.txt").read_text(encoding="utf-8").split("\n\n")
    for name, opener in (("b.jsonl.gz", gzip.open), ("c.jsonl", open)):
        with opener(corpus / name, "rt", encoding="utf-8") as file:
            texts += [next(iter(json.loads(line).values())) for line in file]
    expected = np.bincount(np.concatenate(tokenizer.encode_batch(texts)), minlength=61)
    found = np.zeros(61, np.int64)
    for split in records.SPLITS:
        for ids, second in examples_of(output, split):
            found += np.bincount(ids, minlength=61)
            assert 3 <= len(ids) <= 40 and ids[0] == tokenizer.cls_id and ids[-1] == tokenizer.sep_id
            assert second == len(ids) or ids[second - 1] == tokenizer.sep_id
    np.testing.assert_array_equal(np.load(output / "id_counts.npy"), found)
    # Special tokens apart, which the text has none of.
    expected[[tokenizer.cls_id, tokenizer.sep_id]] = found[[tokenizer.cls_id, tokenizer.sep_id]]
    np.testing.assert_array_equal(found, expected)
    stats = stats_of(output)
    assert stats["documents"] == 240 and stats["dropped_tokens"] == 0
    assert stats["tokens"] == sum(found) - found[tokenizer.cls_id] - found[tokenizer.sep_id]
    assert stats["examples"] == {split: info.num_examples(split) for split in records.SPLITS}
    examples = sum(stats["examples"].values())
    assert stats["padding_fraction"] == pytest.approx(1 - sum(found) / (40 * examples), abs=1e-6)


def test_description_of_the_records(built, vocab_dir):
    output, info = built
    assert info.vocab_size == 61 and info.max_seq_length == 40
    assert info.special_ids == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    assert (info.packing, info.scheme, info.kind) == ("documents", "carry_over", "electra_es")
    counts = info.examples["train"]
    assert len(counts) == 8 and max(counts) - min(counts) <= 7  # Seven blocks, spread in turn.
    assert len(info.examples["validation"]) == 1 and info.num_examples("validation") > 0
    assert load_tokenizer(output).vocab == load_tokenizer(vocab_dir).vocab
    assert not [name for name in digests(output) if "tmp" in name]
    assert not (output / pipeline.WORK_DIR).exists()


def test_order_is_global_and_follows_the_seed(built, corpus, vocab_dir, tmp_path):
    build_tfrecords(config(corpus, vocab_dir, tmp_path / "records", seed=43))
    ours, other = examples_of(built[0]), examples_of(tmp_path / "records")
    assert ours != other
    tokenizer = load_tokenizer(vocab_dir)
    (first_file,) = tokenizer.encode_batch([(corpus / "a.txt").read_text(encoding="utf-8")])
    runs = {tuple(first_file[i:i + 6].tolist()) for i in range(len(first_file))}
    from_first_file = np.array([any(tuple(ids[i:i + 6]) in runs for i in range(len(ids)))
                                for ids, _ in ours])
    assert 0.4 < from_first_file.mean() < 0.7
    ends = np.cumsum(built[1].examples["train"])[:-1]
    shares = [shard.mean() for shard in np.split(from_first_file, ends)]
    assert min(shares) > 0.2 and max(shares) < 0.9
    # And within a shard: the first file is not in front.
    assert 0.3 < np.concatenate(
        [np.flatnonzero(shard) / len(shard) for shard in np.split(from_first_file, ends)]
    ).mean() < 0.7


def test_held_out_documents_depend_on_the_document_alone(vocab_dir, tmp_path):
    draws = random.Random(8)
    texts = [sentence(draws) for _ in range(300)]
    held_out = []
    for name, order in (("a", texts), ("b", texts[::-1])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(order), encoding="utf-8")
        build_tfrecords(config(tmp_path / f"{name}.txt", vocab_dir, tmp_path / name,
                               input=str(tmp_path / f"{name}.txt"), packing="none"))
        held_out.append(collections.Counter(
            tuple(ids) for ids, _ in examples_of(tmp_path / name, "validation")))
        assert 10 <= len(held_out[-1]) <= 80
    assert held_out[0] == held_out[1]


def test_validation_input_is_held_out_whole(corpus, vocab_dir, tmp_path):
    build_tfrecords(config(corpus, vocab_dir, tmp_path / "records", input=f"{corpus}/a.txt",
                           validation_input=f"{corpus}/c.jsonl", validation_fraction=-1.0))
    tokens = sum(len(ids) for ids, _ in examples_of(tmp_path / "records", "validation"))
    build_tfrecords(config(corpus, vocab_dir, tmp_path / "alone", input=f"{corpus}/c.jsonl",
                           validation_fraction=0.0))
    alone = sum(len(ids) for ids, _ in examples_of(tmp_path / "alone"))
    assert examples_of(tmp_path / "alone", "validation") == []
    assert abs(tokens - alone) < 0.05 * alone  # Only [CLS] and [SEP] differ, with the cuts.


def test_padding_by_packing_and_scheme(corpus, vocab_dir, tmp_path):
    stats = {}
    for name, settings in (("joined", {}), ("alone", {"packing": "none"}),
                           ("original", {"scheme": "original"})):
        build_tfrecords(config(corpus, vocab_dir, tmp_path / name, **settings))
        stats[name] = stats_of(tmp_path / name)
    assert stats["joined"]["dropped_tokens"] == stats["alone"]["dropped_tokens"] == 0
    assert stats["original"]["dropped_tokens"] > 0
    assert stats["joined"]["padding_fraction"] < 0.06 < stats["alone"]["padding_fraction"]
    assert stats["joined"]["tokens"] == stats["original"]["tokens"]


def test_stopped_job_goes_on_without_doing_anything_twice(
        built, corpus, vocab_dir, tmp_path, monkeypatch):
    done = []
    process_task = pipeline_tasks.process_task

    def failing(task, *args, **kwargs):
        if task.number == 3 and len(done) == 3:
            raise KeyboardInterrupt
        done.append(task.number)
        yield from process_task(task, *args, **kwargs)

    monkeypatch.setattr(pipeline_tasks, "process_task", failing)
    settings = config(corpus, vocab_dir, tmp_path / "records")
    with pytest.raises(KeyboardInterrupt):
        build_tfrecords(settings)
    with pytest.raises(UsageError, match="no COMPLETED"):
        records.load_records_info(settings.output)
    done.append(-1)
    write_shard = pipeline_local._write_shard
    written = []

    def failing_shard(shard, *args):
        if shard == 5 and len(written) == 5:
            raise KeyboardInterrupt
        written.append(shard)
        return write_shard(shard, *args)

    monkeypatch.setattr(pipeline_local, "_write_shard", failing_shard)
    with pytest.raises(KeyboardInterrupt):
        build_tfrecords(settings)
    before = {path.name: path.stat().st_mtime_ns
              for path in (tmp_path / "records").glob("*.tfrecord")}
    assert len(before) == 5
    written.append(-1)
    build_tfrecords(settings)
    assert sorted(done) == sorted([*set(done)]) and done.index(-1) == 3
    assert before.items() <= {path.name: path.stat().st_mtime_ns
                              for path in (tmp_path / "records").glob("*.tfrecord")}.items()
    assert digests(tmp_path / "records") == digests(built[0])


@pytest.mark.parametrize("settings", [{}, {"runner": "DirectRunner"}], ids=["local", "beam"])
@pytest.mark.parametrize("dedup", ["exact", "near"])
def test_duplicates_over_all_files(vocab_dir, tmp_path, dedup, settings):
    draws = random.Random(6)
    base = [" ".join(sentence(draws) for _ in range(10)) for _ in range(30)]
    similar = [text + " casa" for text in base[:7]]
    (tmp_path / "a.txt").write_text("\n\n".join(base + base[:3]), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n\n".join([*similar, base[9].replace(" ", "  ")]),
                                    encoding="utf-8")
    build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "records", dedup=dedup,
                           input=f"{tmp_path}/*.txt", **settings))
    expected = {"exact": 4, "near": 11}[dedup]
    stats = stats_of(tmp_path / "records")
    assert stats["dropped_documents"] == {f"{dedup}_duplicate": expected}
    assert stats["documents"] == 41 - expected
    assert stats["duplicate_clusters"] == ({"2": 4} if dedup == "exact" else {"2": 5, "3 to 4": 3})
    build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "copies", dedup=dedup, max_copies=2,
                           input=f"{tmp_path}/*.txt", **settings))
    stats = stats_of(tmp_path / "copies")
    assert stats["documents"] == 41 - (0 if dedup == "exact" else 3)


def test_number_of_shards_follows_the_input():
    def shards(size, name="a.txt", **settings):
        job = pipeline._job(BuildConfig(input="i", vocab_dir="v", output="o", **settings),
                         [(name, size)], [])
        return job.train_shards, job.validation_shards

    megabyte = 1 << 20
    assert shards(0) == (8, 0)
    assert shards(200_000) == (8, 1)
    assert shards(1024 * megabyte) == (8, 1)
    assert shards(1025 * megabyte) == (16, 1)
    assert shards(600 * megabyte, "a.jsonl.gz") == (16, 1)
    assert shards(150 << 30) == (1200, 6)
    assert shards(200_000, num_shards=3, validation_fraction=0.0) == (3, 0)


def test_inspection_shows_pieces_segments_and_a_masking(built):
    output, _ = built
    tokenizer = load_tokenizer(output)
    ids = np.array([2, 5, 33, 3, 59, 60, 3], np.int32)
    shown = inspect_tfrecords.describe(ids, 4, 1, 40, tokenizer)
    assert shown.startswith("example 1: 7 of 40 tokens (82.5% padding), segments of 4 and 3 tokens")
    assert "first:  [CLS] ab [SEP]\n  second: casación [SEP]" in shown
    hidden = shown.rsplit("hidden: ", 1)[1]
    assert hidden in ("a", "##b", "casa", "##ción")
