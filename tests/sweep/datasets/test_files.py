"""Data from files: the rows of each format, the selection of rows, and the errors of unreadable files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from conftest import ROOT, compose
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.core.reporter import silent
from sweep.datasets.draws import permutation, stratified
from sweep.datasets.file_parsing import Layout, read
from sweep.datasets.files import Files
from sweep.datasets.hub import Hub, HubTable, load_split
from sweep.tasks.sequence_head import check_texts

ROWS = [{"text": f"line {i}", "label": str(i % 2)} for i in range(10)]


def write(path: Path, rows: list[dict] = ROWS) -> Path:
    columns = list(rows[0])
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        between = "\t" if path.suffix == ".tsv" else ","
        lines = [between.join(columns), *(between.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str):
    found = read(write(tmp_path / f"data{ending}"))
    assert found.columns == ["text", "label"]
    assert found.rows == ROWS


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
def test_any_text_survives_csv_and_jsonl(tmp_path_factory: pytest.TempPathFactory, texts: list[str]):
    import csv

    folder = tmp_path_factory.mktemp("any")
    rows = [{"text": text, "label": "x"} for text in texts]
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    assert read(folder / "a.csv").rows == rows
    assert read(write(folder / "a.jsonl", rows)).rows == rows


def test_tsv_takes_quotation_marks_as_they_are_and_csv_does_not(tmp_path: Path):
    (tmp_path / "a.tsv").write_text('a\tb\n"open\tx\n2"\ty\n')
    assert read(tmp_path / "a.tsv").rows == [{"a": '"open', "b": "x"}, {"a": '2"', "b": "y"}]
    (tmp_path / "a.csv").write_text('a,b\n"one, ""two""\nthree",x\n')
    assert read(tmp_path / "a.csv").rows == [{"a": 'one, "two"\nthree', "b": "x"}]
    (tmp_path / "b.tsv").write_text('a\tb\n"one\ttwo"\tx\n')
    assert read(tmp_path / "b.tsv", Layout(quoted=True)).rows == [{"a": "one\ttwo", "b": "x"}]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path):
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbfQuality\t#1 String\r\n1\thello\r\n")
    assert read(tmp_path / "a.tsv").rows == [{"Quality": "1", "#1 String": "hello"}]


def test_a_file_without_a_header_takes_given_names(tmp_path: Path):
    (tmp_path / "cola.tsv").write_text("gj04\t1\t\tOur friends won't buy this.\n")
    names = ["source", "label", "mark", "text"]
    assert read(tmp_path / "cola.tsv", Layout(names)).rows[0]["text"] == "Our friends won't buy this."


def test_gzip_is_opened_and_a_truncated_file_is_refused(tmp_path: Path):
    import gzip

    packed = gzip.compress(write(tmp_path / "a.csv").read_bytes())
    (tmp_path / "b.csv.gz").write_bytes(packed)
    assert read(tmp_path / "b.csv.gz").rows == ROWS
    assert len(Hub(path=str(tmp_path), train="b").load().train) == 9
    (tmp_path / "b.csv.gz").write_bytes(packed[:-9])
    with pytest.raises(UserError, match=r"b.csv.gz cannot be read"):
        read(tmp_path / "b.csv.gz")


def test_json_may_keep_its_rows_below_a_name(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps({"version": "1.1", "data": ROWS}, indent=1))
    assert read(tmp_path / "a.json").rows == ROWS
    (tmp_path / "b.json").write_text("\n".join(map(json.dumps, ROWS)))
    assert read(tmp_path / "b.json").rows == ROWS


def test_squad_is_read_as_it_is_published(tmp_path: Path):
    asked = {"id": "1", "question": "who?", "answers": [{"text": "she", "answer_start": 3}]}
    nobody = {"id": "2", "question": "when?", "answers": [], "is_impossible": True}
    article = {"title": "t", "paragraphs": [{"context": "it is she", "qas": [asked, nobody]}]}
    (tmp_path / "train.json").write_text(json.dumps({"version": "2.0", "data": [article, article]}))
    (tmp_path / "validation.json").write_text(json.dumps({"version": "2.0", "data": [article]}))
    data = parse(compose("task=generation", "data@task.data=squad", f"task.data.path={tmp_path}")).task.data
    with pytest.raises(UserError, match=r"row 2: column 'answers\.text\.0' has no value"):
        data.load()
    answered = replace(data, skip_incomplete=True).load()
    assert answered.train[0] == {"prompt": "it is she\n\nQuestion: who?\nAnswer:", "response": " she"}
    assert (len(answered.train), len(answered.validation)) == (2, 1)


def test_dots_lead_into_what_is_nested(tmp_path: Path):
    """SQuAD's answers are lists below a column."""
    rows = [{"question": f"who {i}?", "answers": {"text": [f"she {i}", "x"], "start": [0]}} for i in range(4)]
    path = write(tmp_path / "a.parquet", rows)
    columns = {"prompt": "{question} {answers.start.0}", "response": "answers.text.0"}
    examples = files(path, validation=str(path), columns=columns).load().train
    assert {"prompt": "who 2? 0", "response": "she 2"} in examples
    with pytest.raises(UserError, match=r"column 'answers\.text\.2' has no value"):
        files(path, columns={"prompt": "question", "response": "answers.text.2"}).load()


