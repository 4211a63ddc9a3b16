"""`spearman` and `cosine` against the definitions, pooled by the mask."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxq.errors import UsageError
from onnxq.validation.tasks.embedding import EmbeddingCosine, PairSpearman

RNG = np.random.default_rng(0)
TOKENS = RNG.standard_normal((12, 5, 8)).astype(np.float32)
LENGTHS = RNG.integers(1, 6, 12)
MASK = (np.arange(5) < LENGTHS[:, None]).astype(np.int64)
INPUTS = {"input_ids": MASK * 7, "attention_mask": MASK}
POOLED = np.stack([t[:n].mean(axis=0) for t, n in zip(TOKENS, LENGTHS, strict=True)])
NOISY = TOKENS + RNG.normal(0, 0.3, TOKENS.shape).astype(np.float32)
NOISY_POOLED = np.stack([t[:n].mean(axis=0) for t, n in zip(NOISY, LENGTHS, strict=True)])
SCORES = [float(each) for each in RNG.permutation(6)]


def cosines(left, right):
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def rank_correlation(left, right):
    """pandas': scipy's definition."""
    ranks = pd.DataFrame({"a": left, "b": right}).rank()
    return 100 * np.corrcoef(ranks["a"], ranks["b"])[0, 1]


def measured(kind, outputs, labels=None, reference=TOKENS, inputs=INPUTS, batch=12, **options):
    metric = kind(**options)
    for start in range(0, len(outputs), batch):
        rows = slice(start, start + batch)
        metric.update(
            {name: array[rows] for name, array in inputs.items()},
            {"ids": np.zeros((1, 2), np.int64), "states": outputs[rows]},
            None if labels is None else labels[rows],
            {"ids": np.zeros((1, 2), np.int64), "states": reference[rows]},
        )
    return metric.compute()


@pytest.mark.parametrize("batch", [12, 5])
@pytest.mark.parametrize("second", [[None] * 6, SCORES])
def test_spearman_with_scores(batch, second):
    got = measured(PairSpearman, NOISY, SCORES + second, batch=batch)
    similar = cosines(NOISY_POOLED[:6], NOISY_POOLED[6:])
    assert got == {"Spearman": pytest.approx(rank_correlation(similar, SCORES))}


def test_spearman_against_the_float_model():
    got = measured(PairSpearman, NOISY)["Spearman"]
    exact = cosines(POOLED[:6], POOLED[6:])
    assert got == pytest.approx(
        rank_correlation(cosines(NOISY_POOLED[:6], NOISY_POOLED[6:]), exact)
    )
    assert measured(PairSpearman, TOKENS)["Spearman"] == pytest.approx(100)


@given(st.lists(st.integers(0, 4), min_size=4, max_size=12), st.integers(0, 2**32 - 1))
def test_equal_scores_and_similarities_share_their_rank(scores, seed):
    rows = np.random.default_rng(seed).integers(-1, 2, (2 * len(scores), 3)).astype(np.float32)
    rows[:, 0] = 1
    similar = np.round(cosines(*np.split(rows.astype(np.float64), 2)), 9)
    if len(set(scores)) < 2 or len(set(similar)) < 2:
        return
    labels = [*map(float, scores)] * 2
    got = measured(PairSpearman, rows, labels, rows, {"x": rows}, batch=len(rows))
    assert got["Spearman"] == pytest.approx(rank_correlation(similar, scores))


def test_cosine_is_the_mean_over_samples_of_pooled_embeddings():
    got = measured(EmbeddingCosine, NOISY, batch=5)
    each = cosines(POOLED, NOISY_POOLED)
    assert got["cosine"] == pytest.approx(each.mean())
    assert got["least cosine"] == pytest.approx(each.min())
    assert measured(EmbeddingCosine, TOKENS)["cosine"] == pytest.approx(1)


def test_states_behind_the_mask_do_not_matter_even_if_not_finite():
    spoiled = np.where(MASK[..., None] != 0, NOISY, np.inf)
    assert measured(EmbeddingCosine, spoiled) == measured(EmbeddingCosine, NOISY)


def test_pools_and_masks_are_chosen():
    got = measured(EmbeddingCosine, NOISY, pool="first")["cosine"]
    assert got == pytest.approx(cosines(TOKENS[:, 0], NOISY[:, 0]).mean())
    unmasked = {"input_ids": MASK}
    got = measured(EmbeddingCosine, NOISY, inputs=unmasked)["cosine"]
    assert got == pytest.approx(cosines(TOKENS.mean(1), NOISY.mean(1)).mean())
    named = {"valid": MASK}
    got = measured(EmbeddingCosine, NOISY, inputs=named, mask="valid")
    assert got == measured(EmbeddingCosine, NOISY)


def test_embeddings_of_a_sample_are_taken_as_they_are():
    got = measured(EmbeddingCosine, NOISY_POOLED, reference=POOLED)
    assert got["cosine"] == pytest.approx(cosines(POOLED, NOISY_POOLED).mean())


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_dead_embedding_is_worth_nothing(value):
    dead = np.full_like(TOKENS, value)
    assert measured(EmbeddingCosine, dead) == {"cosine": 0, "least cosine": 0}
    assert measured(PairSpearman, dead) == {"Spearman": 0}
    assert measured(PairSpearman, dead, SCORES * 2) == {"Spearman": 0}


def test_class_indices_of_the_data_are_no_scores():
    assert measured(PairSpearman, NOISY, np.arange(12)) == measured(PairSpearman, NOISY)


@pytest.mark.parametrize("kind", [PairSpearman, EmbeddingCosine])
def test_instances_of_later_batches_are_merged(kind):
    parts = [kind(), kind()]
    for metric, rows in zip(parts, (slice(0, 7), slice(7, 12)), strict=True):
        inputs = {name: array[rows] for name, array in INPUTS.items()}
        labels = (SCORES * 2)[rows]
        metric.update(inputs, {"y": NOISY[rows]}, labels, {"y": TOKENS[rows]})
    parts[0].merge(parts[1])
    assert parts[0].compute() == measured(kind, NOISY, SCORES * 2)


def test_large_values_do_not_overflow():
    got = measured(EmbeddingCosine, 1e300 * POOLED.astype(np.float64), reference=POOLED)
    assert got["cosine"] == pytest.approx(1)


def test_what_cannot_be_measured_is_said():
    with pytest.raises(UsageError, match="11 samples make no pairs"):
        measured(PairSpearman, NOISY[:11], inputs={k: v[:11] for k, v in INPUTS.items()})
    with pytest.raises(UsageError, match="there are 4 scores for 6 pairs"):
        measured(PairSpearman, NOISY, [1.0, 2.0, 3.0, 4.0] + [None] * 8)
    with pytest.raises(UsageError, match="equally alike"):
        measured(PairSpearman, NOISY, [1.0] * 12)
    with pytest.raises(UsageError, match="a label is 'high'"):
        measured(PairSpearman, NOISY, ["high"] * 12)
    with pytest.raises(UsageError, match="pool is 'max'"):
        EmbeddingCosine(pool="max")
    with pytest.raises(UsageError, match="no input 'attention'"):
        measured(EmbeddingCosine, NOISY, mask="attention")
    with pytest.raises(UsageError, match="no output 'state'"):
        measured(EmbeddingCosine, NOISY, output="state")
