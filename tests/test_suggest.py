"""Near misses."""

import pytest
from onnxq.suggest import suggest


@pytest.mark.parametrize(
    ("name", "known", "of", "hint"),
    [
        ("wieghts", ["bias", "weights"], "", "did you mean 'weights'?"),
        ("wieghts", ["bias", "weights"], "the keys", "did you mean 'weights'?"),
        ("x", ["bias", "weights"], "the keys", "the keys are: bias, weights"),
        ("x", ["bias", "weights"], "", ""),
        ("x", [], "the keys", ""),
        # One letter of three is another thing.
        ("gpu", ["cpu"], "", ""),
        ("Weights", ["weights"], "", "did you mean 'weights'?"),
        ("conv_10", ["conv_1", "conv_100", "conv_11"], "", "did you mean 'conv_100'?"),
    ],
)
def test_the_nearest_or_the_list(name, known, of, hint):
    assert suggest(name, known, of=of) == hint
    assert suggest(name, iter(known), of=of) == hint
