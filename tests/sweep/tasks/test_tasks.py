"""Tasks: what a model is given, what of it trains, and that scores are of what they say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from small_tasks import (
    GRADES,
    PAIRS,
    REVIEWS,
    Nothing,
    classification,
    evaluate,
    fit,
    generation,
    loaded,
    regression,
    without_dropout,
)
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from sweep.core.errors import UserError
from sweep.datasets import Dataset, Example, Splits
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.f1 import F1
from sweep.metrics.pearson import Pearson
from sweep.metrics.perplexity import Perplexity
from sweep.models.pretrained import Pretrained
from sweep.tasks import IGNORED, Task
from sweep.tasks.batching import by_length, padded
from sweep.tasks.classification import Classification
from sweep.tasks.generation import Generation, pad_batch
from sweep.tasks.prompt_format import Format, within
from sweep.tasks.seq2seq import Seq2Seq

# Classification


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (checkpoints.distilbert, "classification"),
        (checkpoints.gpt2, "classification"),
        (checkpoints.bert, "regression"),
        (checkpoints.gpt2, "generation"),
        (checkpoints.t5, "seq2seq"),
    ],
)
def test_accumulated_micro_batches_equal_one_batch(tmp_path: Path, make: Any, kind: str):
    """transformers divides by the labels of the whole batch, which some models do not look at, and takes one label per
    example for tokens: without care, gradients accumulate to as many times too much as there are micro-batches.
    ModelOutputs here are of very different lengths, so that a mean over micro-batches is not that over labels."""
    pairs: list[Example] = [{"prompt": "say", "response": "a" * (1 + 9 * (i % 3))} for i in range(8)]
    task, examples = {
        "classification": (classification(), REVIEWS[:8]),
        "regression": (regression(), GRADES[:8]),
        "generation": (generation(), pairs),
        "seq2seq": (generation(Seq2Seq), pairs),
    }[kind]
    make(tmp_path)
    results = []
    for micro, accumulation in ((8, 1), (2, 4)):
        model, tokenizer = loaded(task, tmp_path)
        without_dropout(model)
        norms: list[float] = []
        clip = torch.nn.utils.clip_grad_norm_

        def recorded(parameters: Any, *args: Any, norms: list[float] = norms, clip: Any = clip, **kwargs: Any) -> Any:
            norm = clip(parameters, *args, **kwargs)
            norms.append(float(norm))
            return norm

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.utils, "clip_grad_norm_", recorded)
            losses = fit(
                model, task, tokenizer, examples, micro_batch_size=micro, gradient_accumulation_steps=accumulation
            )
        results.append((losses[0], norms[0]))
    assert results[0][1] > 0
    assert results[0] == pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize("make", [checkpoints.distilbert, checkpoints.gpt2])
def test_an_example_s_label_does_not_depend_on_its_batch(tmp_path: Path, make: Any):
    """Padding is masked, also where the padding token is the end token and a decoder looks for the last token."""
    task = classification()
    make(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    together = evaluate(task, model, tokenizer, REVIEWS, batch=24).rows
    alone = evaluate(task, model, tokenizer, REVIEWS, batch=1).rows
    assert [row["prediction"] for row in together] == [row["prediction"] for row in alone]
    assert [row["confidence"] for row in together] == pytest.approx([row["confidence"] for row in alone], rel=1e-4)


def test_a_classifier_learns_and_its_rows_say_how(tmp_path: Path):
    task = classification(metrics={"accuracy": Accuracy(), "f1": F1(average="macro")})
    checkpoints.distilbert(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    assert model.config.id2label == {0: "neg", 1: "pos"}
    fit(model, task, tokenizer, REVIEWS, rate=5e-3, max_steps=60)
    model.eval()
    found = evaluate(task, model, tokenizer, REVIEWS)
    assert found.scores["accuracy"] == 1.0
    assert found.facts == {"corpus.f1": F1(average="macro").facts()["corpus"]}
    assert found.rows[1] | {"confidence": 1.0} == {
        "index": 1,
        "text": REVIEWS[1]["text"],
        "reference": "pos",
        "prediction": "pos",
        "confidence": 1.0,
        "accuracy": 1.0,
        "f1/tp_0": 0.0,
        "f1/fp_0": 0.0,
        "f1/fn_0": 0.0,
        "f1/tp_1": 1.0,
        "f1/fp_1": 0.0,
        "f1/fn_1": 0.0,
    }


def test_pairs_and_truncation_are_the_tokenizer_s_own(tmp_path: Path):
    task = classification()
    checkpoints.bert(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    examples: list[Example] = [
        {"text": "the film was good", "text_pair": "the story was very very bad", "label": "neg"},
        {"text": "it", "text_pair": "it", "label": "pos"},
    ]
    rows = task.encode(tokenizer, examples, 9)
    assert rows.truncated == 1
    own = tokenizer("the film was good", "the story was very very bad", truncation=True, max_length=9)
    assert rows[0]["input_ids"] == own["input_ids"]
    assert rows[0]["token_type_ids"] == own["token_type_ids"]
    batch = task.collator(tokenizer)(rows)
    assert batch["input_ids"].shape == (2, 9)
    assert batch["attention_mask"].sum(1).tolist() == [9, 5]
    assert batch["labels"].tolist() == [0, 1]


def test_evaluation_cuts_where_training_cut(tmp_path: Path):
    task = classification()
    checkpoints.distilbert(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    long: Example = {"text": "good " * 600, "label": "pos"}
    assert evaluate(task, model, tokenizer, [long, REVIEWS[0]]).truncated == 1  # by the model's 512 positions
    cut = evaluate(task, model, tokenizer, [{**REVIEWS[3], "text": "good bad"}, REVIEWS[3]], max_length=3)
    assert cut.truncated == 2
    tokenizer.model_max_length = 4  # training does not look at it
    rows = [row["confidence"] for row in evaluate(task, model, tokenizer, REVIEWS, max_length=64).rows]
    with torch.no_grad():
        whole = [model(**tokenizer(e["text"], return_tensors="pt")).logits.softmax(-1).max() for e in REVIEWS]
    assert rows == pytest.approx([float(value) for value in whole], rel=1e-5)


def test_prompts_and_likelihoods_that_were_cut_are_counted_once_each(tmp_path: Path):
    checkpoints.gpt2(tmp_path, positions=32)
    task = generation()
    model, tokenizer = loaded(task, tmp_path)
    pairs: list[Example] = [PAIRS[0], {"prompt": "x" * 15, "response": "y"}, {"prompt": "x" * 40, "response": "y"}]
    assert evaluate(task, model, tokenizer, pairs, max_length=16).truncated == 2


@pytest.mark.parametrize(
    ("train", "validation", "changes", "message"),
    [
        ([{"text": "a", "label": "x"}], None, {}, "the train split has no label but 'x'"),
        (None, [{"text": "a", "label": "neg"}] * 3, {}, r"the validation split has no label but 'neg' \(3 examples\)"),
        ([{"text": "a"}, {"text": "b"}], None, {}, "columns.label is not given.*there is: body, mark"),
        ([{"label": "a"}, {"label": "b"}], None, {}, "columns.text is not given"),
        (
            None,
            [{"body": "a", "label": "neg"}],
            {"columns": ("text",)},
            "no row of the validation split has a text: its column 'text' is missing, or is empty",
        ),
        ([*REVIEWS, {"text": "unmarked"}], None, {}, "example 25 of the train split has no label: .*unmarked"),
        ([*REVIEWS, {"text": "blank", "label": " "}], None, {}, "has no label: .*blank"),
        (None, None, {"labels": ["neg", "positive"]}, "the data also has 'pos'; there is: neg, positive"),
        (None, None, {"metrics": {"accuracy": F1(average="binary", positive_label="yes")}}, "'yes' is not a label"),
    ],
)
def test_labels_that_a_model_cannot_learn_from_are_refused(train: Any, validation: Any, changes: Any, message: str):
    columns = changes.pop("columns", ("body", "mark"))
    task = replace(classification(), **{"labels": None, **changes})
    with pytest.raises(UserError, match=message):
        task.bind(Splits(train=train or REVIEWS, validation=validation or REVIEWS, columns=columns))


def test_labels_by_number_are_in_order_of_value():
    splits = Splits(train=[{"text": "a", "label": str(i)} for i in (10, 9, 2)], validation=REVIEWS)
    numbers = Splits(train=splits.train, validation=splits.train)
    assert replace(classification(), labels=None).bind(numbers).labels == ["2", "9", "10"]


def test_labels_are_in_the_data_set_s_own_order_where_it_has_one():
    """GLUE's MRPC has not_equivalent before equivalent, which is what F1 is about."""
    rows: list[Example] = [{"text": "a", "label": label} for label in ("equivalent", "not_equivalent")]
    names = ("not_equivalent", "equivalent")
    task = replace(classification(), labels=None, metrics={"accuracy": F1(average="binary")})
    assert task.bind(Splits(train=rows, validation=rows)).labels == list(reversed(names))
    bound = task.bind(Splits(train=rows, validation=rows, labels=names))
    assert bound.labels == list(names)
    assert bound.metrics["accuracy"].score(["equivalent"] * 2, ["equivalent", "not_equivalent"]) == pytest.approx(2 / 3)


