"""Every layout from a file of a few lines; every bad row named, or counted; the real files."""

import json
import pathlib

import pytest

from electra_es.errors import UsageError
from electra_es.finetuning.examples import Question, TaggingExample, TextExample
from electra_es.finetuning.readers import has_split, read_split
from electra_es.finetuning.tasks import Task, default_data_dir, load_task


def tagging(**settings) -> Task:
    return Task(**{"name": "t", "kind": "tagging", "layout": "conll", "metric": "accuracy",
                   "files": {"train": "f"}, "columns": {"word": 0, "label": -1},
                   "labels": ("O", "B-LOC", "I-LOC"), **settings})


def pairs(**settings) -> Task:
    return Task(**{"name": "t", "kind": "classification", "layout": "tsv", "metric": "accuracy",
                   "files": {"train": "f"}, "labels": ("no", "yes"), "header": False,
                   "columns": {"text": 0, "text_pair": 1, "label": 2}, **settings})


def read(tmp_path: pathlib.Path, task: Task, content: str | bytes, *, name="f", split="train",
         skip=False):
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    (tmp_path / name).write_bytes(data)
    return read_split(task, split, str(tmp_path), skip)


# CoNLL

def words(split) -> list[list[tuple[str, str]]]:
    return [list(zip(e.words, e.labels, strict=True)) for e in split.examples]


TWO = [[("En", "O"), ("Lima", "B-LOC")], [("Sí", "O")]]


@pytest.mark.parametrize("content, settings", [
    ("En O\nLima B-LOC\n\nSí O\n", {}),
    ("En O\nLima B-LOC\n\nSí O", {}),                              # no line feed at the end
    ("-DOCSTART- -X- O\n\nEn X O\nLima X B-LOC\n\n\n\nSí X O\n\n\n", {}),   # no empty sentences
    ("En\tX\tO\r\nLima\tX\tB-LOC\r\n\r\nSí\tX\tO\r\n", {"separator": "\t"}),
    ("O;En;x\nB-LOC;Lima;x\n \nO;Sí;x\n", {"separator": ";", "columns": {"word": 1, "label": 0}}),
    ("En  \t O\nLima B-LOC \n\t\nSí O\n", {}),                     # any run of spaces and tabs
    ("\ufeffEn O\nLima B-LOC\n\nSí O\n", {}),
    ("En O\nLima B-LOC\n\nSí O\n".encode("latin-1"), {"encoding": "latin-1"}),
    ("En o\nLima B-LOC\n\nSí o\n", {"label_aliases": {"o": "O"}}),
])
def test_conll(tmp_path, content, settings):
    split = read(tmp_path, tagging(**settings), content)
    assert words(split) == TWO and split.dropped == {}


def test_conll_places_and_strange_words(tmp_path):
    split = read(tmp_path, tagging(), "a O\n\n\u200b O\n\ufffd O\n10\u00a0000 O\n# O\n\u2028 O\n")
    assert split.examples[0] == TaggingExample(("a",), ("O",), f"{tmp_path}/f:1")
    assert split.examples[1].words == ("\u200b", "\ufffd", "10\u00a0000", "#", "\u2028")
    assert split.examples[1].where == f"{tmp_path}/f:3"


@pytest.mark.parametrize("content, message", [
    ("En X O\n\nLima B-LOC\nSí X O\n\na X O\n", r"f:3: too few fields \(2: expected 3\)"),
    ("En X O\n\nLima X Y B-LOC\n\na X O\n", r"f:3: too many fields \(4: expected 3\)"),
    ("En X O\nLima X B-LCO\n\nb X O\n", r'f:2: unknown label \("B-LCO": .* did you mean "B-LOC"'),
    ("En\n\nb O\n", r"f:1: too few fields \(1: expected 2\)"),
])
def test_bad_line_of_conll(tmp_path, content, message):
    task = tagging(columns={"word": 0, "label": -1} if "X" not in content else {"word": 0, "label": 2})
    with pytest.raises(UsageError, match=message):
        read(tmp_path, task, content)


