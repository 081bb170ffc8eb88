"""A CSV file of runs: it is read and decided on, and its faults name the row."""

from __future__ import annotations

import json
import resource
import shlex
import signal
from pathlib import Path

import pytest

from analysis import pipeline
from analysis.loading import csv_source
from analysis.reporting import writer
from sweep.core.errors import UserError

GOOD = "setting,score,max_memory_allocated\nfft,0.90,100\nlora,0.895,40\nqlora,0.5,30\n"


def options(path: Path, out: Path, **changes: object) -> dict:
    base = {
        "study": None, "source": str(path), "compare": None, "threshold": 0.99, "margin": None, "direction": None,
        "memory_metric": "max_memory_allocated", "allow_different": [], "cluster": None, "price": 2, "pdf": False,
        "out": str(out),
        "tracking": {},
    }  # fmt: skip
    return {**base, **changes}


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "results.csv"
    path.write_text(text)
    return path


def test_three_columns_are_enough(tmp_path: Path):
    said = pipeline.answer(options(file(tmp_path, GOOD), tmp_path / "out", pdf=True))
    assert "Use lora: score 0.8950, 99.4% of the best (fft, 0.9000), at 40.0 B instead of 100.0 B (60% less)" in said
    assert (tmp_path / "out/score_against_memory.pdf").read_bytes().startswith(b"%PDF")


def test_other_columns_are_used(tmp_path: Path):
    path = file(
        tmp_path,
        "setting,variant,seed,score,max_memory_allocated,reserved,train_seconds,outcome,reason\n"
        "a,lora,0,2.0,10,90,1.5,ok,\na,lora,1,2.2,10,90,1.5,ok,\nb,fft,0,1.0,20,50,3,ok,\nc,fft,0,,,,,oom,no room\n",
    )
    study = csv_source.read(path, "reserved", "minimize")
    made = pipeline.build(study, 0.4, None, "reserved")
    assert made.decision.selected == "b"
    assert made.settings.set_index("setting").loc["a", "score"] == pytest.approx(2.1)
    assert made.failures[0].reason == "no room"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("setting,score\na,1\n", "lacks the column max_memory_allocated"),
        ("setting,scores,max_memory_allocated\na,1,1\n", "score (did you mean scores?"),
        (GOOD.replace("0.895", "high"), "line 3: score = 'high' is not a plain number"),
        (GOOD.replace(",40", ",4O"), "line 3: max_memory_allocated = '4O' is not a plain number: bytes"),
        (GOOD.replace(",30", ",-30"), "line 4: max_memory_allocated"),
        (GOOD.replace("qlora", ""), "line 4: setting = '' is empty"),
        ("setting,score,max_memory_allocated,outcome\na,1,1,fine\n", "line 2: outcome = 'fine' is not an outcome"),
        ("setting,score,max_memory_allocated,seed\na,1,1,0.5\n", "seed = 0.5 must be"),
        ("setting,score,score,max_memory_allocated\na,1,1,1\n", "more than one column"),
        ("", "is empty"),
        ("setting,score,max_memory_allocated\n", "no row"),
        ("setting,score,max_memory_allocated\na,1,1,1,1\n,\n", "has rows that cannot be read"),
    ],
)
def test_faults_name_column_and_line(tmp_path: Path, text: str, words: str):
    with pytest.raises(UserError) as caught:
        csv_source.read(file(tmp_path, text), "max_memory_allocated")
    assert words in str(caught.value)


