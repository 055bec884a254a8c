"""gs:// input and output against a storage emulator on loopback, started and stopped here."""

import http.server
import json
import logging
import os
import pathlib
import subprocess
import sys
import threading

import fsspec
import pytest

pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("gcsfs")

from data_prep.build.job import build_tfrecords
from data_prep.build.settings import BuildConfig
from data_prep.corpus import listing
from data_prep.inspect_tfrecords import read_examples
from electra_es import files, remote
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig
from electra_es.data.provenance import describe_records
from electra_es.data.records import load_records_info, read_id_counts
from electra_es.errors import UsageError
from electra_es.monitoring.metrics_log import append_metrics, is_last_evaluation, read_log, tidy
from electra_es.run_config import load_run
from electra_es.text.tokenizer import load_tokenizer
from electra_es.text.vocabulary import save_text_config
from electra_es.training.checkpoint_files import Saved, completed_steps
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.run_dir import prepare_model_dir

TEXT = "\n\n".join(f"uno dos tres\ncuatro {'cinco ' * (i % 17)}" for i in range(90))


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket at gs://bucket/."""
    from gcp_storage_emulator.server import create_server
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    port = server._api._httpd.server_address[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    yield "gs://bucket"
    server.stop()


@pytest.fixture(scope="module")
def vocab_dir(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("vocabulary")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "uno", "dos", "tres", "cuatro", "cinco"]
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    save_text_config(path, TextConfig())
    return str(path)


def test_files_in_a_bucket(bucket):
    path = f"{bucket}/a/b.txt"
    files.write_bytes(path, b"uno\n\ndos")
    files.write_bytes(f"{bucket}/a/c/d.txt", b"tres")
    assert listing.list_files(f"{bucket}/a/*.txt") == [(path, 8)]
    assert listing.list_files(f"{bucket}/a") == [(path, 8), (f"{bucket}/a/c/d.txt", 4)]
    assert files.names_in(f"{bucket}/a") == ["b.txt", "c"]
    with files.open_read(path) as file:
        file.seek(5)
        assert file.read() == b"dos"
    files.write_bytes(path, b"other")
    assert files.read_bytes(path) == b"other"
    with pytest.raises(RuntimeError), files.atomic_write(path) as file:
        file.write(b"half of it")
        raise RuntimeError
    assert files.read_bytes(path) == b"other" and files.names_in(f"{bucket}/a") == ["b.txt", "c"]
    files.remove(f"{bucket}/a")
    assert not files.exists(path) and files.names_in(f"{bucket}/a") == []
    with pytest.raises(UsageError, match="gs://bucket/a/b.txt: cannot be read"):
        files.read_bytes(path)
    with pytest.raises(UsageError, match="nothing matches"):
        listing.list_files(f"{bucket}/a/*.txt")


def test_a_name_with_brackets_is_no_pattern(bucket):
    for name in ("a [2].txt", "a 2.txt"):
        files.write_bytes(f"{bucket}/{name}", name.encode())
    files.rename(f"{bucket}/a [2].txt", f"{bucket}/b [2].txt")
    assert files.names_in(bucket) == ["a 2.txt", "b [2].txt"]
    files.remove(f"{bucket}/b [2].txt")
    assert files.names_in(bucket) == ["a 2.txt"]


def test_what_cannot_be_reached_is_one_line(bucket, monkeypatch):
    """And is not taken for what does not exist: a run would begin anew."""
    def deny(path):
        raise PermissionError("Forbidden")

    monkeypatch.setattr(fsspec.filesystem("gs", use_listings_cache=False), "info", deny)
    with pytest.raises(UsageError, match=r"gs://bucket/a: cannot be reached \(Forbidden\)"):
        files.exists(f"{bucket}/a")
    with pytest.raises(UsageError, match="nowhere://a: .*expected the packages of requirements-gcs.txt"):
        files.exists("nowhere://a")


@pytest.mark.parametrize("path, message", [
    ("http://127.0.0.1:9/a.txt", r"a\.txt: cannot be reached \("),
    ("http://127.0.0.1:9/a/*.txt", r"txt: cannot be reached \("),
    ("s3://bucket/a", "expected the packages of requirements-gcs.txt"),
    ("hdfs://127.0.0.1:9/a", "cannot be reached|expected the packages")])
def test_what_cannot_be_listed_is_one_line(path, message):
    """It is not taken for a pattern that matches nothing."""
    with pytest.raises(UsageError, match=message) as error:
        files.find(path)
    assert "\n" not in str(error.value)
    if path.startswith("http") and "*" not in path:
        with pytest.raises(UsageError, match=message):
            files.exists(path)


def test_libraries_of_the_login_are_silent():
    """They tell each of their tries in a line; what is wrong, the error says."""
    for name in ("gcsfs", "google.auth.compute_engine._metadata", "google.auth._default"):
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)


