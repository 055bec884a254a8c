"""Documents that a model is tested on later are found in every layout of task files."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from builder_helpers import config, stats_of

from data_prep.build.job import build_tfrecords
from data_prep.corpus import decontamination
from electra_es.errors import UsageError

SENTENCE = ("El pasado martes, según «La Gaceta», los pingüinos de la isla comieron 3.5 kilos de "
            "sardinas frescas y nadie dijo nada.")
WORDS = SENTENCE.replace(",", " ,").replace("«", "« ").replace("»", " »").replace("da.", "da .").split()
OTHER = "Una frase que no tiene nada que ver con la otra aunque sea más larga que trece palabras."


def write(path) -> None:
    """A task file with the sentence, in the layout that its name states."""
    if path.suffix == ".parquet":
        table = pyarrow.table({"id": [1], "premise": [SENTENCE], "label": [2]})
        pyarrow.parquet.write_table(table, path)
        return
    path.write_text({
        "conll.txt": "-DOCSTART- -X-\n\n" + "\n".join(f"{word} NC B-ORG" for word in WORDS) + (
            "\n\nFin Fp O\n"),
        "tabs.conll": "\n".join(f"{word}\tO" for word in WORDS),
        "ud.conllu": "# text = x\n" + "\n".join(
            f"{i}\t{word}\t_\tNOUN\t_\t_\t0\troot\t_\t_" for i, word in enumerate(WORDS, 1)),
        "pawsx.tsv": f"id\tsentence1\tsentence2\tlabel\n1\t{SENTENCE}\tOtra cosa.\t0\n",
        "rows.csv": f'id,text\n1,"{SENTENCE}"\n',
        "squad.json": json.dumps({"data": [{"paragraphs": [{"context": SENTENCE, "qas": []}]}]}),
        "lines.jsonl": json.dumps({"tokens": WORDS}) + "\n" + json.dumps({"x": None}) + "\n",
        "plain.txt": f"Uno.\n{SENTENCE}\nDos.\n",
    }[path.name], encoding="utf-8")


@pytest.mark.parametrize("name", ["conll.txt", "tabs.conll", "ud.conllu", "pawsx.tsv", "rows.csv",
                                  "squad.json", "lines.jsonl", "plain.txt", "a.parquet"])
def test_a_sentence_of_any_layout_is_found(tmp_path, name):
    write(tmp_path / name)
    keys = decontamination.load_keys(str(tmp_path / name))
    texts = [OTHER, f"Ayer. {SENTENCE.upper()} Hoy.", " ".join(SENTENCE.split()[:12]),
             "Antes: " + " ".join(SENTENCE.split()[4:18]), "corto"]
    assert decontamination.share_a_run(texts, keys).tolist() == [False, True, False, True, False]


def test_the_flag(vocab_dir, tmp_path):
    write(tmp_path / "pawsx.tsv")
    texts = [OTHER, SENTENCE, OTHER + " más", "casa"]
    (tmp_path / "a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    settings = dict(input=f"{tmp_path}/a.txt", validation_fraction=0.0)
    for name, more in (("all", {}), ("clean", dict(decontaminate=f"{tmp_path}/*.tsv"))):
        build_tfrecords(config(tmp_path, vocab_dir, tmp_path / name, **settings, **more))
    assert stats_of(tmp_path / "all")["dropped_documents"] == {}
    stats = stats_of(tmp_path / "clean")
    assert stats["dropped_documents"] == {"contaminated": 1} and stats["documents"] == 3
    assert stats["dropped_bytes"] == {"contaminated": len(SENTENCE.encode())}
    (tmp_path / "short.tsv").write_text("uno\tdos\n")
    with pytest.raises(UsageError, match="decontaminate=.*: no text of 13 words in these files"):
        build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "no", **settings,
                               decontaminate=f"{tmp_path}/short.tsv"))


@pytest.mark.parametrize("settings", [{"workers": 2}, {"runner": "DirectRunner", "workers": 2}],
                         ids=["local", "beam"])
def test_files_of_tasks_are_read_once_a_job(vocab_dir, tmp_path, monkeypatch, settings):
    write(tmp_path / "pawsx.tsv")
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"{OTHER}\n\n{SENTENCE}\n\n{name}", encoding="utf-8")
    write_keys = decontamination.write_keys

    def then_nobody_can_read_them(pattern, path):
        write_keys(pattern, path)
        (tmp_path / "pawsx.tsv").unlink()

    monkeypatch.setattr(decontamination, "write_keys", then_nobody_can_read_them)
    build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "records", input=f"{tmp_path}/*.txt",
                           decontaminate=f"{tmp_path}/*.tsv", validation_fraction=0.0, **settings))
    assert stats_of(tmp_path / "records")["dropped_documents"] == {"contaminated": 3}
    assert not (tmp_path / "records" / "_unfinished").exists()