def test_a_column_of_texts_is_not_taken_for_labels():
    rows: list[Example] = [{"text": "a", "label": f"an answer {i}"} for i in range(80)]
    with pytest.raises(UserError, match=r"80 different labels for 80 training examples.*task=regression"):
        replace(classification(), labels=None).bind(Splits(train=rows, validation=rows))


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (checkpoints.bert, classification()),
        (checkpoints.gpt2, generation()),
        (checkpoints.t5, generation(Seq2Seq)),
    ],
)
def test_smoothed_labels_have_pytorch_s_loss(tmp_path: Path, make: Any, task: Task):
    make(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    without_dropout(model)
    examples = (REVIEWS if isinstance(task, Classification) else PAIRS)[:8]
    batch = task.collator(tokenizer)(task.encode(tokenizer, examples, 64))
    with torch.no_grad():
        logits, labels = model(**batch).logits, batch["labels"]
    if task.is_causal:
        logits, labels = logits[:, :-1], labels[:, 1:]
    logits, labels = logits.flatten(0, -2), labels.flatten()
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2, ignore_index=IGNORED)
    changes = {"label_smoothing": 0.2, "micro_batch_size": 2, "gradient_accumulation_steps": 4}
    assert fit(model, task, tokenizer, examples, **changes) == pytest.approx([float(expected)], rel=1e-4)


