"""Records can be checked by anyone who has their text."""

import json
import shutil
import subprocess
import sys

import pytest
from builder_helpers import config
from paths import ROOT

from data_prep.build.job import build_tfrecords
from data_prep.verify_records import verify
from electra_es.errors import CheckFailed, UsageError

pytestmark = pytest.mark.usefixtures("small_tasks")


@pytest.fixture(scope="module")
def built(corpus, vocab_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp("verify")
    shutil.copytree(corpus, root / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.build.tasks.TASK_BYTES", 9_000)
        build_tfrecords(config(root / "corpus", vocab_dir, root / "records", dedup="exact", min_chars=30,
                               drop_quality_warnings="tiny,adult"))
    return root


def test_the_same_text_gives_the_same_shards(built):
    names = verify(str(built / "records"), f"{built}/corpus/*", num_shards=4, workers=1)
    assert len(names) == 4 and all(name.endswith(".tfrecord") for name in names)


def test_what_is_not_the_same_is_named(built, tmp_path):
    records, corpus = tmp_path / "records", tmp_path / "corpus"
    shutil.copytree(built / "records", records)
    shutil.copytree(built / "corpus", corpus)
    name = "train-00003-of-00008.tfrecord"
    data = (records / name).read_bytes()
    (records / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckFailed, match=f"{name}: other bytes come out"):
        verify(str(records), f"{corpus}/*", num_shards=99, workers=1)
    text = (corpus / "a.txt").read_bytes()
    (corpus / "a.txt").write_bytes(text[:-1] + b"#")
    with pytest.raises(CheckFailed, match="a.txt: md5:.* was built from md5:"):
        verify(str(records), f"{corpus}/*", workers=1)
    (corpus / "a.txt").write_bytes(text + b"#")
    with pytest.raises(CheckFailed, match="the input is another one: missing: a.txt of .* bytes; not in"):
        verify(str(records), f"{corpus}/*", workers=1)
    info = json.loads((records / "info.json").read_text())
    (records / "info.json").write_text(json.dumps(info | {"sources": []}))
    with pytest.raises(UsageError, match="does not say how it was built"):
        verify(str(records), f"{corpus}/*")


def test_the_command(built):
    result = subprocess.run(
        [sys.executable, "-m", "electra_es.cli", "verify", f"--records={built}/records",
         f"--input={built}/corpus/*", "--workers=1"],
        cwd=ROOT, capture_output=True, text=True, timeout=120)
    # Its parts are of another size than those that this module builds with.
    assert result.returncode == 1 and "not those of its fingerprint" in result.stderr
