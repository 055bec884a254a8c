"""The builder: same bytes on every engine, nothing lost, resumed and refused as it should be."""

import collections
import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

from data_prep import inspect_tfrecords, pipeline, pipeline_local, pipeline_tasks
from data_prep.build_config import BuildConfig
from data_prep.command_line import parse_flags
from data_prep.pipeline import build_tfrecords
from electra_es import records
from electra_es.config import TextConfig
from electra_es.errors import UsageError
from electra_es.run_dir import only_run_in
from electra_es.text import load_tokenizer, save_text_config

LETTERS = "abcdefghijklmnopqrstuvwxyzñ"
REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def vocab_dir(tmp_path_factory) -> str:
    """61 entries: five special tokens, each letter at the start and inside of a word, two words."""
    path = tmp_path_factory.mktemp("vocabulary")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS,
              *("##" + letter for letter in LETTERS), "casa", "##ción"]
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = save_text_config(path, TextConfig())
    assert config.vocab_size == 61
    return str(path)


def sentence(draws: random.Random) -> str:
    return " ".join("".join(draws.choices(LETTERS, k=draws.randint(1, 7)))
                    for _ in range(draws.randint(1, 15)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    """240 documents in three formats, different in number and length."""
    path = tmp_path_factory.mktemp("corpus")
    draws = random.Random(5)
    documents = [[sentence(draws) for _ in range(draws.randint(1, 6))] for _ in range(240)]
    texts = ["\n".join(sentences) for sentences in documents]
    (path / "a.txt").write_text("\n\n".join(texts[:130]), encoding="utf-8")
    with gzip.open(path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"content": text}) + "\n" for text in texts[130:170])
    (path / "c.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts[170:]), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    """Several tasks out of a small corpus; planned in this process, so all engines get them."""
    monkeypatch.setattr(pipeline_tasks, "TASK_BYTES", 9_000)


def config(corpus, vocabulary, directory, **settings) -> BuildConfig:
    return BuildConfig(**{"input": f"{corpus}/*", "vocab_dir": vocabulary, "output": str(directory),
                          "max_seq_length": 40, "validation_fraction": 0.1, "workers": 1,
                          **settings})


def digests(directory) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in pathlib.Path(directory).iterdir() if path.is_file()}


def examples_of(directory, split="train") -> list[tuple[list[int], int]]:
    info = records.load_records_info(str(directory))
    return [(ids.tolist(), second)
            for ids, second in inspect_tfrecords.read_examples(str(directory), info, split)]


def stats_of(directory) -> dict:
    return json.loads((pathlib.Path(directory) / "stats.json").read_text())


@pytest.fixture(scope="module")
def built(corpus, vocab_dir, tmp_path_factory):
    """Records of the corpus by the local engine with one worker."""
    output = tmp_path_factory.mktemp("built") / "records"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_tasks, "TASK_BYTES", 9_000)
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


def test_nothing_is_overwritten_unasked(corpus, vocab_dir, tmp_path):
    output = tmp_path / "records"
    small = config(corpus, vocab_dir, output, input=f"{corpus}/b.jsonl.gz")
    build_tfrecords(small)
    before = digests(output)
    with pytest.raises(UsageError, match="holds finished records"):
        build_tfrecords(small)
    with pytest.raises(UsageError, match="holds finished records"):
        build_tfrecords(config(corpus, vocab_dir, output, seed=1))
    assert digests(output) == before
    build_tfrecords(config(corpus, vocab_dir, output, input=f"{corpus}/b.jsonl.gz", overwrite=True,
                           seed=7))
    assert digests(output)["train-00000-of-00008.tfrecord"] != before[
        "train-00000-of-00008.tfrecord"]
    (output / "COMPLETED").unlink()
    with pytest.raises(UsageError, match="not this job's own unfinished output"):
        build_tfrecords(small)
    (output / "notes.md").write_text("mine")
    with pytest.raises(UsageError, match="notes.md in it is no part of records"):
        build_tfrecords(config(corpus, vocab_dir, output, overwrite=True))
    assert (output / "train-00000-of-00008.tfrecord").exists()


@pytest.mark.parametrize("settings", [{}, {"runner": "DirectRunner"}], ids=["local", "beam"])
@pytest.mark.parametrize("dedup", ["exact", "near"])
def test_duplicates_over_all_files(vocab_dir, tmp_path, dedup, settings):
    if dedup == "near":
        pytest.importorskip("datasketch")
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


HOSTILE = {
    "broken.jsonl": b'{"text": "casa"}\n{"text": \n{"title": "casa"}\n{"text": 7}\n',
    "utf8.txt": b"casa\n\nca\xffsa\n\nca\0sa\n\n" + b"casa " * 5_000,
    "empty.txt": b"", "blank.txt": b"\n \n\n\t\n",
    "cut.jsonl.gz": gzip.compress(b'{"text": "casa casa"}\n' * 500)[:-20],
    "not.jsonl.zst": b"not a frame", "not.parquet": b"PAR1PAR1",
    "one_line.jsonl": b'{"text": "' + b"casa " * 5_000 + b'"}',
    "surrogate.jsonl": b'{"\\ud800": 1}\n', "zeros.txt.gz": bytes(9_000), "nothing.txt.zst": b"",
    os.fsdecode(b"mal\xff.jsonl"): b'["a"]\n',
    "number.jsonl": b'{"text": "casa", "prob": 1' + b"0" * 400 + b"}\n",
}
EXPECTED_BAD = {"invalid_json": 1, "no_text_field": 3, "text_is_no_string": 1, "invalid_utf8": 1,
                "nul_character": 1, "huge_document": 2, "truncated_file": 4,
                "unreadable_parquet": 1}


@pytest.fixture
def hostile(tmp_path) -> pathlib.Path:
    path = tmp_path / "hostile"
    path.mkdir()
    for name, data in HOSTILE.items():
        (path / name).write_bytes(data)
    return path


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "data_prep.build_tfrecords", *arguments],
                          cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
                          env={"TF_CPP_MIN_LOG_LEVEL": "3", "PATH": ""})


def test_hostile_input_is_counted(hostile, vocab_dir, tmp_path):
    result = command(f"--input={hostile}", f"--vocab_dir={vocab_dir}", f"--output={tmp_path}/out",
                     "--max_document_bytes=20000", "--workers=1", "--max_seq_length=40")
    assert result.returncode == 0, result.stderr
    stats = stats_of(tmp_path / "out")
    assert stats["bad_input"] == EXPECTED_BAD
    assert stats["bad_input_examples"]["no_text_field"] == [
        "broken.jsonl: byte 27: has title", "mal\\udcff.jsonl: byte 0: expected an object, not list",
        "surrogate.jsonl: byte 0: has \\ud800"]
    assert 150 <= stats["documents"] <= 502 and stats["dropped_documents"] == {}
    assert "bad input: huge_document, 2 times, such as one_line.jsonl: byte 0" in result.stderr


def test_too_much_bad_input_ends_the_job(hostile, vocab_dir, tmp_path):
    (hostile / "cut.jsonl.gz").unlink()
    for runner in ("local", "DirectRunner"):
        settings = config(hostile, vocab_dir, tmp_path / runner, runner=runner,
                          max_document_bytes=20_000)
        with pytest.raises(UsageError, match="max_bad_fraction=0.05: .* first at") as error:
            build_tfrecords(settings)
        assert str(error.value).startswith("81.2% of the documents cannot be read")
        assert "\n" not in str(error.value)
        assert not (tmp_path / runner / "COMPLETED").exists()
        # What is done stays, so that the answer to it is quick.
        build_tfrecords(dataclasses.replace(settings, max_bad_fraction=0.9))


def test_names_that_look_like_patterns(vocab_dir, tmp_path):
    folder = tmp_path / "a[1], b*"
    folder.mkdir()
    (folder / "c?.txt").write_text("casa\n")
    output = tmp_path / "records [2], 3"
    info = build_tfrecords(config(folder, vocab_dir, output, input=f"{tmp_path}/a*/c*",
                                  validation_fraction=0.0))
    assert info.num_examples("train") == 1
    assert stats_of(output)["bytes_per_token"] > 1


def test_two_jobs_in_one_output(corpus, vocab_dir, tmp_path):
    settings = config(corpus, vocab_dir, tmp_path / "records")
    with only_run_in(settings.output), pytest.raises(UsageError, match="another run is writing there"):
        build_tfrecords(settings)
    build_tfrecords(settings)
    assert "LOCK" not in digests(settings.output)


def test_what_is_no_file_is_named(corpus, vocab_dir, tmp_path):
    (tmp_path / "gone.txt").symlink_to("/nowhere/a.txt")
    with pytest.raises(UsageError, match="gone.txt: a link to /nowhere/a.txt, which does not exist"):
        build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "records", input=str(tmp_path)))


def test_an_output_that_is_part_of_the_input_is_refused(vocab_dir, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("casa\n" * 100)
    settings = config(tmp_path, vocab_dir, tmp_path / "in/../in/records", input=f"{tmp_path}/in")
    with pytest.raises(UsageError, match=f"is in the folder {tmp_path}/in, which is input: expected"):
        build_tfrecords(settings)
    assert not (tmp_path / "in/records").exists()


def test_overwriting_removes_records_only(vocab_dir, tmp_path):
    (tmp_path / "a.txt").write_text("casa\n" * 100)
    vocabulary = tmp_path / "vocabulary"
    shutil.copytree(vocab_dir, vocabulary)
    settings = config(tmp_path, str(vocabulary), vocabulary, input=f"{tmp_path}/a.txt", overwrite=True)
    with pytest.raises(UsageError, match="is vocab_dir too: expected another directory"):
        build_tfrecords(settings)
    other = tmp_path / "other"
    shutil.copytree(vocab_dir, other)
    for stranger, message in ((None, "has text.json, but nothing says that it is records"),
                              ("pretrain_data.tfrecord-0-of-1", "pretrain_data.tfrecord-0-of-1 in it"),
                              ("mine.tfrecords", "mine.tfrecords in it is no part of records")):
        if stranger:
            (other / stranger).write_bytes(b"")
        with pytest.raises(UsageError, match=message):
            build_tfrecords(dataclasses.replace(settings, output=str(other)))
        assert {"text.json", "vocab.txt"} <= set(digests(other))
        (other / (stranger or "nothing")).unlink(missing_ok=True)


def test_a_stopped_job_does_not_go_on_with_a_changed_input(vocab_dir, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("casa\n" * 100)
    settings = config(tmp_path, vocab_dir, tmp_path / "records", input=str(path),
                      validation_fraction=0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline_local, "_write_shard", lambda *_: exec("raise KeyboardInterrupt"))
        build_tfrecords(settings)
    path.write_text("cosa\n" * 100)
    os.utime(path, (1, 1))
    with pytest.raises(UsageError, match="not this job's own unfinished output"):
        build_tfrecords(settings)
    build_tfrecords(dataclasses.replace(settings, overwrite=True))
    fresh = dataclasses.replace(settings, output=str(tmp_path / "fresh"))
    build_tfrecords(fresh)
    assert digests(settings.output) == digests(fresh.output)


def test_a_file_that_is_input_and_held_out_is_held_out_only(vocab_dir, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"casa {name}\n")
    build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "records", input=f"{tmp_path}/*.txt",
                           validation_input=f"{tmp_path}/../{tmp_path.name}/b.txt"))
    assert stats_of(tmp_path / "records")["examples"] == {"train": 1, "validation": 1}
    with pytest.raises(UsageError, match="all 1 documents are held out, none is left for training"):
        build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "none", input=f"{tmp_path}/a.txt",
                               validation_fraction=0.9999999))


def test_a_full_disk_is_one_line(corpus, vocab_dir, tmp_path):
    for workers in (1, 2):
        result = subprocess.run(
            ["bash", "-c", f"ulimit -f 8; exec {sys.executable} -m data_prep.build_tfrecords "
             f"--input={corpus} --vocab_dir={vocab_dir} --output={tmp_path}/{workers} "
             f"--workers={workers}"], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
        assert result.returncode == 2, result.stderr
        assert "cannot be written (File too large): the same command goes on when there is room" in (
            result.stderr) and "Traceback" not in result.stderr


def test_a_stopped_job_does_not_go_on_with_another_file_of_the_same_name(vocab_dir, tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": 7}\n'))
    settings = config(tmp_path, vocab_dir, tmp_path / "records", input=str(path))
    with pytest.raises(UsageError, match="cannot be read, more than max_bad_fraction"):
        build_tfrecords(settings)
    path.write_bytes(gzip.compress(b'{"text": "casa"}\n'))
    with pytest.raises(UsageError, match="not this job's own unfinished output"):
        build_tfrecords(settings)


def test_unknown_flag_is_one_line():
    result = command("--inptu=x", "--vocab_dir=x", "--output=x")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "'inptu'" in line and "input" in line.replace("inptu", "")


@pytest.mark.parametrize("argv, message", [
    (["tool", "--v=high"], "flag --verbosity=high"), (["tool", "corpus"], "corpus: expected only flags")])
def test_wrong_command_lines_are_one_line(argv, message):
    with pytest.raises(UsageError, match=message) as error:
        parse_flags(argv)
    assert "\n" not in str(error.value)


def test_what_follows_two_dashes_is_for_beam():
    assert parse_flags(["tool", "--", "--parallelism=4", "x"]) == ["--parallelism=4", "x"]


@pytest.mark.parametrize("settings, message", [
    ({"input": "/nowhere/*.txt"}, "/nowhere/\\*.txt: expected input files, but nothing matches"),
    ({"max_seq_length": 7}, "max_seq_length=7: expected at least 8"),
    ({"validation_fraction": 1.5}, "validation_fraction=1.5: expected a share"),
    ({"dedup": "nearr"}, 'dedup=\'nearr\': expected one of none, exact, near; did you mean "near"'),
    ({"vocab_dir": ""}, "vocab_dir='': expected a path"),
    ({"language": "ES"}, "language='ES': expected a code of two small letters, such as es"),
    ({"min_language_probability": 0.5}, "min_language_probability=0.5: expected --language beside it"),
    ({"dedup": "near", "near_duplicate_threshold": 1.0}, "near_duplicate_threshold=1.0: expected at"),
    ({"max_document_bytes": 0}, "max_document_bytes=0: expected 1 or more"),
    ({"packing": "joined"}, "packing='joined': expected one of documents, none"),
    ({"min_chars": 10**6}, "no document that can be used; dropped: too_short 240"),
    ({"output": "/proc/records"}, "/proc/records: cannot be created"),
    ({"runner": "NoRunner"}, "runner=NoRunner: .*NoRunner"),
])
def test_wrong_settings_are_one_line(corpus, vocab_dir, tmp_path, settings, message):
    with pytest.raises(UsageError, match=message) as error:
        build_tfrecords(config(corpus, vocab_dir, tmp_path / "records", **settings))
    assert "\n" not in str(error.value)


def test_options_for_beam_are_checked(corpus, vocab_dir, tmp_path):
    with pytest.raises(UsageError, match="--parallelism=4: options for Beam, but runner=local"):
        build_tfrecords(config(corpus, vocab_dir, tmp_path / "a"), ["--parallelism=4"])
    with pytest.raises(UsageError, match="--parallelsim=4: Apache Beam .* no such option"):
        build_tfrecords(config(corpus, vocab_dir, tmp_path / "b", runner="DirectRunner"),
                        ["--parallelsim=4"])


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