# Regression


def test_a_regression_learns_numbers(tmp_path: Path):
    checkpoints.bert(tmp_path)
    task = regression().bind(Splits(train=GRADES, validation=GRADES))
    distinct: list[Example] = [{"text": f"{'good ' * i}bad", "label": str(i - 2.5)} for i in range(8)]
    model, tokenizer = loaded(task, tmp_path)
    losses = fit(model, task, tokenizer, distinct, rate=1e-2, max_steps=60)
    assert losses[-1] < 0.5 * losses[0]
    found = evaluate(task, model.eval(), tokenizer, distinct)
    assert found.scores["pearson"] > 0.8
    assert found.facts.keys() == {"corpus.pearson", "corpus.spearman"}


@pytest.mark.parametrize(
    ("label", "message"),
    [("good", "'good', which is not a number; use task=classification"), ("nan", "not a number"),
     ("1", "has no label but 1")],
)  # fmt: skip
def test_labels_that_are_not_numbers_are_refused(label: str, message: str):
    rows: list[Example] = [{"text": "a", "label": "1"}, {"text": "b", "label": label}]
    with pytest.raises(UserError, match=message):
        regression().bind(Splits(train=rows, validation=GRADES))


def test_metrics_are_for_labels_or_for_numbers():
    assert "not about numbers" in dict(replace(regression(), metrics={"pearson": Accuracy()}).faults())["metrics"]
    message = dict(replace(classification(), metrics={"accuracy": Accuracy(), "r": Pearson()}).faults())
    assert "task=regression" in message["metrics"]


# Generation


