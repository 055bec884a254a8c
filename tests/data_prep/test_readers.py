"""Readers: every layout and kind of damage; the parts of a file yield each document once."""

import bz2
import gzip
import io
import json
import lzma
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.corpus import formats, listing, readers
from data_prep.corpus.readers import Document, read_documents
from electra_es.errors import UsageError


def read(path, **settings):
    """(documents, [(reason, detail)]) of a file."""
    bad: list[tuple[str, str]] = []
    documents = list(read_documents(
        str(path), on_bad=lambda reason, detail, size: bad.append((reason, detail)), **settings))
    return documents, bad


def texts(path, **settings):
    return [document.text for document in read(path, **settings)[0]]


def test_blank_line_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffUno dos.\r\ntres\r\n \t\r\n\n\ncuatro ñ\n".encode())
    documents, bad = read(path)
    assert [document.text for document in documents] == ["Uno dos.\r\ntres\r", "cuatro ñ"]
    assert [document.place for document in documents] == ["byte 0", "byte 25"]
    assert bad == []


OSCAR_2301 = {"content": "Hola\nadiós", "warc_headers": {"warc-type": "conversion"},
              "metadata": {"identification": {"label": "es", "prob": 0.875}, "harmful_pp": 3.5,
                           "quality_warnings": ["tiny", "header"], "categories": ["adult"]}}
OSCAR_2201 = {"content": "Hola", "metadata": {"identification": {"label": "es", "prob": 0.5},
                                              "annotation": ["adult"]}}
HPLT = {"id": "1", "text": "Hola", "lang": ["spa_Latn", "por_Latn"], "prob": [0.75, 0.2]}
OSCAR_2109 = {"id": 3, "text": "Hola"}


@pytest.mark.parametrize("values, expected", [
    (OSCAR_2301, Document("Hola\nadiós", "byte 0", "es", 0.875, ("tiny", "header", "adult"))),
    (OSCAR_2201, Document("Hola", "byte 0", "es", 0.5, ("adult",))),
    (HPLT, Document("Hola", "byte 0", "spa_Latn", 0.75)),
    (OSCAR_2109, Document("Hola", "byte 0")),
    ({"text": "Hola", "metadata": {"identification": None, "categories": None}},
     Document("Hola", "byte 0")),
    ({"text": "Hola", "metadata": {"identification": ["es"], "quality_warnings": "tiny"}},
     Document("Hola", "byte 0")),
    ({"text": "Hola", "metadata": "none", "language": 3, "prob": "x"}, Document("Hola", "byte 0")),
])
def test_json_layouts(tmp_path, values, expected):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(values) + "\n\n")
    assert read(path) == ([expected], [])


def test_parquet_rows_and_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [{"text": f"documento {i}", "language": "spa", "language_score": i / 8, "url": "u"}
            for i in range(7)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=3)
    documents, bad = read(path)
    assert documents[4] == Document("documento 4", "row group 1, row 1", "spa", 0.5)
    assert len(documents) == 7 and bad == []
    size = path.stat().st_size
    parts = [read(path, start=start, end=start + 100)[0] for start in range(0, size, 100)]
    assert [document for part in parts for document in part] == documents
    assert sum(map(bool, parts)) == 3  # One part for each row group.


def test_parquet_without_a_text_names_what_it_has(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"title": ["uno", "dos"], "language": ["es", "es"]})
    pyarrow.parquet.write_table(table, path)
    assert read(path) == ([], [("no_text_field", f"row group 0, row {i}: has title, language")
                               for i in range(2)])


@pytest.mark.parametrize("suffix, compress", [
    (".gz", gzip.compress), (".zst", zstandard.ZstdCompressor().compress), (".bz2", bz2.compress),
    (".xz", lzma.compress)])
def test_compressed_files_of_several_members_and_cut_off_ones(tmp_path, suffix, compress):
    padding = bytes(8) if suffix in (".gz", ".xz") else b""
    data = compress(b'{"text": "uno"}\n') + padding + compress(b'{"text": "dos"}\n' * 50_000)
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(data)
    assert texts(path) == ["uno"] + ["dos"] * 50_000
    path.write_bytes(data + padding)
    assert len(texts(path)) == 50_001 and read(path)[1] == []
    path.write_bytes(data[:-9])
    documents, bad = read(path)
    assert documents[0].text == "uno"
    assert Counter(reason for reason, _ in bad)["truncated_file"] == 1


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(["uno", "dos tres", "", " \t", "ñandú\r", "x" * 30]), max_size=25),
       st.integers(1, 60))