def test_a_bad_line_makes_its_sentence_bad(tmp_path):
    content = "a X O\n\nb X O\nc\nd X ?\n\ne X O\n\nf X ?\n"
    split = read(tmp_path, tagging(), content, skip=True)
    assert [e.words for e in split.examples] == [("a",), ("e",)]
    assert split.dropped == {"too few fields": 1, "unknown label": 1}


def test_empty_word(tmp_path):
    with pytest.raises(UsageError, match=r"f:2: empty word \(expected one in column 0\)"):
        read(tmp_path, tagging(separator="\t"), "a\tO\n\tO\n")


def test_wrong_encoding_is_named(tmp_path):
    with pytest.raises(UsageError, match="f:2: byte 1 of the line is not utf-8: expected utf-8"):
        read(tmp_path, tagging(), "a O\nSí O\n".encode("latin-1"))


CONLLU = """# sent_id = 1
# text = dámelo ya
1-2\tdámelo\t_\t_\t_\t_\t_\t_\t_\t_
1\tda\tdar\tVERB\t_\t_\t0\troot\t_\t_
2\tme\tyo\tPRON\t_\t_\t1\tiobj\t_\t_
2.1\tello\tello\tPRON\t_\t_\t_\t_\t_\t_
3\tya\tya\tADV\t_\t_\t1\tadvmod\t_\t_

# sent_id = 2
1\tSí\tsí\tADV\t_\t_\t0\troot\t_\tSpaceAfter=No

"""


def test_conllu(tmp_path):
    task = tagging(layout="conllu", columns={"word": "form", "label": "upos"},
                   labels=("VERB", "PRON", "ADV", "_"))
    split = read(tmp_path, task, CONLLU)
    assert words(split) == [[("da", "VERB"), ("me", "PRON"), ("ya", "ADV")], [("Sí", "ADV")]]
    assert split.examples[0].where.endswith("f:4")
    kept = read(tmp_path, tagging(layout="conllu", columns={"word": 1, "label": 3},
                                  labels=task.labels, conllu_multiword=True), CONLLU)
    assert words(kept)[0] == [("dámelo", "_"), ("da", "VERB"), ("me", "PRON"), ("ello", "PRON"),
                              ("ya", "ADV")]
    with pytest.raises(UsageError, match=r"f:2: too few fields \(4: expected 10\)"):
        read(tmp_path, task, "1\tda\tdar\tVERB\t_\t_\t0\troot\t_\t_\n2\tme\tyo\tPRON\n")


def test_columns_of_conll_are_numbers(tmp_path):
    with pytest.raises(UsageError, match="label='upos': expected a number"):
        read(tmp_path, tagging(columns={"word": 0, "label": "upos"}), "a O\n")


# Tables

PAIR = [("Él dijo: \"no", "vino.", "yes"), ("a\u2028b", "c", "no")]


def rows(split) -> list[tuple]:
    return [(*e.texts, e.label) for e in split.examples]