@pytest.mark.parametrize("make", [checkpoints.llama, checkpoints.gpt2])
def test_batched_generation_equals_one_by_one(tmp_path: Path, make: Any):
    """Padding on the left moves nothing, neither relative positions nor GPT-2's absolute ones."""
    task = generation()
    make(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    together = evaluate(task, model, tokenizer, PAIRS, batch=20)
    alone = evaluate(task, model, tokenizer, PAIRS, batch=1)
    assert [row["prediction"] for row in together.rows] == [row["prediction"] for row in alone.rows]
    assert together.scores["perplexity"] == pytest.approx(alone.scores["perplexity"], rel=1e-5)


@pytest.mark.parametrize(("make", "kind"), [(checkpoints.gpt2, Generation), (checkpoints.t5, Seq2Seq)])
def test_perplexity_is_the_model_s_own_loss(tmp_path: Path, make: Any, kind: type):
    task = generation(kind)
    make(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    total = count = 0.0
    for row in task.encode(tokenizer, PAIRS, 64):
        inputs = {key: torch.tensor([value]) for key, value in row.items()}
        labels = [label for label in row["labels"] if label != IGNORED]
        with torch.no_grad():
            total += float(model(**inputs).loss) * len(labels)
        count += len(labels)
    found = evaluate(task, model, tokenizer, PAIRS)
    assert found.scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert sum(row["perplexity/tokens"] for row in found.rows) == count


def test_nothing_is_generated_where_no_metric_asks_for_it(tmp_path: Path):
    task = generation(metrics={"perplexity": Perplexity()}, score="perplexity")
    checkpoints.gpt2(tmp_path)
    model, tokenizer = loaded(task, tmp_path)
    model.generate = None
    assert "prediction" not in evaluate(task, model, tokenizer, PAIRS).rows[0]


def test_a_prompt_leaves_room_for_its_response(tmp_path: Path):
    task = generation()
    checkpoints.gpt2(tmp_path, positions=32)
    model, tokenizer = loaded(task, tmp_path)
    long: Example = {"prompt": "x" * 100, "response": " y"}
    assert evaluate(task, model, tokenizer, [long, PAIRS[0]], max_length=32).truncated == 1
    with pytest.raises(UserError, match="leaves no room for a prompt in the model's 32 positions"):
        evaluate(generation(max_new_tokens=32), model, tokenizer, PAIRS)


def test_sampling_settings_of_a_checkpoint_do_not_undo_greedy(tmp_path: Path):
    """Chat models come with temperature and top_p in their generation_config."""
    checkpoints.llama(tmp_path)
    task = generation()
    model, tokenizer = loaded(task, tmp_path)
    greedy = [row["prediction"] for row in evaluate(task, model, tokenizer, PAIRS).rows]
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    model.generation_config.top_p = 0.9
    for _ in range(2):
        assert [row["prediction"] for row in evaluate(task, model, tokenizer, PAIRS).rows] == greedy
    assert [row["prediction"] for row in evaluate(generation(temperature=5.0), model, tokenizer, PAIRS).rows] != greedy


def test_a_chat_model_s_own_end_of_turn_ends_a_response(tmp_path: Path):
    checkpoints.llama(tmp_path)
    task = generation()
    model, tokenizer = loaded(task, tmp_path)
    first = model.generate(torch.tensor([[5]]), max_new_tokens=1, do_sample=False)[0, -1].item()
    model.generation_config.eos_token_id = [1, first]
    out = task._sequences(model, tokenizer, {"input_ids": torch.tensor([[5]])}, set())
    assert out.shape[1] == 2


CONVERSATION: list[Example] = [
    {
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": "bye"},
            {"role": "assistant", "content": "farewell"},
        ]
    }
]


def test_the_loss_is_on_every_answer_of_a_conversation_and_on_nothing_else(tmp_path: Path):
    checkpoints.llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    [dialogue] = Format().dialogues(tokenizer, CONVERSATION)
    whole = "<|system|>be kind</s><|user|>hi</s><|assistant|>hello</s><|user|>bye</s><|assistant|>farewell</s>"
    assert tokenizer.decode(dialogue.ids) == whole
    assert tokenizer.decode([label for label in dialogue.labels if label != IGNORED]) == "hello</s>farewell</s>"
    assert tokenizer.decode(dialogue.ids[: dialogue.answer]) == whole.removesuffix("farewell</s>")
    assert (dialogue.reference, dialogue.prompt_text) == ("farewell", whole.removesuffix("farewell</s>"))


def test_a_template_that_rewrites_the_past_leaves_the_last_answer(tmp_path: Path):
    checkpoints.llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    forgetful = (
        "{% for m in messages %}{{ m.role }}:{% if m.role != 'assistant' or loop.last %}{{ m.content }}{% endif %};"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    [dialogue] = Format(template=forgetful).dialogues(tokenizer, CONVERSATION)
    assert tokenizer.decode(dialogue.ids) == "system:be kind;user:hi;assistant:;user:bye;assistant:farewell;</s>"
    assert tokenizer.decode([label for label in dialogue.labels if label != IGNORED]) == "farewell;</s>"


def test_pairs_become_conversations_on_request(tmp_path: Path):
    checkpoints.llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    [dialogue] = Format(apply_chat_template=True, system_prompt="be brief").dialogues(
        tokenizer, [{"prompt": "hi", "response": "yo"}]
    )
    assert tokenizer.decode(dialogue.ids) == "<|system|>be brief</s><|user|>hi</s><|assistant|>yo</s>"
    checkpoints.gpt2(tmp_path / "plain")
    with pytest.raises(UserError, match="no chat template; take an instruction-tuned model"):
        Format(apply_chat_template=True).dialogues(AutoTokenizer.from_pretrained(tmp_path / "plain"), PAIRS)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "example 1: messages must be a list"),
        ([{"role": "user"}], "example 1: messages must be a list"),
        ([{"role": "user", "content": "x"}], "no message is by the assistant, only by: user"),
        ([], "only by: nobody"),
    ],
)
def test_malformed_conversations_are_refused(tmp_path: Path, messages: Any, message: str):
    checkpoints.llama(tmp_path)
    with pytest.raises(UserError, match=message):
        Format().dialogues(AutoTokenizer.from_pretrained(tmp_path), [{"messages": messages}])


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([{"prompt": "x"}], "columns.response is not given, and no column is named 'response'"),
        ([{"response": "x"}], "did you mean prmpt"),
    ],
)
def test_a_missing_role_is_reported(examples: list[Example], message: str):
    with pytest.raises(UserError, match=message):
        generation().bind(Splits(train=examples, validation=PAIRS, columns=("prmpt", "answer")))