def test_incomplete_rows_are_skipped_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Some of GLUE's published files hold lines that are cut short."""
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\n" + "".join(f"t{i}\t{i % 2}\n" if i % 5 else f"cut {i}\n" for i in range(20)))
    with pytest.raises(UserError, match=r"line 2: has 1 fields.*skip_incomplete=true"):
        files(path).load()
    assert len(files(path, validation=str(path), skip_incomplete=True).load().train) == 16
    assert "4 lines with another number of fields are skipped" in caplog.text
    nulls = write(tmp_path / "b.jsonl", [{"text": f"t{i}", "label": i % 2 if i % 4 else None} for i in range(20)])
    whole = files(nulls, validation=str(nulls), skip_incomplete=True, n_train=12)
    assert len(whole.load().train) == 12
    assert "5 rows without a value" in caplog.text
    with pytest.raises(UserError, match="column 'label' has no value"):
        files(nulls, validation=str(nulls)).load()


def test_validation_examples_that_were_trained_on_are_counted(tmp_path: Path):
    path = write(tmp_path / "a.csv", [{"text": f"t{i}", "label": str(i % 2)} for i in range(20)])
    assert files(path).load().leaked == 0
    others = [{"text": "t3", "label": "0"}, {"text": "new", "label": "1"}, {"text": "t4", "label": "0"}]
    assert files(path, validation=str(write(tmp_path / "b.csv", others))).load().leaked == 2
    chats = [{"messages": [{"role": "user", "content": f"{i % 8}"}]} for i in range(10)]
    assert files(write(tmp_path / "c.jsonl", chats), validation_fraction=0.5, split_seed=1).load().leaked in (1, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\nok,1\ncaf\xe9,0\n", r"a.csv, line 3: byte 0xe9 is not UTF-8.*iconv"),
        ("a.csv", b"text,label\nok,1\na,b,c\n", r"a.csv, line 3: has 3 fields, and the columns are 2: text, label"),
        ("a.csv", b'text,label\n"open,1\n', r"a.csv, line 2: unexpected end of data"),
        ("a.csv", "café,“smart”\n".encode("cp1252"), r"byte 0xe9 is not UTF-8.*iconv -f cp1252"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16le"), r"holds a NUL character.*iconv -f utf-16le"),
        ("a.csv", b"text,label\n", "a.csv is empty: it has no rows"),
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"text,label\na\0,1\n", "line 2: holds a NUL"),
        ("a.jsonl", b'{"text": 1}\n{"text": \n', r"a.jsonl, line 2: is not JSON"),
        ("a.jsonl", b'{"text": 1}\n[1]\n', r"a.jsonl, line 2: is list, not an object"),
        ("a.parquet", b"PAR1 no", "cannot be read as Parquet"),
        ("a.json", b'[{"text": 1},\n 3]', "entry 2: is int, not an object"),
    ],
)
def test_an_unreadable_file_is_refused_with_its_line(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_an_encoding_with_a_mark_is_read(tmp_path: Path, encoding: str):
    (tmp_path / "a.csv").write_bytes("text,label\n“한국어”,é\n".encode(encoding))
    assert read(tmp_path / "a.csv").rows == [{"text": "“한국어”", "label": "é"}]


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        ("text;label\na, b;x\n", Layout()),
        ("text\tlabel\na, b\tx\n", Layout()),
        ("sep=;\ntext;label\na, b;x\n", Layout()),
        ("text|label\na, b|x\n", Layout()),
        ("a, b;x\n", Layout(column_names=["text", "label"], delimiter=";")),
        ("text,more~label\na, b~x\n", Layout(column_names=["text", "label"], delimiter="~")),
    ],
)
def test_a_delimiter_is_that_of_the_first_line_or_the_config_s(tmp_path: Path, content: str, layout: Layout):
    (tmp_path / "a.csv").write_text(content)
    assert read(tmp_path / "a.csv", layout).rows[-1] == {"text": "a, b", "label": "x"}
    (tmp_path / "b.csv").write_text("text\none; two\n")
    assert read(tmp_path / "b.csv").rows == [{"text": "one; two"}]


