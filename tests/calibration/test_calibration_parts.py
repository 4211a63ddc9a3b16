"""What of a shard's samples runs at once."""

import numpy as np
import pytest
from onnxq.calibration.parts import parts_of, spans_of
from onnxq.data.budget import GROUP, WHOLE, Batching
from onnxq.data.open import open_data
from onnxq.model.model import TensorSpec

COUNT = 5 * GROUP + 3
SOURCE = open_data(
    np.arange(COUNT * 2, dtype=np.float32).reshape(COUNT, 2),
    [TensorSpec("x", np.dtype("f4"), ("N", 2))],
)


def parts(*, shard=(1, 1), done=0, hold_out=0, batching=WHOLE):
    return list(parts_of(spans_of(SOURCE, shard, done), hold_out, batching))


def samples(found):
    return [index for part in found for index in range(part.start, part.start + len(part))]


@pytest.mark.parametrize("size", [1, 3, GROUP - 1, GROUP])
def test_every_sample_runs_once_and_with_its_own_values(size):
    found = parts(batching=Batching(size=size))
    assert samples(found) == list(range(COUNT))
    assert max(map(len, found)) == size
    for part in found:
        assert part.feeds["x"][:, 0].tolist() == [2 * i for i in samples([part])]
        assert part.is_first == (part.start % GROUP == 0)
        assert part.is_last == (part.start + len(part) in {*range(GROUP, COUNT, GROUP), COUNT})


@pytest.mark.parametrize("done", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_shards_share_the_samples(count, done):
    each = [parts(shard=(index + 1, count), done=done) for index in range(count)]
    found = sorted(index for part in each for index in samples(part))
    assert found == list(range(min(done * count * GROUP, COUNT), COUNT))


def test_what_is_held_out_is_not_cut():
    found = parts(hold_out=3, batching=Batching(size=2))
    held = [part for part in found if part.held_out]
    assert [(part.start, len(part)) for part in held] == [(2 * GROUP, GROUP), (5 * GROUP, 3)]
    assert all(part.is_first and part.is_last for part in held)
    assert samples(found) == list(range(COUNT))


def test_samples_of_several_shapes_are_one_span_of_several_batches(tmp_path):
    path = tmp_path / "f.py"
    path.write_text(
        "import numpy as np\n"
        f"def f():\n    for i in range({GROUP}): yield {{'x': np.ones((2 + (i > 4), 1), 'f4')}}\n"
    )
    source = open_data(f"{path}:f", [TensorSpec("x", np.dtype("f4"), ("N", None, 1))])
    found = list(parts_of(spans_of(source, (1, 1), 0), 0, WHOLE))
    assert [(p.start, len(p), p.is_first, p.is_last) for p in found] == [
        (0, 5, True, False), (5, GROUP - 5, True, True)
    ]  # fmt: skip