@pytest.mark.parametrize("name, content, settings", [
    ("f.tsv", "Él dijo: \"no\tvino.\tyes\na\u2028b\tc\tno\n", {}),
    ("f.tsv", "\ufeffa\tb\tl\r\nÉl dijo: \"no\tvino.\tyes\r\na\u2028b\tc\tno\r\n",
     {"header": True, "columns": {"text": "a", "text_pair": "b", "label": "l"}}),
    ("f.tsv", "yes|Él dijo: \"no|vino.\nno|a\u2028b|c\n",
     {"separator": "|", "columns": {"label": 0, "text": -2, "text_pair": -1}}),
    ("f.csv", 'a,b,l\n"Él dijo: ""no",vino.,yes\na\u2028b,"c",no\n',
     {"header": True, "columns": {"text": "a", "text_pair": "b", "label": "l"}}),
    ("f.jsonl", '{"a": "Él dijo: \\"no", "b": "vino.", "l": 1}\n{"a": "a\u2028b", "b": "c", "l": 0}\n',
     {"columns": {"text": "a", "text_pair": "b", "label": "l"},
      "label_aliases": {"0": "no", "1": "yes"}}),
    ("f.jsonl", '{"x": "Él dijo: \\"no", "b": "vino.", "l": "yes"}\n'
                '{"a": "a\u2028b", "b": "c", "l": "no"}\n',
     {"columns": {"text": ["a", "x"], "text_pair": "b", "label": "l"}}),
])
def test_tables(tmp_path, name, content, settings):
    settings = {"layout": "table", "files": {"train": "f.*"}, **settings}
    settings["columns"] = {role: tuple(column) if isinstance(column, list) else column
                           for role, column in settings.get("columns", pairs().columns).items()}
    split = read(tmp_path, pairs(**settings), content, name=name)
    assert rows(split) == PAIR and split.dropped == {}


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"a": [p[0] for p in PAIR], "b": [p[1] for p in PAIR], "l": [1, 0]})
    pq.write_table(table, tmp_path / "f.parquet")
    task = pairs(layout="table", files={"train": "f.parquet"}, label_aliases={"0": "no", "1": "yes"},
                 columns={"text": "a", "text_pair": "b", "label": "l"})
    split = read_split(task, "train", str(tmp_path))
    assert rows(split) == PAIR and split.examples[1].where == f"{tmp_path}/f.parquet: row 2"
    (tmp_path / "f.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match="f.parquet: not parquet"):
        read_split(task, "train", str(tmp_path))


def test_parquet_with_lists_of_words(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"tokens": [["En", "Lima"], ["Sí"]], "tags": [[0, 1], [0]]}),
                   tmp_path / "f.parquet")
    task = tagging(layout="parquet", files={"train": "f.parquet"},
                   columns={"word": "tokens", "label": "tags"}, label_aliases={"0": "O", "1": "B-LOC"})
    assert words(read_split(task, "train", str(tmp_path))) == TWO


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="parquet needs pyarrow: pip install pyarrow"):
        read(tmp_path, pairs(layout="parquet"), b"PAR1")


def test_lists_of_words_that_do_not_fit(tmp_path):
    task = tagging(layout="jsonl", columns={"word": "w", "label": "l"})
    good = '{"w": ["En"], "l": ["O"]}\n'
    for bad, reason in [('{"w": ["a"], "l": []}', "not as many labels as words"),
                        ('{"w": "a", "l": ["O"]}', "words are no list"),
                        ('{"w": [""], "l": ["O"]}', "empty word")]:
        assert read(tmp_path, task, good + bad + "\n", skip=True).dropped == {reason: 1}


@pytest.mark.parametrize("content, message", [
    ("a\tb\tyes\nc\td\n", r"f:2: too few fields \(2: expected 3\)"),
    ("a\tb\tyes\nc\td\te\tno\n", r"f:2: too many fields \(4: expected 3\)"),
    ("a\tb\tyes\n\na\tb\tno\n", r"f:2: too few fields \(1: expected 3\)"),
    ("a\tb\tyes\nc\td\tyess\n", r'f:2: unknown label \("yess": expected one of no, yes; did you mean'),
    ("a\tb\tyes\n \td\tno\n", r"f:2: empty text \(text: expected words\)"),
    ("a\tb\tyes\nc\t\tno\n", r"f:2: empty text \(text_pair: expected words\)"),
    ("a\tb\n", r'f:1: no value \("2": expected one of 0, 1\)'),
])
def test_bad_rows(tmp_path, content, message):
    with pytest.raises(UsageError, match=message) as error:
        read(tmp_path, pairs(), content)
    assert "--skip_bad_rows" in str(error.value)


def test_bad_rows_are_counted_by_reason(tmp_path):
    content = "a\tb\tyes\nc\td\ne\tf\t?\ng\th\n\tx\tno\ni\tj\tno\n"
    split = read(tmp_path, pairs(), content, skip=True)
    assert rows(split) == [("a", "b", "yes"), ("i", "j", "no")]
    assert split.dropped == {"too few fields": 2, "unknown label": 1, "empty text": 1}
    assert [e.where for e in split.examples] == [f"{tmp_path}/f:1", f"{tmp_path}/f:6"]


