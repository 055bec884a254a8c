"""gs:// input and output against a storage emulator on loopback, started and stopped here."""

import logging
import pathlib

import pytest

pytest.importorskip("gcp_storage_emulator")
pytest.importorskip("google.cloud.storage")

from data_prep.build.job import build_tfrecords
from data_prep.build.settings import BuildConfig
from data_prep.corpus import listing
from electra_es import files
from electra_es.config import TextConfig
from electra_es.errors import UsageError
from electra_es.text.vocabulary import save_text_config

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
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    # Beam would look for credentials for 25 s; the emulator needs none.
    monkeypatch.setattr("apache_beam.internal.gcp.auth._Credentials._credentials_init", True)
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
    with pytest.raises(UsageError, match="gs://bucket/out: holds finished records"):
        build(f"{bucket}/in", output=f"{bucket}/out", runner=runner)
