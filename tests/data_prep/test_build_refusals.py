"""What the builder counts or refuses in one line: hostile input, wrong use, existing outputs."""

import dataclasses
import gzip
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from builder_helpers import config, digests, stats_of
from paths import ROOT

from data_prep.build import engine_local as pipeline_local
from data_prep.build import job
from data_prep.build.job import build_tfrecords
from electra_es import files
from electra_es.errors import UsageError
from electra_es.files import only_run_in
from electra_es.flags import parse_flags_before_dashes

pytestmark = pytest.mark.usefixtures("small_tasks")


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
    with pytest.raises(UsageError, match="notes.md in it does not belong to records"):
        build_tfrecords(config(corpus, vocab_dir, output, overwrite=True))
    assert (output / "train-00000-of-00008.tfrecord").exists()


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
def bad_corpus(tmp_path) -> pathlib.Path:
    path = tmp_path / "hostile"
    path.mkdir()
    for name, data in HOSTILE.items():
        (path / name).write_bytes(data)
    return path


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "data_prep.build_tfrecords", *arguments],
                          cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={"TF_CPP_MIN_LOG_LEVEL": "3", "PATH": ""})


def test_hostile_input_is_counted(bad_corpus, vocab_dir, tmp_path):
    result = command(f"--input={bad_corpus}", f"--vocab_dir={vocab_dir}", f"--output={tmp_path}/out",
                     "--max_document_bytes=20000", "--workers=1", "--max_seq_length=40",
                     "--max_bad_fraction=1")  # by bytes, most of it is bad
    assert result.returncode == 0, result.stderr
    stats = stats_of(tmp_path / "out")
    assert stats["bad_input"] == EXPECTED_BAD
    assert stats["bad_input_examples"]["no_text_field"] == [
        "broken.jsonl: byte 27: has title", "mal\\udcff.jsonl: byte 0: expected an object, not list",
        "surrogate.jsonl: byte 0: has \\ud800"]
    assert 150 <= stats["documents"] <= 502 and stats["dropped_documents"] == {}
    assert "bad input: huge_document, 2 times, such as one_line.jsonl: byte 0" in result.stderr


def test_too_much_bad_input_ends_the_job(bad_corpus, vocab_dir, tmp_path):
    (bad_corpus / "cut.jsonl.gz").unlink()
    for runner in ("local", "DirectRunner"):
        settings = config(bad_corpus, vocab_dir, tmp_path / runner, runner=runner,
                          max_document_bytes=20_000)
        with pytest.raises(UsageError, match="max_bad_fraction=0.05: .* first at") as error:
            build_tfrecords(settings)
        assert str(error.value).startswith("81.2% of the documents cannot be read")
        assert "\n" not in str(error.value)
        assert not (tmp_path / runner / "COMPLETED").exists()
        # What is done stays, so that the answer to it is quick.
        build_tfrecords(dataclasses.replace(settings, max_bad_fraction=1.0))


def test_text_that_is_lost_counts_by_its_bytes(vocab_dir, tmp_path):
    """13 MB of one sentence a line beside 40 short documents was 1 of 41 documents, and exit 0."""
    (tmp_path / "a.txt").write_text("casa\n\n" * 40)
    (tmp_path / "b.txt").write_text("una frase de la casa\n" * 5_000)
    with pytest.raises(UsageError, match=r"99\.8% of the text, by its bytes, cannot be read, more than "
                       r"max_bad_fraction=0\.05: huge_document 1 times, first at b\.txt: byte 0"):
        build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "records", input=f"{tmp_path}/*.txt",
                               max_document_bytes=50_000))


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
    for unexpected, message in ((None, "has text.json, but no file marks it as records"),
                                ("pretrain_data.tfrecord-0-of-1", "pretrain_data.tfrecord-0-of-1 in it"),
                                ("mine.tfrecords", "mine.tfrecords in it does not belong to records")):
        if unexpected:
            (other / unexpected).write_bytes(b"")
        with pytest.raises(UsageError, match=message):
            build_tfrecords(dataclasses.replace(settings, output=str(other)))
        assert {"text.json", "vocab.txt"} <= set(digests(other))
        (other / (unexpected or "nothing")).unlink(missing_ok=True)


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
             f"--workers={workers}"], cwd=ROOT, capture_output=True, text=True, timeout=100)
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
        parse_flags_before_dashes(argv)
    assert "\n" not in str(error.value)


