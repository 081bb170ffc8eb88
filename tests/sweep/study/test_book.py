"""The book under random interleavings: coordinators that die between any two writes lose, repeat and invent no run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sweep.core import process_identity
from sweep.study.book import Book, Claim
from sweep.study.book_tables import COORDINATORS, RUNS, database_now
from sweep.study.entry import Entry

SEEDS = (0, 1)


def book_at(storage: str, name: str) -> Book:
    """The book as a coordinator of another machine has it: its heartbeat alone says that it is alive."""
    book = Book(storage)
    book.me = f"{name}/elsewhere/1/1"
    book.open("study")
    book.beat()
    return book


def die(book: Book) -> None:
    """The coordinator's last heartbeat is a long time ago."""
    with book._begin() as c:
        old = database_now() - 2 * process_identity.SILENT_SECONDS
        c.execute(COORDINATORS.update().where(COORDINATORS.c.name == book.me).values(beat=old))


class Interleavings(RuleBasedStateMachine):
    """Coordinators that begin a command, claim, end a run, and die at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.alive: dict[str, tuple[Book, list[Claim]]] = {}
        self.wanted: set[tuple[str, int]] = set()
        self.done: Counter[tuple[str, int]] = Counter()
        self.final: set[tuple[str, int]] = set()

        self.folder = tempfile.TemporaryDirectory()
        self.storage = f"sqlite:///{self.folder.name}/optuna.db"

    @rule(settings_=st.sets(st.sampled_from("abc"), min_size=1))
    def command(self, settings_: set[str]) -> None:
        self.count += 1
        book = book_at(self.storage, f"c{self.count}")
        book.begin_command()
        book.retry()
        if not book.others():
            self.wanted = set()
        book.want([(key, {"x": key}) for key in sorted(settings_)], SEEDS)
        self.wanted |= {(key, seed) for key in settings_ for seed in SEEDS}
        self.alive[book.me] = (book, [])

    @rule(pick=st.randoms())
    def claim(self, pick) -> None:
        if self.alive:
            book, claims = pick.choice(list(self.alive.values()))
            if (claim := book.claim({claim.run for claim in claims})) is not None:
                assert (claim.key, claim.seed) not in self.final  # never again
                running = [(c.key, c.seed) for _, theirs in self.alive.values() for c in theirs]
                assert (claim.key, claim.seed) not in running  # never twice at a time
                assert claim.params == {"x": claim.key}
                claims.append(claim)

    @rule(pick=st.randoms())
    def claim_without_an_answer(self, pick) -> None:
        """The database has the claim, and the connection breaks before the coordinator knows."""
        if self.alive:
            book, claims = pick.choice(list(self.alive.values()))
            book.claim({claim.run for claim in claims})

    @rule(pick=st.randoms(), ok=st.booleans())
    def end(self, pick, ok: bool) -> None:
        busy = [(book, claims) for book, claims in self.alive.values() if claims]
        if busy:
            book, claims = pick.choice(busy)
            claim = claims.pop(pick.randrange(len(claims)))
            entry = Entry("ok", (1.0,)) if ok else Entry("failed", final=False)
            assert book.end(claim.run, entry)
            assert book.end(claim.run, entry)  # a second attempt after a lost answer
            if ok:
                self.done[claim.key, claim.seed] += 1
                self.final.add((claim.key, claim.seed))

    @rule(pick=st.randoms(), late=st.booleans())
    def crash(self, pick, late: bool) -> None:
        if self.alive:
            name = pick.choice(list(self.alive))
            book, claims = self.alive.pop(name)
            die(book)
            others = [other for other, _ in self.alive.values()]
            if late and claims and others and (taken := others[0].claim()) is not None:
                self.alive[others[0].me][1].append(taken)  # takes over, and then the silent one answers
                mine = [claim for claim in claims if claim.run == taken.run]
                assert not any(book.end(claim.run, Entry("ok", (2.0,))) for claim in mine)

    @invariant()
    def nothing_is_repeated(self) -> None:
        assert all(count == 1 for count in self.done.values())

    def teardown(self) -> None:
        """One more command, without a crash: every run that is wanted ends, and no other."""
        for book, _ in self.alive.values():
            die(book)
        last = book_at(self.storage, "last")
        last.begin_command()
        last.retry()
        keys = sorted({key for key, _ in self.wanted})
        last.want([(key, {"x": key}) for key in keys], SEEDS)
        while (claim := last.claim()) is not None:
            assert (claim.key, claim.seed) not in self.final
            self.final.add((claim.key, claim.seed))
            assert last.end(claim.run, Entry("ok", (1.0,)))
        assert self.wanted <= self.final
        assert last.left() == 0
        with last._begin() as c:
            assert set(c.scalars(RUNS.select().with_only_columns(RUNS.c.state))) <= {"ended"}
        self.folder.cleanup()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_a_setting_that_is_out_of_memory_gets_no_further_seed_until_it_runs_again():
    book = Book(None)
    book.open("study")
    book.want([("a", {}), ("b", {})], SEEDS)
    first = book.claim()
    assert book.end(first.run, Entry("oom", (None, 5.0)))
    assert (book.left(), book.claim().key, book.claim().key, book.claim()) == (2, "b", "b", None)
    book.again([first.run])
    assert (book.claim().seed, book.claim().seed) == (0, 1)


def test_what_waits_is_given_up_by_a_later_command_that_does_not_ask_for_it():
    book = Book(None)
    book.open("study")
    book.want([("a", {}), ("b", {})], (0,))
    assert book.end(book.claim().run, Entry("ok", (1.0,)))
    book.begin_command()
    book.want([("a", {})], (0,))
    assert book.claim() is None
    book.want([("b", {})], (0,))
    assert book.claim().key == "b"


CLAIMS = """
import sys
from sweep.study.book import Book
from sweep.study.entry import Entry
book = Book(sys.argv[1])
book.open("study")
book.beat()
while (claim := book.claim()) is not None:
    print(claim.key, claim.seed, flush=True)
    assert book.end(claim.run, Entry("ok", (1.0,)))