def test_what_is_cut_and_what_is_dropped_is_counted(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    pairs: list[Example] = [
        {"prompt": "ab", "response": "c"},
        {"prompt": "ab", "response": "cdefg"},
        {"prompt": "abcdefgh", "response": "i"},
    ]
    rows = within(Format().dialogues(tokenizer, pairs), 5)
    assert (len(rows), rows.truncated, rows.dropped) == (2, 1, 1)


# Packing


@pytest.mark.parametrize("make", [checkpoints.llama, checkpoints.gpt2])
def test_packed_examples_have_the_loss_and_gradients_of_unpacked_ones(tmp_path: Path, make: Any):
    make(tmp_path)
    plain, packed = generation(), generation(packing=True)
    model, tokenizer = loaded(plain, tmp_path)
    results = []
    for task in (plain, packed):
        rows = task.encode(tokenizer, PAIRS, 64)
        batch = task.collator(tokenizer)(rows)
        tokens = batch.pop("tokens", None)
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
        results.append((float(loss.detach()), gradients, len(rows), tokens, batch["input_ids"].numel()))
    (loss, gradients, count, _, size), (packed_loss, packed_gradients, packed_count, tokens, packed_size) = results
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-4, atol=1e-6)
    assert packed_count < count / 2
    assert packed_size < size
    assert int(tokens) == sum(len(row["input_ids"]) for row in plain.encode(tokenizer, PAIRS, 64))
    packed.verify(model, packed.encode(tokenizer, PAIRS, 64))