def test_what_follows_two_dashes_is_for_beam():
    assert parse_flags_before_dashes(["tool", "--", "--parallelism=4", "x"]) == ["--parallelism=4", "x"]


@pytest.mark.parametrize("settings, message", [
    ({"input": "/nowhere/*.txt"}, "/nowhere/\\*.txt: expected input files, but nothing matches"),
    ({"max_seq_length": 7}, "max_seq_length=7: expected at least 8"),
    ({"validation_fraction": 1.5}, "validation_fraction=1.5: expected a share"),
    ({"dedup": "nearr"}, 'dedup=\'nearr\': expected one of none, exact, near; did you mean "near"'),
    ({"vocab_dir": ""}, "vocab_dir='': expected a path"),
    ({"language": "ES"}, "language='ES': expected a code of two small letters, such as es"),
    ({"min_language_probability": 0.5}, "min_language_probability=0.5: expected --language beside it"),
    ({"dedup": "near", "near_duplicate_threshold": 1.0}, "near_duplicate_threshold=1.0: expected at"),
    ({"max_document_bytes": 0}, "max_document_bytes=0: expected a positive number"),
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


@pytest.mark.parametrize("pattern", ["in/**", "in/*/*", "./in/../in/**/*.txt", "linked/**"])
def test_a_pattern_that_would_match_the_records_is_refused(vocab_dir, tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/a.txt").write_text("casa\n" * 100)
    (tmp_path / "linked").symlink_to("in")
    settings = config(tmp_path, vocab_dir, "in/records", input=pattern)
    with pytest.raises(UsageError, match=r"output=in/records: input=.* matches .*/in/records/"):
        build_tfrecords(settings)
    assert not (tmp_path / "in/records").exists()
    build_tfrecords(dataclasses.replace(settings, input="in/*/a.*"))


def test_a_vocabulary_and_files_in_between_are_no_input_either(vocab_dir, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("casa\n" * 100)
    shutil.copytree(vocab_dir, tmp_path / "in/vocabulary")
    settings = config(tmp_path, vocab_dir, tmp_path / "records", input=f"{tmp_path}/in/**")
    with pytest.raises(UsageError, match=f"vocab_dir={tmp_path}/in/vocabulary: input=.* matches"):
        build_tfrecords(dataclasses.replace(settings, vocab_dir=str(tmp_path / "in/vocabulary")))
    with pytest.raises(UsageError, match=f"work_dir={tmp_path}/in/work/.*: input=.* matches"):
        build_tfrecords(dataclasses.replace(settings, work_dir=str(tmp_path / "in/work")))
    assert not (tmp_path / "records").exists() and not (tmp_path / "in/work").exists()


def test_all_that_a_job_writes_was_checked(vocab_dir, tmp_path, monkeypatch):
    """The check uses the names of all files that exist at any time of the job."""
    (tmp_path / "a.txt").write_text("casa pan\n\n" * 300)
    settings = config(tmp_path, vocab_dir, tmp_path / "records", input=f"{tmp_path}/a.txt", dedup="near",
                      validation_fraction=0.0)
    checked, written = set(), set()
    monkeypatch.setattr(job, "check_apart", lambda _, paths, **inputs: checked.update(paths))

    def note(path, real=files.atomic_write):
        written.add(path)
        return real(path)

    monkeypatch.setattr(files, "atomic_write", note)
    build_tfrecords(settings)
    assert len(written) > 15 and written <= checked