"""


@pytest.mark.slow
def test_processes_claim_each_run_once(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    book = Book(storage)
    book.open("study")
    book.want([(str(n), {}) for n in range(40)], SEEDS)
    command = [sys.executable, "-c", CLAIMS, storage]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    lines = [line for process in running for line in process.communicate(timeout=120)[0].splitlines()]
    assert sorted(lines) == sorted(f"{n} {seed}" for n in range(40) for seed in SEEDS)


def test_a_coordinator_of_this_machine_is_looked_up_and_another_one_must_beat(tmp_path: Path):
    code = "from sweep.core import process_identity; print(process_identity.identity())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process_identity.is_alive(process_identity.identity(), None)
    assert not process_identity.is_alive(ran.stdout.strip(), 0.0)
    host, place, pid, start = process_identity.identity().rsplit("/", 3)
    container = f"{host}/{place}0/{pid}/{start}"  # the same name and process id in another container
    assert process_identity.is_alive(container, 10.0)
    assert not process_identity.is_alive(container, process_identity.SILENT_SECONDS + 1)
    assert not process_identity.is_alive("damaged", None)


def test_a_record_comes_back_as_it_was():
    book = Book(None)
    book.open("study", "row1")
    book.want([("a", {})], (7,))
    record = {"setting": "a", "facts": {"mlflow_run_id": "r1", "exit_kind": "crashed"}, "measurements": {"score": 0.1}}
    claim = book.claim()
    book.end(claim.run, Entry("killed", final=False, record=record, unsent=True))
    assert book.records() == {claim.run: json.loads(json.dumps(record))}
    assert book.rows() == {"r1": claim.run}
    assert book.crashes() == {("a", 7): 1}
    assert [unsent.run for unsent in book.unsent()] == [claim.run]
    book.set_sent(claim.run, "r2")
    assert (book.unsent(), book.rows()) == ([], {"r2": claim.run})


def test_a_claim_whose_answer_was_lost_is_given_again():
    book = Book(None)
    book.open("study")
    book.want([("a", {}), ("b", {})], (0,))
    first = book.claim([])
    assert book.claim([]) == first
    assert book.claim([first.run]).key == "b"