def test_parts_of_text_give_each_document_once(tmp_path_factory, lines, part_bytes):
    path = tmp_path_factory.getbasetemp() / "parts.txt"
    path.write_bytes("\n".join(lines).encode())
    whole = texts(path)
    size = path.stat().st_size
    parts = [text for start in range(0, size, part_bytes)
             for text in texts(path, start=start, end=min(start + part_bytes, size))]
    assert parts == whole
    joined = "\n".join(whole).split("\n") if whole else []
    assert joined == [line for line in lines if line.strip()]


@pytest.mark.parametrize("name, data", [
    ("a.txt", b"una frase.\n" * 400_000), ("a.jsonl", b'{"text": "' + b"x" * 4_000_000 + b'"}')])
def test_parts_in_which_no_document_begins_read_no_further(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    read_bytes = []

    class File(io.FileIO):
        def read(self, size=-1):
            read_bytes.append(len(found := super().read(size)))
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers.files, "open_read", lambda path: File(path))
        assert texts(path, start=1_000_000, end=1_100_000) == []
    assert sum(read_bytes) <= 1 << 20


@settings(deadline=None)
@given(st.lists(st.text("añ\n", max_size=9), max_size=12), st.integers(1, 40))
def test_parts_of_json_lines_give_each_document_once(tmp_path_factory, contents, part_bytes):
    path = tmp_path_factory.getbasetemp() / "parts.jsonl"
    path.write_bytes(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in contents))
    size = path.stat().st_size
    assert [text for start in range(0, max(size, 1), part_bytes)
            for text in texts(path, start=start, end=start + part_bytes)] == contents


@pytest.mark.parametrize("name, data, reason, detail", [
    ("a.jsonl", b'{"text": "uno"', "invalid_json", "byte 0: "),
    ("a.jsonl", b"[" * 199, "invalid_json", "byte 0"),
    ("a.jsonl", b'{"title": "uno"}', "no_text_field", "byte 0: has title"),
    ("a.jsonl", b'["uno"]', "no_text_field", "expected an object, not list"),
    ("a.jsonl", b'{"text": 3}', "text_is_no_string", "byte 0: text is int"),
    ("a.jsonl", b'{"text": null}', "text_is_no_string", "NoneType"),
    ("a.jsonl", b'{"text": "a\\u0000b"}', "nul_character", "byte 0"),
    ("a.jsonl", b'{"text": "a\\ud800b"}', "invalid_utf8", "lone surrogate"),
    ("a.jsonl", b'{"text": "a\xffb"}', "invalid_utf8", "0xff at 11"),
    ("a.jsonl", b'{"text": "' + b"x" * 300 + b'"}', "huge_document", "over 200 bytes"),
    ("a.txt", b"uno\xc3 dos", "invalid_utf8", "byte 0xc3 at 3"),
    ("a.txt", b"uno\0dos", "nul_character", "byte 0"),
    ("a.txt", b"x\n" * 150, "huge_document", "byte 0: over 200 bytes"),
    ("a.txt", b"x" * 3_000_000, "huge_document", "byte 0: over 200 bytes"),
    ("a.parquet", b"PAR1 and nothing else", "unreadable_parquet", ""),
    ("a.jsonl.gz", b"no gzip at all", "truncated_file", "byte 0"),
    ("a.txt", "UTF-16".encode("utf-16"), "nul_character", ""),
])
def test_bad_input_is_reported_and_the_rest_is_read(tmp_path, name, data, reason, detail):
    path = tmp_path / name
    path.write_bytes(data)
    documents, bad = read(path, max_document_bytes=200)
    assert documents == []
    assert [found for found, _ in bad] == [reason] and detail in bad[0][1]
    if name in ("a.txt", "a.jsonl"):
        good = b'{"text": "bueno"}' if name == "a.jsonl" else b"bueno"
        path.write_bytes(good + b"\n\n" + data + b"\n\n" + good)
        documents, bad = read(path, max_document_bytes=200)
        assert [document.text for document in documents] == ["bueno", "bueno"]
        assert [found for found, _ in bad] == [reason]


def test_a_document_at_the_limit_is_kept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 199 + b"\n\n" + b"y" * 200)
    documents, bad = read(path, max_document_bytes=200)
    assert [len(document.text) for document in documents] == [199] and len(bad) == 1