@pytest.mark.parametrize("content, message", [
    ("{", r"f:1: not JSON"),
    ("[1]", r"f:1: not a JSON object \(list\)"),
    ('{"a": "x", "b": null, "l": "yes"}', r'f:1: no value \("b": expected one of a, b, l'),
    ('{"a": 3, "b": "x", "l": "yes"}', r"f:1: text is no text \(3\)"),
])
def test_bad_json_lines(tmp_path, content, message):
    task = pairs(layout="jsonl", columns={"text": "a", "text_pair": "b", "label": "l"})
    with pytest.raises(UsageError, match=message):
        read(tmp_path, task, content + "\n")


def test_csv_over_lines(tmp_path):
    task = pairs(layout="csv")
    split = read(tmp_path, task, '"a\nb",c,yes\nd,e,no\n')
    assert rows(split) == [("a\nb", "c", "yes"), ("d", "e", "no")]
    assert split.examples[1].where == f"{tmp_path}/f:3"
    with pytest.raises(UsageError, match="f:2: not CSV"):
        read(tmp_path, task, 'd,e,no\n"a"b,c,yes\n')


@pytest.mark.parametrize("columns, message", [
    ({"text": "sentence", "label": "l"}, 'no column "sentence": expected one of sentence1, l; did you'),
    ({"text": ("x", "y"), "label": "l"}, "none of the columns x, y: expected one of sentence1, l"),
])
def test_no_such_column(tmp_path, columns, message):
    task = pairs(header=True, columns=columns)
    with pytest.raises(UsageError, match=message):
        read(tmp_path, task, "sentence1\tl\na\tyes\n")


def test_rows_of_other_tasks_and_splits(tmp_path):
    content = "language\tpart\ta\tl\nen\ttrain\thello\t?\nes\tdev\tadiós\tno\nes\ttrain\thola\tyes\n"
    task = pairs(header=True, columns={"text": "a", "label": "l"}, filter={"language": "es"},
                 split_column="part", files={"train": "f", "dev": "f", "test": "f"})
    assert rows(read(tmp_path, task, content)) == [("hola", "yes")]
    assert rows(read(tmp_path, task, content, split="dev")) == [("adiós", "no")]
    with pytest.raises(UsageError, match="no example of test in f"):
        read(tmp_path, task, content, split="test")


def test_drop_rules_are_counted(tmp_path):
    content = "a\tNS\tyes\n\tb\tno\n \tb\tno\nc\td\tyes\n"
    split = read(tmp_path, pairs(drop_texts=("NS", "")), content)
    assert rows(split) == [("c", "d", "yes")]
    assert split.dropped == {'text is "NS"': 1, "empty text": 2}


def test_symmetric_doubles_training_pairs_only(tmp_path):
    task = pairs(symmetric=True, files={"train": "f", "dev": "f"})
    content = "a\tb\tyes\nc\td\tno\n"
    assert rows(read(tmp_path, task, content)) == [
        ("a", "b", "yes"), ("c", "d", "no"), ("b", "a", "yes"), ("d", "c", "no")]
    assert len(read(tmp_path, task, content, split="dev").examples) == 2


def test_dev_out_of_train(tmp_path):
    """All pairs with one first text are in the same split, and each pair is in one."""
    task = pairs(dev_share=3, files={"train": "f", "test": "f"})
    content = "".join(f"premisa {i // 2}\t{i}\tyes\n" for i in range(200))
    assert task.splits == ("train", "dev", "test")
    train, dev, test = (rows(read(tmp_path, task, content, split=s)) for s in task.splits)
    assert sorted(train + dev) == sorted(test) and len(test) == 200
    assert not {row[0] for row in train} & {row[0] for row in dev}
    assert 40 < len(dev) < 95