def test_unnamed_columns_and_those_of_one_name_are_no_fault_until_they_are_asked_for(tmp_path: Path):
    """The much-used spam.csv begins with v1,v2,,, ."""
    (tmp_path / "spam.csv").write_text("v1,v2,,,\nham,hello,,,\nspam,win,x,,\nham,a,,,\nspam,b,,,\n")
    loaded = files(tmp_path / "spam.csv", columns={"text": "v2", "label": "v1"}, validation_fraction=0.5).load()
    assert {example["label"] for example in loaded.train} == {"ham", "spam"}
    (tmp_path / "twice.csv").write_text("text,text,label\na,b,x\nc,d,y\n")
    assert read(tmp_path / "twice.csv").columns == ["text (1)", "text (2)", "label"]
    with pytest.raises(UserError, match=r"has no column 'text'; did you mean text \([12]\)\?"):
        files(tmp_path / "twice.csv", columns={"text": "text"}).load()


def test_a_validation_split_has_every_class_in_its_share(tmp_path: Path):
    """Of 200 rows with 10 positives, a tenth at random had none in one of three draws."""
    rows = [{"text": f"t{i}", "label": "pos" if i % 20 == 0 else "neg" if i % 2 else "so-so"} for i in range(200)]
    path = write(tmp_path / "a.csv", rows)
    for seed in range(20):
        drawn = files(path, split_seed=seed).load()
        assert Counter(e["label"] for e in drawn.validation) == {"pos": 1, "neg": 10, "so-so": 9}
        assert {e["text"] for e in (*drawn.train, *drawn.validation)} == {row["text"] for row in rows}
    assert files(path, split_seed=0).load().validation != files(path, split_seed=1).load().validation
    rare = write(tmp_path / "b.csv", [{"text": f"t{i}", "label": "pos" if i < 3 else "neg"} for i in range(100)])
    assert Counter(e["label"] for e in files(rare).load().validation) == {"neg": 9, "pos": 1}


@given(st.lists(st.sampled_from("aaabbc"), min_size=2, max_size=60), st.data())
@settings(deadline=None)
def test_a_stratified_draw_has_its_size_and_no_row_twice(labels: list[str], data: st.DataObject):
    count = data.draw(st.integers(1, len(labels) - 1))
    order = permutation(len(labels), 3)
    drawn = stratified(order, labels, count)
    assert len(drawn) == len(set(drawn)) == count
    assert drawn == [index for index in order if index in set(drawn)]
    for label, size in Counter(labels).items():
        taken = sum(labels[index] == label for index in drawn)
        assert abs(taken - size * count / len(labels)) <= len(set(labels))
    assert stratified(order, None, count) == order[:count]