def test_format_by_name_or_as_told(tmp_path):
    assert formats.input_format_of("x/es_meta_1.jsonl.zst") == ("jsonl", "zstd")
    assert formats.input_format_of("x/es_dedup.txt.gz") == ("text", "gzip")
    assert formats.input_format_of("x/0001.parquet") == ("parquet", None)
    assert formats.input_format_of("x/a.txt.zst.gz") == ("text", "gzip")
    path = tmp_path / "corpus"
    path.write_bytes(b'{"text": "uno"}\n')
    assert texts(path) == ['{"text": "uno"}']
    assert texts(path, input_format="jsonl") == ["uno"]
    with pytest.raises(UsageError, match="input_format=csv: expected one of auto, text"):
        texts(path, input_format="csv")
    with pytest.raises(UsageError, match="nowhere: cannot be read"):
        texts(tmp_path / "nowhere")


# ---- One contract for all readers: the same documents, in each format.

CONTRACT = ["Uno dos.", "\ufeffcon marca", "  con espacios  ", "línea\u00a0una\nlínea dos", "ñ" * 99,
            "x" * 199, "y" * 200, "ñ" * 100, "nul\0o", "final"]
KEPT = ["Uno dos.", "con marca", "  con espacios  ", "línea\u00a0una\nlínea dos", "ñ" * 99, "x" * 199,
        "final"]
REASONS = ["huge_document", "huge_document", "nul_character"]


def write_corpus(path, documents):
    """The documents in the format that the name of the file states."""
    if path.suffix == ".parquet":
        kind = {"large": pyarrow.large_string(), "bytes": pyarrow.binary(),
                "codes": pyarrow.dictionary(pyarrow.int32(), pyarrow.string())}.get(
                    path.stem, pyarrow.string())
        texts = [text.encode() for text in documents] if path.stem == "bytes" else documents
        pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(texts, kind)}), path)
        return
    if ".jsonl" in path.name:
        data = "".join(json.dumps({"text": text}, ensure_ascii="escaped" in path.name) + "\n"
                       for text in documents).encode()
    else:
        data = "\n\n".join(documents).encode()
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress,
                      ".zst": zstandard.compress, ".zstd": zstandard.compress,
                      }.get(path.suffix, bytes)(data))


ALL_FORMATS = ["a.txt", "a.txt.gz", "a.txt.zstd", "a.jsonl", "escaped.jsonl", "a.jsonl.zst",
               "a.jsonl.bz2", "a.parquet", "large.parquet", "bytes.parquet", "codes.parquet"]


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_every_reader_keeps_and_refuses_the_same_documents(tmp_path, name):
    path = tmp_path / name
    write_corpus(path, CONTRACT)
    documents, bad = read(path, max_document_bytes=200)
    assert [document.text for document in documents] == KEPT
    assert [reason for reason, _ in bad] == REASONS


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_every_reader_weighs_what_it_refuses(tmp_path, name):
    path = tmp_path / name
    write_corpus(path, ["bueno", "z" * 5_000_000, "bueno"])
    lost = []
    documents = list(read_documents(str(path), max_document_bytes=1_000,
                                    on_bad=lambda reason, detail, size: lost.append(size)))
    assert [document.text for document in documents] == ["bueno"] * 2
    assert len(lost) == 1 and 5_000_000 <= lost[0] <= 5_000_100


@pytest.mark.parametrize("blank", ["", " \t", "\r", "\u00a0", "\u3000 \u2003", "\x1c", "\x85", "\f"])
def test_a_line_is_blank_where_the_original_takes_it_for_blank(tmp_path, blank):
    assert not blank.strip()
    path = tmp_path / "a.txt"
    path.write_bytes(f"uno\n{blank}\ndos".encode())
    assert texts(path) == ["uno", "dos"]
    path = tmp_path / "a.jsonl"
    path.write_bytes(f'{{"text": "uno"}}\n{blank}\n{{"text": "dos"}}'.encode())
    second = Document("dos", f"byte {17 + len(blank.encode())}")
    assert read(path) == ([Document("uno", "byte 0"), second], [])


@pytest.mark.parametrize("values, expected", [
    ({"text": "An English text.", "language": "en", "metadata": {"source": "web"}}, ("en", None)),
    ({"text": "a", "lang": "en", "prob": 0.5, "metadata": {"identification": {}}}, ("en", 0.5)),
    ({"text": "a", "metadata": {"language": "en", "language_score": 1}}, ("en", 1.0)),
    ({"text": "a", "language": None, "lang": "en", "language_score": None, "prob": 0.25}, ("en", 0.25)),
    ({"text": "a", "language": "en", "prob": 0.5,
      "metadata": {"identification": {"label": "es", "prob": 0.75}}}, ("es", 0.75)),
    ({"text": None, "content": "a", "language": "en"}, ("en", None)),
])
def test_a_container_does_not_hide_the_language_beside_it(tmp_path, values, expected):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(values))
    (document,), _ = read(path)
    assert (document.language, document.language_probability) == expected