def test_regression(tmp_path):
    task = Task("t", "regression", files={"train": "f"}, layout="tsv", header=False,
                columns={"text": 0, "text_pair": 1, "score": 2}, metric="pearson", score_range=(0, 5))
    split = read(tmp_path, task, "a\tb\t4.5\nc\t\"d\t0\n")
    assert split.examples == [TextExample(("a", "b"), 4.5, f"{tmp_path}/f:1"),
                              TextExample(("c", '"d'), 0.0, f"{tmp_path}/f:2")]
    for bad in ("5.1", "-0.1", "nan", "cinco", ""):
        with pytest.raises(UsageError, match=r"f:1: no score in the task's range \(.*from 0 to 5"):
            read(tmp_path, task, f"a\tb\t{bad}\n")


# SQuAD

QA = Task("t", "question_answering", files={"train": "f"}, layout="squad", metric="f1")
QA_2 = Task("t", "question_answering", files={"train": "f"}, layout="squad", metric="f1",
            unanswerable=True)


def squad(*qas, context="El niño comió pan.") -> str:
    return json.dumps({"version": "x", "data": [{"title": "t", "paragraphs": [
        {"context": context, "qas": list(qas)}]}]})


def qa(id="1", question="¿Qué?", text="pan", start=14, **more):
    return {"id": id, "question": question, "answers": [{"text": text, "answer_start": start}], **more}


def test_squad(tmp_path):
    split = read(tmp_path, QA, "\ufeff" + squad(qa(), qa("2", "¿Quién?", "El niño", 0)))
    assert split.examples == [
        Question("1", "¿Qué?", "El niño comió pan.", (("pan", 14),), False,
                 f'{tmp_path}/f: question "1"'),
        Question("2", "¿Quién?", "El niño comió pan.", (("El niño", 0),), False,
                 f'{tmp_path}/f: question "2"')]


def test_squad_with_unanswerable_questions(tmp_path):
    impossible = {"id": "2", "question": "¿Dónde?", "answers": [], "is_impossible": True,
                  "plausible_answers": [{"text": "pan", "answer_start": 14}]}
    without_mark = {"id": "3", "question": "¿Cuándo?", "answers": []}
    split = read(tmp_path, QA_2, squad(qa(is_impossible=False), impossible, without_mark))
    assert [(q.is_impossible, q.answers) for q in split.examples] == [
        (False, (("pan", 14),)), (True, ()), (True, ())]
    with pytest.raises(UsageError, match='question "2": a question without an answer'):
        read(tmp_path, QA, squad(qa(), impossible))


@pytest.mark.parametrize("bad, message", [
    (qa(start=13), r'question "1": the answer is not where answer_start says \("pan" at 13, .*" pa"'),
    (qa(start=-3), "the answer is not where"),
    (qa(question=" "), "no question"),
    ({"id": "1", "question": "q"}, "no answers"),
    ({"id": "1", "question": "q", "answers": [{"text": "pan"}]}, "an answer without text or"),
    ({"question": "q", "answers": []}, "article 0, paragraphs 0, qas 0: no id"),
])
def test_bad_questions(tmp_path, bad, message):
    content = squad(bad, qa("good"))
    with pytest.raises(UsageError, match=message):
        read(tmp_path, QA, content)
    split = read(tmp_path, QA, content, skip=True)
    assert [q.id for q in split.examples] == ["good"] and sum(split.dropped.values()) == 1


@pytest.mark.parametrize("content, message", [
    ("{", "f: not JSON"), ("[]", "expected SQuAD's layout"), ('{"data": [{}]}', "article 0: expected"),
    ('{"data": [{"paragraphs": [3]}]}', "article 0: expected"),
])
def test_no_squad(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, QA, content)


# Splits and files

def test_splits_and_files(tmp_path):
    task = load_task("capitel_ner")
    with pytest.raises(UsageError, match=r"train.conll: no such file: .*; CAPITEL is closed: sign"):
        read_split(task, "train", str(tmp_path))
    with pytest.raises(UsageError, match="no split validation: expected one of train, dev, test"):
        read_split(task, "validation", str(tmp_path))
    assert not has_split(task, "train", str(tmp_path))
    (tmp_path / "train.conll").write_text("En O\nLima S-LOC\n")
    assert has_split(task, "train", str(tmp_path))
    assert words(read_split(task, "train", str(tmp_path))) == [[("En", "O"), ("Lima", "S-LOC")]]