def bytes_of(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode(),
        GOOD.replace(",", ";").encode(),
        GOOD.replace(",", "\t").encode(),
        GOOD.replace(",", " | ").encode(),
        ("sep=;\n" + GOOD.replace(",", ";")).encode(),
        ('"sep=,"\r\n' + GOOD.replace("\n", "\r\n")).encode(),
        GOOD.encode("utf-8-sig"),
        GOOD.encode("utf-16"),
        GOOD.replace(",", ";").replace(".", ",").encode(),
        GOOD.replace("setting,", "setting,,").replace("a,", "a,,").replace("t,", "t,,").encode(),
    ],
    ids=range(10),
)
def test_separators_encodings_and_decimal_commas_of_spreadsheets(tmp_path: Path, content: bytes):
    runs = csv_source.read(bytes_of(tmp_path, content), "max_memory_allocated").runs
    assert runs["setting"].tolist() == ["fft", "lora", "qlora"]
    assert runs["score"].tolist() == [0.9, 0.895, 0.5]
    assert runs["max_memory_allocated"].tolist() == [100, 40, 30]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "setting,score,max_memory_allocated\né,0.9,1\n".encode("latin1"),
            "is not in UTF-8 (line 2): save it as UTF-8",
        ),
        (GOOD.replace("0.90", "0,90").encode(), "write decimal points, not decimal commas"),
        (b"setting;score;max_memory_allocated\na;0.9;36,200\nb;0.8;22,100\n", "36,200' is not a plain number: bytes"),
        (b'setting,score,max_memory_allocated\na,0.9,"36,200,000,000"\n', "is not a plain number: bytes; write digits"),
        (b"setting,score,max_memory_allocated\na,0.9,36.2 GB\n", "22 GiB is 23622320128"),
        (
            b"setting,score,max_memory_allocated\na,90%,3e10\n",
            "score = '90%' is not a plain number: write digits and a",
        ),
        (b"setting;points;max_memory_allocated\na;0.9;1\n", "lacks the column score (there is: setting, points"),
    ],
    ids=range(7),
)
def test_what_may_mean_two_numbers_is_refused_with_the_form_that_is_wanted(tmp_path: Path, content: bytes, words: str):
    with pytest.raises(UserError) as caught:
        csv_source.read(bytes_of(tmp_path, content), "max_memory_allocated")
    assert words in str(caught.value)


def test_a_column_with_a_decimal_comma_anywhere_has_decimal_commas(tmp_path: Path):
    text = "setting;score;max_memory_allocated\na;1,000;36,200\nb;0,985;22,1\n"
    runs = csv_source.read(file(tmp_path, text), "max_memory_allocated").runs
    assert runs["score"].tolist() == [1.0, 0.985]
    assert runs["max_memory_allocated"].tolist() == [36.2, 22.1]


PERPLEXITY = (
    "setting,score,max_memory_allocated,metric,direction\ngood,5,40,perplexity,minimize\nbad,9.9,30,perplexity,"
)


def test_the_direction_of_the_file_is_taken(tmp_path: Path):
    path = file(tmp_path, PERPLEXITY + "Minimize\n")
    study = csv_source.read(path, "max_memory_allocated")
    made = pipeline.build(study, 0.99, None, "max_memory_allocated")
    assert (made.decision.best, made.decision.selected) == ("good", "good")
    assert not any("direction" in note for note in study.notes)
    other = csv_source.read(path, "max_memory_allocated", "maximize")
    assert "direction=maximize was given; the file states minimize." in other.notes
    with pytest.raises(UserError, match="direction: the rows state maximize and minimize"):
        csv_source.read(file(tmp_path, PERPLEXITY + "maximize\n"), "max_memory_allocated")
    with pytest.raises(UserError, match="line 3: direction = 'up' must be maximize or minimize"):
        csv_source.read(file(tmp_path, PERPLEXITY + "up\n"), "max_memory_allocated")
    without = file(tmp_path, "setting,score,max_memory_allocated,metric\na,5,40,perplexity\nb,9,30,perplexity\n")
    with pytest.raises(UserError, match="the direction of perplexity is unknown"):
        pipeline.answer(options(without, tmp_path / "out"))


def test_a_report_s_own_runs_csv_gives_the_same_answer(tmp_path: Path):
    rows = "setting,score,max_memory_allocated,metric,direction,seed\na,5,40,perplexity,minimize,0\n"
    path = file(tmp_path, rows + "a,5.2,40,perplexity,minimize,1\nb,9,30,perplexity,minimize,0\n")
    pipeline.answer(options(path, tmp_path / "out"))
    first = json.loads((tmp_path / "out/recommendation.json").read_text())
    again = file(tmp_path, (tmp_path / "out/runs.csv").read_text())
    pipeline.answer(options(again, tmp_path / "again"))
    second = json.loads((tmp_path / "again/recommendation.json").read_text())
    assert first["selected"] == second["selected"] == "a"
    assert first["settings"] == second["settings"]
    running = csv_source.read(
        file(tmp_path, "setting,score,max_memory_allocated,outcome,running\na,1,2,ok,False\nb,,,running,True\n"),
        "max_memory_allocated",
    )
    assert running.unfinished == 1


