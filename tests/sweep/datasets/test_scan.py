"""The embedded data equals the published set, and a second interpreter of the grammar agrees with every pair."""

from __future__ import annotations

from sweep.datasets import scan


def test_digest_is_the_published_one():
    assert scan.digest() == "6be4b39bc8bf3a20be810b6991250d0493e608560609db6765dd679e1ed1c98e"


def test_the_template_split_has_the_published_sizes():
    assert (len(scan.pairs()), len(scan.base_examples()), len(scan.adaptation_examples())) == (20910, 15225, 5685)


def interpret(command: str) -> list[str]:
    """Lake & Baroni's figure 2, read bottom-up from the words instead of top-down from the grammar."""
    words = command.split()
    for joint in ("and", "after"):
        if joint in words:
            at = words.index(joint)
            left, right = interpret(" ".join(words[:at])), interpret(" ".join(words[at + 1 :]))
            return left + right if joint == "and" else right + left
    if words[-1] in ("twice", "thrice"):
        return interpret(" ".join(words[:-1])) * {"twice": 2, "thrice": 3}[words[-1]]
    act = [] if words[0] == "turn" else [f"I_{words[0].upper()}"]
    turn = [f"I_TURN_{words[-1].upper()}"] if words[-1] in ("left", "right") else []
    if "around" in words:
        return (turn + act) * 4
    return turn * (2 if "opposite" in words else 1) + act


def test_every_pair_equals_the_result_of_a_second_interpreter():
    wrong = [command for command, actions in scan.pairs() if interpret(command) != actions.split()]
    assert wrong == []


def test_train_and_validation_are_disjoint_and_the_validation_set_does_not_move():
    small = scan.ScanAroundRight(n_train=100, n_validation=300).load()
    large = scan.ScanAroundRight(n_train=5000, n_validation=300).load()
    assert list(small.validation) == list(large.validation)
    prompts = [example["prompt"] for example in (*large.train, *large.validation)]
    assert len(set(prompts)) == 5300
    assert all("around right" in prompt for prompt in prompts)