def test_a_bad_string_of_a_parquet_file_is_one_row(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [f"documento {i}".encode() for i in range(2_000)]
    rows[300] = b"malo \xff"
    table = pyarrow.table({"text": pyarrow.Array.from_buffers(
        pyarrow.string(), 2_000, pyarrow.array(rows, pyarrow.binary()).buffers())})
    pyarrow.parquet.write_table(table, path)
    documents, bad = read(path)
    assert [document.text.encode() for document in documents] == rows[:300] + rows[301:]
    assert bad == [("invalid_utf8", "row group 0, row 300: byte 0xff at 5")]


def test_a_damaged_page_leaves_the_rows_before_it_and_the_other_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": [f"documento {i} " + "x" * 90 for i in range(2_000)]})
    pyarrow.parquet.write_table(table, path, row_group_size=1_000, data_page_size=4_096,
                                use_dictionary=False, compression="gzip", write_batch_size=50,
                                write_page_checksum=True)
    metadata = pyarrow.parquet.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    at = metadata.data_page_offset + metadata.total_compressed_size // 2
    data[at:at + 40] = bytes(40)
    path.write_bytes(data)
    lost = []
    documents = list(read_documents(str(path), on_bad=lambda *args: lost.append(args)))
    numbers = [int(document.text.split()[1]) for document in documents]
    kept = len(numbers) - 1_000
    assert 300 < kept < 700 and numbers == [*range(kept), *range(1_000, 2_000)]
    ((reason, detail, size),) = lost
    assert reason == "unreadable_parquet" and detail.startswith(f"row group 0, from row {kept} on: ")
    assert size == pytest.approx(110 * (1_000 - kept), rel=0.2)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, lzma.compress, bz2.compress])
def test_content_decides_where_the_name_does_not_say_that_it_is_compressed(tmp_path, compress):
    path = tmp_path / "a.txt"
    path.write_bytes(compress(b"uno\n\ndos"))
    assert texts(path) == ["uno", "dos"]
    assert formats.format_of_file(str(path)).compression
    with pytest.raises(UsageError, match=r"a\.txt: is \w+, which its name does not say"):
        texts(path, start=0, end=3)


@pytest.mark.parametrize("name, data, message", [
    ("a.csv", b"id,text\n1,uno", "a.csv: expected text, JSON lines or parquet"),
    ("a.csv.gz", gzip.compress(b"id,text\n1,uno", mtime=0), "a.csv.gz: expected text"),
    ("a.txt", b"PK\x03\x04zip", "a.txt: is a zip archive: expected text, JSON lines or parquet")])
def test_what_is_no_corpus_is_refused_before_the_work(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        formats.format_of_file(str(path))
    if name == "a.csv":
        assert formats.format_of_file(str(path), "text") == ("text", None)


def test_a_file_that_several_links_lead_to_is_read_once(tmp_path):
    """It was read three times."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("uno")
    (tmp_path / "in/b.txt").symlink_to("a.txt")
    (tmp_path / "in/c.txt").symlink_to("b.txt")
    (tmp_path / "linked").symlink_to("in")
    for pattern in (f"{tmp_path}/in", f"{tmp_path}/*/*.txt",
                    f"{tmp_path}/in/a.txt,{tmp_path}/linked/c.txt"):
        (found,) = listing.list_files(pattern)
        assert found[1] == 3
    held_out = listing.list_files(f"{tmp_path}/linked/c.txt")
    assert listing.without(listing.list_files(f"{tmp_path}/in"), held_out) == []


def test_a_comma_in_a_path(tmp_path):
    for name in ("a,b.txt", "c.txt"):
        (tmp_path / name).write_text("uno")
    (tmp_path / "x,y").mkdir()
    (tmp_path / "x,y/d.txt").write_text("uno")

    def names(pattern):
        return [path.removeprefix(f"{tmp_path}/") for path, _ in listing.list_files(pattern)]

    assert names(f"{tmp_path}/a,b.txt") == ["a,b.txt"]
    assert names(f"{tmp_path}/a\\,b.txt,{tmp_path}/c.txt") == ["a,b.txt", "c.txt"]
    assert names(f"{tmp_path}/x,y") == ["x,y/d.txt"]
    assert names(f"{tmp_path}/*\\,*/*.txt") == ["x,y/d.txt"]