@pytest.fixture
def answering(monkeypatch):
    """Starts a server that answers everything with one error; gives its address to gcsfs."""
    servers = []

    def start(code: int, message: str) -> str:
        data = json.dumps({"error": {"code": code, "message": message}}).encode()

        class Answering(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, *arguments):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{servers[-1].server_port}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        fsspec.filesystem("gs").clear_instance_cache()
        return address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
    fsspec.filesystem("gs").clear_instance_cache()


def test_a_bucket_that_refuses_the_login_is_one_line_within_seconds(answering, monkeypatch):
    """gcsfs asks six times in half a minute, for every file."""
    answering(401, "Invalid Credentials")
    monkeypatch.setattr(remote, "_SECONDS_TO_ANSWER", 2)
    with pytest.raises(UsageError, match=r"gs://refusing/a: cannot be reached \(Invalid Cred"):
        files.exists("gs://refusing/a")


def test_what_is_not_there_is_one_line(answering, caplog):
    """A bucket that does not exist, read and written; and the library does not tell its requests."""
    answering(404, "The specified bucket does not exist.")
    with pytest.raises(UsageError, match=r"gs://none/a: cannot be read \(No such file\)"):
        files.read_bytes("gs://none/a")
    with pytest.raises(UsageError, match=r"gs://none/a/b\.json: cannot be read \(No such file\)"):
        files.read_json("gs://none/a/b.json")
    with pytest.raises(UsageError, match="gs://none/a/.*nothing matches"):
        listing.list_files("gs://none/a/*.txt")
    with pytest.raises(UsageError, match=r"gs://none/a/b: cannot be written \(no such bucket\)"):
        files.write_bytes("gs://none/a/b", b"abc")
    files.remove("gs://none/a")
    assert not files.exists("gs://none/a") and files.names_in("gs://none") == []
    assert not caplog.records


def test_no_right_to_write_is_one_line(answering):
    answering(403, "no storage.objects.create access")
    with pytest.raises(UsageError, match="gs://none/a/b: cannot be (written|reached)") as error:
        files.write_bytes("gs://none/a/b", b"abc")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flag", ["input", "vocab_dir", "output"])
@pytest.mark.parametrize("host", ["answers 404", "http://storage.invalid"])
def test_commands_say_so_in_one_line(answering, vocab_dir, tmp_path, flag, host):
    host = answering(404, "Not Found") if host == "answers 404" else host
    (tmp_path / "corpus.txt").write_text(TEXT)
    values = {"input": f"{tmp_path}/corpus.txt", "vocab_dir": vocab_dir, "output": f"{tmp_path}/out",
              "work_dir": f"{tmp_path}/work", flag: "gs://none/a"}
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.build_tfrecords", "--workers=1", "--max_seq_length=33",
         "--validation_fraction=0", *(f"--{name}={value}" for name, value in values.items())],
        capture_output=True, text=True, timeout=180, env={**os.environ, "STORAGE_EMULATOR_HOST": host})
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: gs://none/a")


class SmallState:
    """Stands for `tf.train.Checkpoint`: TensorFlow, which writes tensors itself, knows no emulator."""

    save_counter = 0

    def write(self, prefix, options):
        files.write_bytes(prefix + ".index", b"index")

    def sync(self):
        pass

    def read(self, prefix):
        assert files.exists(prefix + ".index")
        return self

    def assert_consumed(self):
        pass