def test_a_row_without_a_seed_gets_one_that_its_setting_does_not_have(tmp_path: Path):
    rows = "a,0.9,1,1\na,0.8,1,\na,0.7,1,0\na,0.6,1,\nb,0.5,1,\n"
    study = csv_source.read(file(tmp_path, "setting,score,max_memory_allocated,seed\n" + rows), "max_memory_allocated")
    assert study.runs["seed"].tolist() == [1, 2, 0, 3, 0]
    assert len(study.latest()) == 5


@pytest.mark.parametrize("name", ["results (1).csv", "été 2026.csv", "결과.csv", "it's #1 100%.csv"])
def test_the_command_of_a_report_can_be_pasted_for_any_file_name(tmp_path: Path, name: str):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    path = tmp_path / name
    path.write_text(GOOD)
    made = pipeline.of_study(
        csv_source.read(path, "max_memory_allocated"), options(path, tmp_path, allow_different=[], threshold=0.95)
    )
    source, threshold = (word for word in shlex.split(made.command) if word.startswith(("source=", "threshold=")))
    assert OverridesParser.create().parse_override(source).value() == str(path)
    assert threshold == "threshold=0.95"


def test_a_name_that_is_a_formula_is_text_in_the_files_and_comes_back(tmp_path: Path):
    name = '=HYPERLINK("http://x")'
    rows = f"setting,score,max_memory_allocated,=1+2\n{csv_cell(name)},0.9,4e9,@SUM(1)\n-0.5,0.8,3e9,-2\n"
    pipeline.answer(options(file(tmp_path, rows), tmp_path / "out"))
    for written in ("runs.csv", "settings.csv"):
        assert csv_cell(f"'{name}") in (tmp_path / "out" / written).read_text()
    again = csv_source.read(tmp_path / "out/runs.csv", "max_memory_allocated").runs
    assert again["setting"].tolist() == [name, "-0.5"]
    assert "'=1+2" in (tmp_path / "out/runs.csv").read_text().splitlines()[0]
    assert again["=1+2"].tolist() == ["@SUM(1)", "-2"]


def csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def test_a_disk_without_room_is_told_in_words(tmp_path: Path):
    path = file(tmp_path, GOOD)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1][1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written into .*out: File too large; make room"):
            pipeline.answer(options(path, tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[1])
        signal.signal(signal.SIGXFSZ, before[0])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["results.csv"]


def test_columns_in_another_unit_are_doubted(tmp_path: Path):
    text = "setting,score,max_memory_allocated,n_examples\na,90,36.2,500\nb,89.5,22.0,500\n"
    notes = " ".join(csv_source.read(file(tmp_path, text), "max_memory_allocated").notes)
    assert "max_memory_allocated is at most 36.2 bytes, less than any fine-tuning needs" in notes
    assert "The column n_examples is not used: it needs scores from 0 to 1, and these reach 90." in notes
    some = "setting,score,max_memory_allocated,n_examples\na,0.9,4e9,500\nb,0.8,3e9,\n"
    assert "n_examples is not used: some rows" in " ".join(
        csv_source.read(file(tmp_path, some), "max_memory_allocated").notes
    )


def test_conditions_that_differ_are_refused_and_can_be_allowed(tmp_path: Path):
    path = file(tmp_path, "setting,score,max_memory_allocated,conditions\na,1,1,A100\nb,1,2,H100\n")
    with pytest.raises(UserError, match=r"conditions: A100 \(a · seed 0\); H100 \(b · seed 0\)"):
        pipeline.answer(options(path, tmp_path / "out"))
    said = pipeline.answer(options(path, tmp_path / "out", allow_different=["conditions"]))
    assert "Allowed to differ between the runs: conditions (A100, H100)" in said
    assert "Not the same in all runs: conditions" in (tmp_path / "out/score_against_memory.svg").read_text()


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path):
    path, out = file(tmp_path, GOOD), tmp_path / "out"
    out.mkdir()
    (out / "runs.csv").write_text("mine")
    with pytest.raises(UserError, match="no report of this program"):
        pipeline.answer(options(path, out))
    assert (out / "runs.csv").read_text() == "mine"
    (out / "runs.csv").unlink()

    def report(*names: str) -> None:
        def into(folder: Path) -> None:
            for name in names:
                (folder / name).write_text("new")
            (folder / writer.ANSWER).write_text(json.dumps({"study": "results", "files": [*names, writer.ANSWER]}))

        writer.replace_all(out, "results", into)

    report("runs.csv")
    (out / "notes.txt").write_text("mine")
    (out / "runs.csv").write_text("old")
    report("runs.csv", "chart.pdf")
    assert (out / "runs.csv").read_text() == "new"
    report("runs.csv")
    assert not list(out.glob("*.pdf"))  # of the older report
    assert (out / "notes.txt").read_text() == "mine"
    other = tmp_path / "other.csv"
    other.write_text(GOOD)
    with pytest.raises(UserError, match="report of study results"):
        pipeline.answer(options(other, out))


def test_the_facts_of_a_published_table(tmp_path: Path):
    """The four settings between which the picks of PEFT's MetaMathQA comparison of January 2026 lie: scores are shares
    of 1,319 items, memory is in bytes."""
    text = (
        "setting,score,max_memory_allocated,trainable_params,n_examples\n"
        "rslora,0.5322213798332069,22554869760,18350080,1319\nshira,0.5276724791508719,21678260224,9175040,1319\n"
        "bone,0.49128127369219105,20275265536,7340032,1319\nmiss,0.5072024260803639,20275265536,7340032,1319\n"
    )
    study = csv_source.read(file(tmp_path, text), "max_memory_allocated")
    for threshold, pick in ((0.99, "shira"), (0.97, "shira"), (0.95, "miss"), (0.90, "miss")):
        made = pipeline.build(study, threshold, None, "max_memory_allocated")
        assert made.decision.selected == pick
        assert not made.settings["confirmed"].any()
        assert (made.settings["p_right_pick"].max() < 0.95) == (threshold > 0.9)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("train_seconds", "-5", "must be at least 0"),
        ("energy_joules", "-1", "must be at least 0"),
        ("tokens_per_second", "1e308", "below 2^63"),
        ("max_memory_allocated", "-4e9", "must be above 0"),
        ("max_memory_allocated", "1e308", "below 2^63"),
        ("seed", "1e30", "must be a whole number of at least 0 and below 2^63"),
        ("seed", "-1", "must be a whole number of at least 0"),
        ("seed", "0.5", "must be a whole number"),
        ("n_examples", "1e30", "below 2^63"),
    ],
)
def test_figures_that_nothing_can_have_are_refused(tmp_path: Path, column: str, value: str, words: str):
    row = {"setting": "a", "score": "0.9", "max_memory_allocated": "4e9", column: value}
    path = file(tmp_path, f"{','.join(row)}\n{','.join(row.values())}\n")
    with pytest.raises(UserError) as caught:
        csv_source.read(path, "max_memory_allocated")
    assert f"line 2: {column} = " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(("scores", "doubted"), [((91, 0.91), True), ((0.91, 0.2), False), ((91, 45), False),
                                                 ((1.2, 0.9), False), ((250, 0.9), False)])  # fmt: skip
def test_percent_among_shares_is_doubted(tmp_path: Path, scores: tuple[float, float], doubted: bool):
    rows = "".join(f"s{number},{score},4e9\n" for number, score in enumerate(scores))
    notes = csv_source.read(file(tmp_path, f"setting,score,max_memory_allocated\n{rows}"), "max_memory_allocated").notes
    assert any("if some rows are in percent" in note for note in notes) == doubted


def test_a_setting_of_two_variants_is_refused(tmp_path: Path):
    rows = "setting,variant,score,max_memory_allocated\na,lora,0.9,4e9\na,fft,0.8,4e9\nb,,0.8,4e9\n"
    with pytest.raises(UserError, match="setting a has the variants fft and lora; it has one"):
        csv_source.read(file(tmp_path, rows), "max_memory_allocated")
