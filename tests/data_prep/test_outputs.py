"""No command reads its own output: patterns of the input are compared with paths of the output."""

import os
import pathlib
import shutil
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.corpus import listing
from data_prep.outputs import check_apart
from electra_es.errors import UsageError

NAMES = ["a", "b", ".h", "a.txt", "x[1]"]
PARTS = st.sampled_from([*NAMES, "*", "**", "?", "*.txt", ".*", "[ab]", "a*", "..", ".", "", "link",
                         "[[]", "x*", "x[[]1]"])
# None begins with "/": all of this machine would be looked through.
PATTERNS = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(
    lambda pattern: not pattern.startswith("/") and pattern)
PATHS = st.lists(st.sampled_from([*NAMES, "link"]), min_size=1, max_size=3).map("/".join)


def make_tree(root: pathlib.Path, paths: list[str], link_target: str) -> None:
    """Makes files at `paths` where possible, and `link` to some folder."""
    (root / "link").symlink_to(link_target)
    for path in paths:
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text("text")
        except OSError:
            continue


def real(path: str) -> str:
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


@settings(max_examples=250, deadline=None)
@given(st.lists(PATHS, max_size=5), st.sampled_from([".", "a", "b", "a/b", "..", "nowhere"]), PATTERNS,
       PATHS, st.lists(st.sampled_from([*NAMES, ".h/a", "a/b"]), min_size=1, max_size=3), st.booleans())
def test_refused_is_what_the_input_would_list(paths, link, pattern, output, names, absolute):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "1/2/3/4/5/6/7/8"  # ".." stays in the folder
        root.mkdir(parents=True)
        make_tree(root, paths, link)
        before = os.getcwd()
        os.chdir(root)
        try:
            if absolute:
                pattern = os.path.join(os.getcwd(), pattern)
            written = [os.path.join(output, name) for name in names]
            try:
                check_apart(f"output={output}", written, input=pattern)
                refused = False
            except UsageError as error:
                refused = True
                assert f"output={output}: " in str(error) and "\n" not in str(error)
            for path in written:
                try:
                    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
                    pathlib.Path(path).write_text("records")
                except OSError:  # such an output cannot be written at all
                    return
            try:
                listed = {os.path.realpath(path) for path, _ in listing.list_files(pattern)}
            except UsageError as error:
                if "nothing matches" not in str(error):  # a link that leads nowhere
                    return
                listed = set()
            assert refused == bool(listed & {os.path.realpath(path) for path in written})
        finally:
            os.chdir(before)


@pytest.mark.parametrize("pattern, refused", [
    ("corpus/**", True),
    ("corpus", True),
    ("corpus/", True),
    ("./corpus/../corpus/*/*", True),
    ("corpus/*/*.txt", True),
    ("linked/**", True),
    ("corpus/*", False),
    ("corpus/*.txt", False),
    ("corpus/**/*.jsonl.gz", False),
    ("corpus/records/train-*", True),
    ("other,corpus/**", True),
])
def test_records_in_a_corpus(tmp_path, monkeypatch, pattern, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.txt").write_text("a")
    (tmp_path / "linked").symlink_to("corpus")
    written = ["corpus/records/vocab.txt", "corpus/records/train-00000-of-00008.tfrecord"]
    if not refused:
        check_apart("output=corpus/records", written, input=pattern)
        return
    with pytest.raises(UsageError, match="output=corpus/records: .*expected another place"):
        check_apart("output=corpus/records", written, input=pattern)


@pytest.mark.parametrize("pattern, refused", [
    ("gs://b/corpus/**", True), ("gs://b/corpus", True), ("gs://b/corpus/", True),
    ("gs://b/*/records/*", True), ("gs://b/corpus/*", False), ("gs://b/corpus/*.gz", False),
    ("gs://other/**", False), ("gs://b/corp", False), ("corpus/**", False),
])
def test_records_in_a_bucket(pattern, refused):
    pytest.importorskip("apache_beam")
    written = ["gs://b/corpus/records/vocab.txt"]
    if not refused:
        check_apart("output=gs://b/corpus/records", written, input=pattern)
        return
    with pytest.raises(UsageError, match="expected another place"):
        check_apart("output=gs://b/corpus/records", written, input=pattern)


def test_a_tree_without_links_is_left_alone(tmp_path):
    make_tree(tmp_path, ["a/b/a.txt"], "nowhere")
    check_apart("output=x", [str(tmp_path / "records" / "x")], input=str(tmp_path / "a"))
    assert not (tmp_path / "records").exists()
    shutil.rmtree(tmp_path)