def test_checkpoints_in_a_bucket(bucket):
    run = f"{bucket}/run"
    checkpoints = Checkpoints(run, SmallState(), keep=2, keep_every=0)
    assert checkpoints.restore_latest() == Saved(0, 0)
    files.write_bytes(f"{run}/checkpoints/.writing-0-step-00000001/ckpt.index", b"half")
    for step in (1, 2, 3):
        checkpoints.save(step, examples_seen=7 * step)
    assert files.names_in(f"{run}/checkpoints") == ["step-00000002", "step-00000003"]
    assert files.names_in(f"{run}/checkpoints/step-00000003") == ["COMPLETED", "ckpt.index"]
    assert checkpoints.restore_latest() == Saved(3, 21)
    files.remove(f"{run}/checkpoints/step-00000003/COMPLETED")
    assert completed_steps(run) == [2] and checkpoints.restore_latest() == Saved(2, 14)


def test_a_model_directory_in_a_bucket(bucket, vocab_dir):
    run, vocabulary = f"{bucket}/run", f"{bucket}/vocabulary"
    for name in ("vocab.txt", "text.json"):
        files.copy(f"{vocab_dir}/{name}", f"{vocabulary}/{name}")
    tokenizer = load_tokenizer(vocabulary)
    settings = ModelConfig(hidden_size=24, num_heads=3), PretrainingConfig(num_train_steps=40)
    assert not prepare_model_dir(run, tokenizer, vocabulary, *settings)
    files.write_bytes(f"{run}/config.json.tmp-{'0' * 32}", b"half")
    assert prepare_model_dir(run, tokenizer, vocabulary, *settings)
    assert files.names_in(run) == ["config.json", "text.json", "vocab.txt"]
    assert load_run(run) == (tokenizer.config, *settings)
    assert load_tokenizer(run).vocab == tokenizer.vocab
    with pytest.raises(UsageError, match="gs://bucket/run: holds a run with num_heads=3"):
        prepare_model_dir(run, tokenizer, vocabulary, ModelConfig(hidden_size=24, num_heads=2),
                          settings[1])


def test_the_log_of_a_run_in_a_bucket(bucket):
    run = f"{bucket}/run"
    append_metrics(run, "train", 3, {"loss": 2.5})
    append_metrics(run, "evaluation", 4, {"loss": 2.25})
    path = f"{run}/metrics.jsonl"
    files.write_bytes(path, files.read_bytes(path) + b'{"kind": "train", "st')
    append_metrics(run, "train", 5, {"loss": 2.0})
    log = read_log(run)
    assert [line["loss"] for line in log.training] == [2.5, 2.0] and len(log.evaluations) == 1
    assert is_last_evaluation(run, 4, {"loss": 2.25})
    tidy(run, last_step=3)
    assert files.names_in(run) == ["metrics.jsonl"]
    assert [line["step"] for line in read_log(run).training] == [3] and not read_log(run).evaluations


@pytest.mark.parametrize("runner", ["local", "DirectRunner"])
def test_records_from_bucket_to_bucket_have_the_bytes_of_local_ones(
        bucket, vocab_dir, tmp_path, runner):
    (tmp_path / "corpus.txt").write_text(TEXT)
    files.write_bytes(f"{bucket}/in/corpus.txt", TEXT.encode())

    def build(root, **settings):
        return build_tfrecords(BuildConfig(
            input=f"{root}/corpus.txt", vocab_dir=vocab_dir, workers=1, max_seq_length=33,
            validation_fraction=0.2, **settings))

    local = build(tmp_path, output=str(tmp_path / "out"))
    remote = build(f"{bucket}/in", output=f"{bucket}/out", runner=runner,
                   work_dir=str(tmp_path / "work"))
    assert remote == local
    expected = {path.name: path.read_bytes() for path in pathlib.Path(tmp_path / "out").iterdir()}
    found = {name: files.read_bytes(f"{bucket}/out/{name}") for name in files.names_in(
        f"{bucket}/out")}
    assert found == expected and "COMPLETED" in found
    assert load_records_info(f"{bucket}/out") == local
    assert read_id_counts(f"{bucket}/out", local.vocab_size).sum() > 0
    assert describe_records(f"{bucket}/out", local) == describe_records(str(tmp_path / "out"), local)
    assert [ids.tolist() for ids, _ in read_examples(f"{bucket}/out", local, "validation")] == [
        ids.tolist() for ids, _ in read_examples(str(tmp_path / "out"), local, "validation")]
    with pytest.raises(UsageError, match="gs://bucket/out: holds finished records"):
        build(f"{bucket}/in", output=f"{bucket}/out", runner=runner)
