"""`cer` and `wer` against jiwer, and greedy decoding against its definition."""

import itertools
import sys

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.errors import UsageError
from onnxq.validation.tasks.text import CharacterErrorRate, WordErrorRate

LETTERS = tuple("abcd ")


def inputs(count):
    return {"audio": np.zeros((count, 16), np.float32)}


def scores_of(texts, blank=0, letters=LETTERS, steps=40):
    """Steps that read as these texts: each letter twice, blanks between."""
    out = np.zeros((len(texts), steps, len(letters) + 1), np.float32)
    for sample, text in enumerate(texts):
        best = np.full(steps, blank)
        for place, letter in enumerate(text):
            index = letters.index(letter)
            best[3 * place : 3 * place + 2] = index + (index >= blank)
        out[sample, np.arange(steps), best] = 5
    return out


def measured(kind, found, truth=None, reference=None, **options):
    metric = kind(**options)
    reference = found if reference is None else reference
    metric.update(inputs(len(found)), {"y": found}, truth, {"y": reference})
    return metric.compute()


text = st.text(alphabet="abcd ", max_size=13)


@given(st.lists(st.tuples(text, text), min_size=1, max_size=5), st.integers(0, 5))
def test_rates_are_those_of_jiwer(pairs, blank):
    # jiwer trims what it reads.
    pairs = [tuple(" ".join(side.split()) for side in pair) for pair in pairs]
    truth, found = [list(side) for side in zip(*pairs, strict=True)]
    if not any(truth):
        return
    options = {"classes": LETTERS, "blank": blank}
    cer = measured(CharacterErrorRate, scores_of(found, blank), truth, **options)
    wer = measured(WordErrorRate, scores_of(found, blank), truth, **options)
    edits = [
        jiwer.process_characters(a, b) if a else None for a, b in zip(truth, found, strict=True)
    ]
    total = sum(
        e.substitutions + e.deletions + e.insertions if e else len(b)
        for e, b in zip(edits, found, strict=True)
    )
    assert cer["CER"] == pytest.approx(100 * total / sum(map(len, truth)))
    if all(truth):
        assert wer["WER"] == pytest.approx(100 * jiwer.wer(truth, found))
    assert cer["texts equal"] == pytest.approx(
        100 * np.mean([a == b for a, b in zip(truth, found, strict=True)])
    )


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 3))
def test_greedy_decoding_joins_repeats_then_drops_blanks(steps, blank):
    expected = [key for key, _ in itertools.groupby(steps) if key != blank]
    scores = np.eye(4, dtype=np.float32)[steps][None]
    truth = ["".join("wxyz"[index] for index in expected)]
    if expected:
        got = measured(CharacterErrorRate, scores, truth, classes=tuple("wxyz"), blank=blank)
        assert got == {"CER": 0, "texts equal": 100}


def test_without_labels_the_float_model_is_the_truth_without_known_characters():
    found, exact = scores_of(["abc", "bd"]), scores_of(["abd", "bd"])
    got = measured(CharacterErrorRate, found, reference=exact)
    assert got == {"CER": pytest.approx(100 / 5), "texts equal": 50}
    assert measured(CharacterErrorRate, exact)["CER"] == 0


def test_words_without_labels_need_the_characters():
    found, exact = scores_of(["ab cd", "a b"]), scores_of(["ab cc", "a b"])
    got = measured(WordErrorRate, found, reference=exact, classes=LETTERS)
    assert got == {"WER": 25, "texts equal": 50}
    with pytest.raises(UsageError, match="a space is not known"):
        measured(WordErrorRate, found, reference=exact)


def test_integers_are_characters_and_time_may_come_first():
    indices = np.array([[1, 2, 0, 0], [3, 3, 1, 0]])
    classes = ("", *"abc")
    got = measured(CharacterErrorRate, indices, ["ab", "cca"], classes=classes)
    assert got == {"CER": 0, "texts equal": 100}
    turned = scores_of(["abc", "bd"]).swapaxes(0, 1)
    metric = CharacterErrorRate(classes=LETTERS)
    metric.update(inputs(2), {"y": turned}, ["abc", "bd"], {"y": turned})
    assert metric.compute()["CER"] == 0


def test_a_character_may_stand_for_the_space():
    letters = (*"abcd", "|")
    found = scores_of(["ab|cd", "a|b"], letters=letters)
    got = measured(WordErrorRate, found, ["ab cc", "a b"], classes=letters, space="|")
    assert got == {"WER": 25, "texts equal": 50}


def test_instances_of_later_batches_are_merged():
    found, exact = ["abc", "bd"], ["abd", "b"]
    parts = [CharacterErrorRate(classes=LETTERS) for _ in found]
    for metric, text, truth in zip(parts, found, exact, strict=True):
        scores = {"y": scores_of([text])}
        metric.update(inputs(1), scores, [truth], scores)
    parts[0].merge(parts[1])
    whole = measured(CharacterErrorRate, scores_of(found), exact, classes=LETTERS)
    assert parts[0].compute() == whole


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_dead_output_has_lost_every_letter(value):
    exact = scores_of(["abc", "bd"])
    got = measured(CharacterErrorRate, np.full_like(exact, value), reference=exact)
    assert got == {"CER": 100, "texts equal": 0}


def test_what_cannot_be_measured_is_said(monkeypatch):
    scores = scores_of(["abc"])
    with pytest.raises(UsageError, match="which character an index stands for") as caught:
        measured(CharacterErrorRate, scores, ["abc"])
    assert "--classes" in caught.value.hint
    with pytest.raises(UsageError, match="there are 3 characters, the model has 6"):
        measured(CharacterErrorRate, scores, ["abc"], classes=tuple("abc"))
    with pytest.raises(UsageError, match="the truth of 1 samples is empty"):
        measured(CharacterErrorRate, scores_of([""]))
    with pytest.raises(UsageError, match="cer compares with texts, the labels are int"):
        measured(CharacterErrorRate, scores, [1], classes=LETTERS)
    with pytest.raises(UsageError, match="no output is: y float32 1×2×3×4"):
        measured(CharacterErrorRate, np.zeros((1, 2, 3, 4), np.float32))
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(UsageError, match="cer needs the package rapidfuzz"):
        measured(CharacterErrorRate, scores)
