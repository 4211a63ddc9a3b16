"""Fingerprints, against their definition by hand."""

import hashlib

import numpy as np
from onnxq.data.batching import BatchAxes, Feeds
from onnxq.data.fingerprint import combine, sample_digests
from onnxq.data.preprocess import Preprocessing
from onnxq.data.source import Batch

A, B = (hashlib.sha256(each).digest() for each in (b"a", b"b"))


def digests(axis=0, **arrays):
    axes = BatchAxes(dict.fromkeys(arrays, axis))
    return list(sample_digests([Batch(0, Feeds(arrays, axes))]))


def test_it_is_the_hash_of_the_sum():
    total = (int.from_bytes(A, "big") + int.from_bytes(B, "big")) % 2**256
    assert combine([A, B]) == hashlib.sha256(total.to_bytes(32, "big")).hexdigest()
    assert combine([]) == hashlib.sha256(bytes(32)).hexdigest()


def test_order_does_not_count_but_how_often_does():
    assert combine([A, B]) == combine([B, A])
    assert len({combine([A, B]), combine([A, B, B]), combine([A]), combine([B]), combine([])}) == 5


def test_preprocessing_is_part_of_it():
    first, second = Preprocessing.parse("resize=32"), Preprocessing.parse("resize=33")
    assert len({combine([A]), combine([A], first), combine([A], second)}) == 3
    assert combine([A], first) == combine([A], Preprocessing.parse("resize=32"))


def test_a_sample_is_its_names_types_shapes_and_bytes():
    row = np.float32([1, 2])
    (found,) = digests(x=row[None])
    assert found == hashlib.sha256(b"x\0float32\x00(2,)\0" + row.tobytes()).digest()
    others = [
        digests(y=row[None]), digests(x=row[None].astype("f8")), digests(x=row[None, None]),
        digests(x=row[None, ::-1]), digests(x=row[None], y=row[None]),
    ]  # fmt: skip
    assert len({found, *(each[0] for each in others)}) == 6


def test_the_axis_and_the_order_of_inputs_do_not_count():
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert digests(x=x) == digests(1, x=x.T.copy()) == digests(1, x=np.asfortranarray(x.T))
    assert digests(x=x, y=x) == digests(y=x, x=x)


def test_the_width_of_texts_does_not_count():
    narrow, wide = np.array([["é"]]), np.array([["é"]], "U20")
    assert digests(x=narrow) == digests(x=wide)
    assert digests(x=narrow) != digests(x=np.array([["e"]]))