def test_packing_is_refused_where_a_model_mixes_examples(tmp_path: Path):
    checkpoints.llama(tmp_path)
    task = generation(packing=True)
    model, tokenizer = loaded(task, tmp_path)

    class Mixing(torch.nn.Module):
        """An architecture that looks at no positions: all of a row is one text."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> Any:
            return self.inner(input_ids=input_ids)

    with pytest.raises(UserError, match="does not separate packed examples"):
        task.verify(Mixing(), task.encode(tokenizer, PAIRS, 64))


def test_a_packed_model_trains(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    task = generation(packing=True)
    model, tokenizer = loaded(task, tmp_path)
    losses = fit(model, task, tokenizer, PAIRS, max_steps=20, micro_batch_size=2)
    assert losses[-1] < losses[0] - 0.3


# Encoder and decoder


def test_an_encoder_and_decoder_learns_and_answers(tmp_path: Path):
    checkpoints.t5(tmp_path)
    task = generation(Seq2Seq)
    model, tokenizer = loaded(task, tmp_path)
    rows = task.encode(tokenizer, PAIRS, 5)
    assert rows.truncated == len(PAIRS)
    assert all(row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id for row in rows)
    batch = task.collator(tokenizer)(rows)
    assert int(batch["tokens"]) == sum(len(row["input_ids"]) + len(row["labels"]) for row in rows)
    same: list[Example] = [{"prompt": f"say {i}", "response": "yes"} for i in range(8)]
    losses = fit(model, task, tokenizer, same, max_steps=60)
    assert losses[-1] < losses[0]
    model.eval()
    found = evaluate(task, model, tokenizer, same, max_length=64)
    alone = evaluate(task, model, tokenizer, same, batch=1)
    assert [row["prediction"] for row in found.rows] == [row["prediction"] for row in alone.rows]
    assert "</s>" not in found.rows[0]["prediction"]


def test_what_only_causal_models_can_do_is_a_fault():
    assert {
        key for key, _ in generation(Seq2Seq, packing=True, apply_chat_template=True, off_task_data=Nothing()).faults()
    } == {
        "packing",
        "apply_chat_template",
        "off_task_data",
    }
    assert AutoModelForSeq2SeqLM is generation(Seq2Seq).auto_class()
    assert AutoModelForCausalLM is generation().auto_class()


# Forgetting


class Elsewhere(Dataset):
    def load(self) -> Splits:
        texts: list[Example] = [{"text": "some other words"}, {"text": "and more of them, elsewhere"}]
        return Splits(train=texts, validation=texts)


def test_the_loss_outside_the_task_is_the_model_s_own(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    task = generation(off_task_data=Elsewhere())
    model, tokenizer = loaded(task, tmp_path)
    total = count = 0.0
    for example in Elsewhere().load().validation:
        ids = tokenizer(example["text"], return_tensors="pt")["input_ids"]
        total += float(model(input_ids=ids, labels=ids).loss.detach()) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert task.off_task_metrics(model, tokenizer, 64) == {"off_task_loss": pytest.approx(total / count, rel=1e-5)}
    assert generation().off_task_metrics(model, tokenizer, 64) == {}


# Batches


def test_batches_by_length_and_padding():
    assert list(by_length([1, 5, 3, 4], 2)) == [[1, 3], [2, 0]]
    assert list(by_length([2, 3, 3, 2], 4, equal=True)) == [[1, 2], [0, 3]]
    assert padded([[1], [2, 3]], 0, left=True).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("make", [checkpoints.gpt2, checkpoints.llama])
def test_an_empty_text_or_prompt_is_no_empty_row(tmp_path: Path, make: Any):
    """GPT-2's tokenizer opens no text, so that an empty one has no token at all."""
    make(tmp_path)
    blank: list[Example] = [{"text": "", "label": "neg"}, *REVIEWS[:2]]
    model, tokenizer = loaded(classification(), tmp_path)
    together, alone = (evaluate(classification(), model, tokenizer, blank, batch=size).rows for size in (3, 1))
    assert together[0]["confidence"] == pytest.approx(alone[0]["confidence"], rel=1e-4)
    asked: list[Example] = [{"prompt": "", "response": "yes"}, *PAIRS[:2]]
    model, tokenizer = loaded(generation(), tmp_path)
    [row, *_] = generation().encode(tokenizer, asked, 64)
    assert row["labels"] == [IGNORED, *row["input_ids"][1:]]
    together, alone = (evaluate(generation(), model, tokenizer, asked, batch=size).rows for size in (3, 1))
    assert together[0]["prediction"] == alone[0]["prediction"]
    assert together[0]["perplexity/tokens"] == 4


def test_padding_by_length_keeps_the_true_end_where_pad_is_the_end(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    tokenizer = Pretrained(path=str(tmp_path)).load_tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rows = generation().encode(tokenizer, [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": "bcd"}], 64)
    batch = pad_batch(tokenizer)(rows)
    assert batch["labels"][0].tolist()[1:3] == rows[0]["input_ids"][1:]
    assert batch["labels"][0].tolist()[2] == tokenizer.eos_token_id
    assert batch["attention_mask"].sum(1).tolist() == [3, 5]