def test_a_folder_of_save_to_disk_is_read(tmp_path: Path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = {"text": [f"t{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": split, "validation": split}).save_to_disk(tmp_path / "both")
    source = Hub(path=str(tmp_path / "both"), validation="validation")
    assert not list(source.faults())
    loaded = source.load()
    assert (len(loaded.train), len(loaded.validation), loaded.labels) == (20, 20, ("neg", "pos"))
    assert source.prepare(silent)["data_revision"].startswith("sha256:")
    split.save_to_disk(tmp_path / "one")
    alone = Hub(path=str(tmp_path / "one"), validation_fraction=0.2)
    assert not list(alone.faults())
    assert (len(alone.load().train), len(alone.load().validation)) == (16, 4)
    assert "has no file" in dict(Hub(path=str(tmp_path / "one"), validation="dev").faults())["validation"]
    assert "written by save_to_disk" in dict(files(tmp_path / "one").faults())["train"]


def files(path: Path, **changes: object) -> Files:
    return Files(train=str(path), **changes)


def test_splits_by_fraction_are_disjoint_and_the_validation_set_does_not_move(tmp_path: Path):
    path = write(tmp_path / "a.csv", [{"text": f"t{i}", "label": str(i % 3)} for i in range(100)])
    all_of_it = files(path, validation_fraction=0.2).load()
    assert (len(all_of_it.train), len(all_of_it.validation)) == (80, 20)
    assert {e["text"] for e in (*all_of_it.train, *all_of_it.validation)} == {f"t{i}" for i in range(100)}
    fewer = files(path, validation_fraction=0.2, n_train=10).load()
    assert fewer.validation == all_of_it.validation
    assert fewer.train == all_of_it.train[:10]
    assert files(path, split_seed=1).load().train != files(path).load().train
    assert files(path).load() == files(path).load()
    assert files(path, n_validation=3, validation_fraction=0.2).load().validation == all_of_it.validation[:3]


def test_a_selection_is_drawn_from_the_whole_file(tmp_path: Path):
    """A file sorted by label, cut after its first rows, has one label only: a trap of many data sets."""
    path = write(tmp_path / "a.csv", [{"text": "x", "label": str(i // 500)} for i in range(1000)])
    drawn = files(path, validation=str(path), n_train=100, n_validation=100).load()
    for split in (drawn.train, drawn.validation):
        assert 25 < sum(example["label"] == "1" for example in split) < 75


def test_columns_map_to_roles_by_name_or_by_template(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", [{"question": "1+1? {x}", "answer": 2, "text": "t"}])
    write(tmp_path / "v.jsonl", [{"question": "2", "answer": 4, "text": "t"}])
    columns = {"prompt": "Q: {question}\nA:", "response": "answer"}
    [example] = files(path, validation=str(tmp_path / "v.jsonl"), columns=columns).load().train
    assert example == {"prompt": "Q: 1+1? {x}\nA:", "response": "2", "text": "t"}


def test_a_missing_column_lists_those_that_exist(tmp_path: Path):
    path = write(tmp_path / "train.csv")
    with pytest.raises(UserError, match=r"columns.text = txet: train.csv has no column 'txet'; did you mean text\?"):
        files(path, columns={"text": "txet"}).load()
    with pytest.raises(UserError, match="there is: text, label"):
        files(path, columns={"text": "{body} {title}"}).load()


def test_an_empty_value_is_refused_with_its_row(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "label": 1}\n{"text": null, "label": 1}\n')
    with pytest.raises(UserError, match="row 2: column 'text' has no value"):
        files(path, validation=str(path)).load()


@pytest.mark.parametrize(
    ("value", "columns", "message"),
    [
        (
            [["action"], "comedy"],
            {},
            r"row 2: column 'label', the label, holds lists: \[\['action'\], 'com.*name one of",
        ),
        (
            {"input": "x"},
            {"label": "data"},
            r"row 2: column 'data', the label, holds objects.*columns\.label=data\.input",
        ),
        (["a", "fine", "film"], {"text": "{data} !"}, r"row 2: column 'data', the text, holds lists.*join them"),
    ],
)
def test_lists_and_objects_are_no_texts(tmp_path: Path, value: object, columns: dict[str, str], message: str):
    """They were written as Python writes them: a class was named "['action', 'comedy']"."""
    rows = [{"text": "t", "label": "x", "data": "y"}, {"text": "t", "label": value, "data": value}]
    if columns:
        rows[1]["label"] = "x"
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=message):
        files(path, validation=str(path), columns=columns).load()


def test_a_missing_number_is_missing(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "label": 1}\n{"text": "y", "label": NaN}\n')
    with pytest.raises(UserError, match="row 2: column 'label' has no value"):
        files(path, validation=str(path)).load()


@pytest.mark.parametrize(
    "turns",
    [
        [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
         {"role": "assistant", "content": [{"type": "text", "text": "a"}]}],
        '[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]',
    ],
)  # fmt: skip
def test_conversations_are_read_in_the_forms_that_files_have(tmp_path: Path, turns: object):
    path = write(tmp_path / "a.jsonl", [{"conversations": turns}] * 4)
    [example, *_] = files(path, columns={"messages": "conversations"}).load().train
    assert [tuple(message.values()) for message in example["messages"]] == [
        ("system", "s"), ("user", "q"), ("assistant", "a")
    ]  # fmt: skip
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]
    write(path, [{"conversations": image}] * 2)
    with pytest.raises(UserError, match=r"row [12]: a message has a part of type 'image_url'"):
        files(path, columns={"messages": "conversations"}).load()


def test_a_column_without_any_value_is_named(tmp_path: Path):
    """Unlabelled test splits, also the Hub's, have the column, and nothing in it."""
    full = write(tmp_path / "a.jsonl")
    empty = write(tmp_path / "b.jsonl", [{"text": "x", "label": None}] * 3)
    with pytest.raises(UserError, match=r"b\.jsonl: column 'label' has no value in any row; .*task\.data\.test=null"):
        files(full, validation=str(full), test=str(empty), columns={"label": "label"}).load()
    by_name = files(full, validation=str(full), test=str(empty)).load()
    with pytest.raises(UserError, match=r"no row of the test split has a label: .* is empty; .*task\.data\.test=null"):
        check_texts(by_name)


def test_several_files_are_one_split_and_the_digest_follows_their_content(tmp_path: Path):
    one, two = write(tmp_path / "a.csv"), write(tmp_path / "b.jsonl")
    both = Files(train=[str(one), str(two)], validation=str(one))
    assert len(both.load().train) == 20
    before = both.prepare(silent)
    assert before == Files(train=[str(one), str(two)], validation=str(one)).prepare(silent)
    one.write_text(one.read_text().replace("line 3", "line three"))
    assert both.prepare(silent) != before


def test_faults_of_files_are_found_without_reading_them(tmp_path: Path):
    write(tmp_path / "train.csv")
    (tmp_path / "notes.xyz").write_text("?")

    def faults(**changes: object) -> dict[str, str]:
        return dict(Files(**{"train": str(tmp_path / "train.csv"), **changes}).faults())

    assert faults() == {}
    assert "did you mean train.csv?" in faults(train=str(tmp_path / "trian.csv"))["train"]
    assert "is a folder" in faults(validation=str(tmp_path))["validation"]
    assert "format" in faults(test=str(tmp_path / "notes.xyz"))["test"]
    assert "did you mean text?" in faults(columns={"txt": "a"})["columns"]
    assert "is not a template" in faults(columns={"text": "{open"})["columns"]
    assert "names of columns only" in faults(columns={"text": "{a!r}"})["columns"]
    assert "names no file" in faults(train=[])["train"]


def test_a_folder_replaces_the_hub(tmp_path: Path):
    (tmp_path / "main").mkdir()
    write(tmp_path / "main" / "train-00000-of-00002.parquet")
    write(tmp_path / "main" / "train-00001-of-00002.parquet")
    write(tmp_path / "main" / "test.csv", ROWS[:2])
    source = Hub(path=str(tmp_path), name="main", validation="test")
    assert not list(source.faults())
    splits = source.load()
    assert (len(splits.train), len(splits.validation)) == (20, 2)
    file = write(tmp_path / "alone.json")  # as Alpaca is published
    assert len(Hub(path=str(file), validation_fraction=0.2).load().train) == 8
    assert not list(Hub(path=str(file)).faults())
    assert "is one file" in dict(Hub(path=str(file), validation="test").faults())["path"]
    assert dict(Hub(path=str(tmp_path), name="main", validation="dev").faults())["validation"].startswith("has no file")
    assert "neither an existing folder" in dict(Hub(path="/nowhere/at/all").faults())["path"]


def test_numbered_labels_of_the_hub_come_with_their_names(tmp_path: Path):
    """By the datasets library, and from its Parquet files read by themselves."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    split = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=features)
    split.to_parquet(tmp_path / "train.parquet")
    by_library = HubTable(split, "x").rows([2, 1, 0])
    train = str(tmp_path / "train.parquet")
    assert Files(train=train, validation=train, skip_incomplete=True).load().labels == ("neg", "pos")
    assert HubTable(split, "x").labels == {"label": ["neg", "pos"]}
    assert [row["label"] for row in by_library] == [None, "pos", "neg"]
    assert [row["label"] for row in read(tmp_path / "train.parquet").rows] == ["neg", "pos", None]
    loaded = load_split(str(tmp_path), None, None, "train")  # what a Hub id goes through too
    assert loaded.columns == ["text", "label"]
    assert [row["label"] for row in loaded.rows(range(3))] == ["neg", "pos", None]


def test_the_error_of_a_data_set_that_could_not_be_loaded_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    source = Hub(path="owner/missing", name="main")
    with pytest.raises(UserError, match=r"task.data.path = owner/missing \(main\) could not be loaded"):
        source.load()
    with pytest.raises(UserError, match="give a folder with one file per split"):
        source.prepare(silent)
    assert Hub(path="a/b").pinned({"path": "a/b"}, {"data_revision": "abc"}) == {"path": "a/b", "revision": "abc"}


@pytest.mark.parametrize(
    "name", sorted(str(p.relative_to(ROOT / "conf/data"))[:-5] for p in ROOT.glob("conf/data/**/*.yaml"))
)
def test_every_data_preset_builds(name: str, tmp_path: Path):
    needs = {"files": [f"task.data.train={write(tmp_path / 'a.csv')}"], "hub": ["task.data.path=owner/name"]}
    parsed = parse(compose(f"data@task.data={name}", *needs.get(name, [])))
    assert parsed.task.data.columns is not None if name != "scan_around_right" else parsed.task.data.n_train


def test_a_missing_file_is_a_fault_of_the_config():
    with pytest.raises(ConfigError, match=r"task.data.train = /no/file.csv"):
        parse(compose("data@task.data=files", "task.data.train=/no/file.csv"))


def test_a_backslash_and_an_n_in_a_template_are_a_line_break(tmp_path: Path):
    """A command line gives them as two characters; YAML in double quotes gives a line break."""
    path = write(tmp_path / "a.jsonl", [{"q": "why\\n", "response": "so"}] * 2)
    typed, written = (
        files(path, validation=str(path), columns={"prompt": f"Ask: {{q}}{end}Response:"}).load().train[0]["prompt"]
        for end in ("\\n", "\n")
    )
    assert typed == written == "Ask: why\\n\nResponse:"  # the data keep theirs