def test_several_files_of_a_split(tmp_path):
    (tmp_path / "g.b").write_text("b O\n")
    (tmp_path / "g.a").write_text("a O\n")
    split = read_split(tagging(files={"train": "g.*"}), "train", str(tmp_path))
    assert [e.words for e in split.examples] == [("a",), ("b",)]


def test_published_inferes(tmp_path):
    (tmp_path / "inferes_test.csv").write_text(
        'ID,Premise,Hypothesis,Label,Topic,Anno,Anno_Type\n1,"Dijo ""no"", y calló.",Habló.,cnt,4,6,R\n')
    assert rows(read_split(load_task("inferes"), "test", str(tmp_path))) == [
        ('Dijo "no", y calló.', "Habló.", "contradiction")]


def test_xnli_train_has_a_layout_of_its_own(tmp_path):
    (tmp_path / "multinli.train.es.tsv").write_text("premise\thypo\tlabel\na\tb\tcontradictory\n")
    assert rows(read_split(load_task("xnli_es"), "train", str(tmp_path))) == [
        ("a", "b", "contradiction")]


def test_massive(tmp_path):
    (tmp_path / "es-ES.jsonl").write_text("".join(json.dumps(
        {"partition": p, "utt": p, "intent": "alarm_set"}) + "\n" for p in ("train", "dev", "test")))
    task = load_task("massive_es")
    assert [rows(read_split(task, s, str(tmp_path))) for s in task.splits] == [
        [(s, "alarm_set")] for s in ("train", "dev", "test")]


def test_the_bundled_sample():
    task = load_task("sample_pos")
    splits = {s: read_split(task, s, default_data_dir(task)) for s in task.splits}
    assert {s: len(split.examples) for s, split in splits.items()} == {
        "train": 180, "dev": 35, "test": 35}
    sentences = [e.words for split in splits.values() for e in split.examples]
    assert len(set(sentences)) == 250
    for split in splits.values():
        for example in split.examples:
            for word, tag in zip(example.words, example.labels, strict=True):
                assert (tag == "PUNCT") == (not any(c.isalnum() or c in "%€" for c in word)), word


# The real files

@pytest.mark.parametrize("name, folder", [
    ("conll2002_pos", "pos_ner"), ("conll2002_ner", "pos_ner"), ("conll2002_ner", "ner")])
def test_conll2002(shared_dir, name, folder):
    data = str(shared_dir / "data/tasks/conll2002" / folder)
    train, dev = (read_split(load_task(name), split, data) for split in ("train", "dev"))
    assert len(train.examples) == 8323 and len(dev.examples) == 1915
    assert max(len(e.words) for e in train.examples) == 1238
    assert sum(len(e.words) for e in dev.examples) == 52923
    assert not train.dropped and not dev.dropped
    assert all(e.words for e in train.examples + dev.examples)


def test_pawsx(shared_dir):
    path = shared_dir / "data/tasks/pawsx/es/dev_2k.tsv"
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]
    assert len(lines) == 2000 and sum('"' in line for line in lines) == 155
    split = read_split(load_task("pawsx_es"), "dev", str(shared_dir / "data/tasks/pawsx"))
    assert len(split.examples) == 1962 and split.dropped == {'text is "NS"': 38}
    quotes = sum('"' in line for line in lines if "NS" not in line.split("\t"))
    assert sum('"' in "".join(e.texts) for e in split.examples) == quotes > 100


def test_xnli(shared_dir):
    split = read_split(load_task("xnli_es"), "dev", str(shared_dir / "data/tasks/xnli"))
    assert len(split.examples) == 2490
    assert {label: sum(e.label == label for e in split.examples)
            for label in load_task("xnli_es").labels} == {
                "entailment": 830, "neutral": 830, "contradiction": 830}


def test_inferes(shared_dir):
    task, data = load_task("inferes"), str(shared_dir / "data/tasks/nli")
    train, dev, test = (read_split(task, split, data).examples for split in task.splits)
    assert len(train) + len(dev) == 6444 and len(test) == 1612
    assert not {e.texts[0] for e in train} & {e.texts[0] for e in dev}
