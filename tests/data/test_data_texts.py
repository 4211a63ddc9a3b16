"""Texts as data: files, fields, labels, and what a tokenizer makes of them."""

import pickle
import sys

import numpy as np
import onnxq
import pytest
from onnxq.data.open import open_data
from onnxq.data.texts import parse_texts
from onnxq.errors import DataError, UsageError
from onnxq.model.model import TensorSpec
from onnxq.report.html.samples import worst_samples
from onnxq.validation.by_sample import BySample

from support.written import SENTENCES, reader, trained, write

tokenizers = pytest.importorskip("tokenizers")


def spec(name, *shape, kind=np.int64):
    return TensorSpec(name, np.dtype(kind), shape or ("N", "T"))


IDS, MASK, TYPES, POSITIONS = map(
    spec, ("input_ids", "attention_mask", "token_type_ids", "position_ids")
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def opened(data, tokenizer, *inputs, **options):
    return open_data(data, inputs or (IDS, MASK), tokenizer=tokenizer, **options)


def samples(source, size=8, **window):
    """The feeds of each sample."""
    return [
        {name: values[row].tolist() for name, values in batch.feeds.items()}
        for batch in source.batches(size, **window)
        for row in range(len(batch))
    ]


def encoded(tokenizer, texts=SENTENCES):
    found = tokenizers.Tokenizer.from_file(str(tokenizer))
    return [found.encode(text).ids for text in texts]


# --- files ---------------------------------------------------------------------------------------


def test_each_line_is_a_sample_of_its_own_length(tmp_path, tokenizer):
    source = opened(write(tmp_path / "x.txt"), tokenizer)
    wanted = encoded(tokenizer)
    assert len({len(ids) for ids in wanted}) > 2
    assert source.count == len(SENTENCES)
    found = samples(source)
    assert [each["input_ids"] for each in found] == wanted
    assert all(set(each["attention_mask"]) == {1} for each in found)


def test_blank_lines_are_none(tmp_path, tokenizer):
    path = tmp_path / "x.txt"
    path.write_text("\ufeffthe cat\n\n  \r\na dog  \n", encoding="utf-8")
    source = opened(path, tokenizer)
    assert [s["input_ids"] for s in samples(source)] == encoded(tokenizer, ["the cat", "a dog"])


@pytest.mark.parametrize("field", ["text", "sentence"])
def test_a_field_of_json_lines(tmp_path, tokenizer, field):
    path = write(tmp_path / "x.jsonl", field=field, label=[0, 1, 2, 0, 1, 2])
    source = opened(path if field == "text" else f"{path}:{field}", tokenizer)
    assert [s["input_ids"] for s in samples(source)] == encoded(tokenizer)
    assert np.concatenate([b.labels for b in source.batches(2)]).tolist() == [0, 1, 2, 0, 1, 2]


def test_json_lines_may_be_plain_texts(tmp_path, tokenizer):
    path = tmp_path / "x.jsonl"
    path.write_text('"the cat"\n"a dog"\n')
    assert len(samples(opened(path, tokenizer))) == 2


def test_a_column_of_a_parquet_file(tmp_path, tokenizer):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"question": SENTENCES, "text": SENTENCES[::-1], "label": [1] * 6})
    parquet.write_table(table, path, row_group_size=2)
    wanted = encoded(tokenizer)
    assert [s["input_ids"] for s in samples(opened(path, tokenizer))] == wanted[::-1]
    named = opened(f"{path}:question", tokenizer)
    assert [s["input_ids"] for s in samples(named)] == wanted
    assert named.has_labels
    with pytest.raises(DataError, match="has no column 'answer'") as caught:
        opened(f"{path}:answer", tokenizer).count  # noqa: B018
    assert "question" in caught.value.hint


def test_windows_and_shards_are_those_of_any_source(tmp_path, tokenizer):
    source = opened(write(tmp_path / "x.txt"), tokenizer)
    everything = samples(source)
    assert samples(source, start=2, stop=5) == everything[2:5]
    assert samples(source, 2, first=1, step=2) == everything[2:4]
    assert samples(pickle.loads(pickle.dumps(source))) == everything
    few = opened(write(tmp_path / "x.txt"), tokenizer, samples=2)
    assert samples(few) == everything[:2]


def test_the_fingerprint_is_of_what_is_fed(tmp_path, tokenizer):
    one = opened(write(tmp_path / "x.txt"), tokenizer).fingerprint
    turned = opened(write(tmp_path / "y.jsonl", SENTENCES[::-1]), tokenizer).fingerprint
    other = opened(write(tmp_path / "z.txt", SENTENCES[:-1]), tokenizer).fingerprint
    assert one == turned != other


# --- inputs --------------------------------------------------------------------------------------


def test_the_inputs_that_the_model_has_are_filled(tmp_path, tokenizer):
    data = write(tmp_path / "x.txt", SENTENCES[:1])
    narrow = spec("attention_mask", kind=np.int32)
    (found,) = samples(opened(data, tokenizer, IDS, narrow, TYPES, POSITIONS))
    count = len(found["input_ids"])
    assert found["token_type_ids"] == [0] * count
    assert found["position_ids"] == list(range(count))
    (batch,) = opened(data, tokenizer, IDS, narrow).batches(1)
    assert batch.feeds["attention_mask"].dtype == np.int32
    (only,) = samples(opened(data, tokenizer, IDS))
    assert only.keys() == {"input_ids"}


def test_a_model_of_fixed_length_gets_padding_and_cut_texts(tmp_path):
    """Padding is the tokenizer's; the mask names it; positions go on."""
    tokenizer = trained(tmp_path / "tokenizer.json", padding=32)
    fixed = [spec(name, "N", 6) for name in ("input_ids", "attention_mask", "position_ids")]
    source = opened(write(tmp_path / "x.txt"), tokenizer, *fixed)
    short = next(s for s in samples(source) if 0 in s["attention_mask"])
    real = sum(short["attention_mask"])
    assert short["input_ids"][real - 1 :] == [2] + [3] * (6 - real)
    assert short["position_ids"] == list(range(6))
    assert all(len(each["input_ids"]) == 6 for each in samples(source))
    assert samples(source)[2]["input_ids"][-1] == 2
    assert source.axes.mask == "attention_mask"


def test_without_a_fixed_length_there_is_no_padding_and_the_tokenizer_cuts(tmp_path):
    tokenizer = trained(tmp_path / "tokenizer.json", padding=32, truncation=5)
    found = samples(opened(write(tmp_path / "x.txt"), tokenizer))
    assert {len(each["input_ids"]) for each in found} == {5}
    assert all(set(each["attention_mask"]) == {1} for each in found)


# --- records -------------------------------------------------------------------------------------


def test_the_tokenizer_is_on_record_and_must_stay_the_same(tmp_path, tokenizer):
    data = write(tmp_path / "x.txt", SENTENCES * 4)
    calibration = onnxq.calibrate(reader(), data, tokenizer=tokenizer)
    assert calibration.samples == 24
    assert calibration.provenance.preprocessing.startswith("tokenizer=")
    other = trained(tmp_path / "other.json", truncation=4)
    with pytest.raises(DataError, match="preprocessed as 'tokenizer="):
        onnxq.quantize(
            reader(), data, calibration=calibration, tokenizer=other, target="cpu"
        )  # fmt: skip


def test_a_model_is_quantized_and_validated_on_texts(tmp_path, tokenizer):
    data = write(tmp_path / "x.jsonl", SENTENCES * 4)
    model, _ = onnxq.quantize(reader(), data, tokenizer=tokenizer, target="cpu")
    found = onnxq.validate(reader(), model, data, tokenizer=tokenizer)
    assert found.rows[1].values["sqnr"] > 25
    fixed = onnxq.validate(reader(tokens=12), model, data, tokenizer=tokenizer)
    assert fixed.rows[1].values["sqnr"] == pytest.approx(found.rows[1].values["sqnr"], abs=0.5)


# --- what is refused -----------------------------------------------------------------------------


def test_texts_need_a_tokenizer_and_nothing_else_takes_one(tmp_path, tokenizer):
    data = write(tmp_path / "x.txt")
    with pytest.raises(UsageError, match="nothing says how they become numbers") as caught:
        opened(data, None)
    assert "--tokenizer" in caught.value.hint
    with pytest.raises(UsageError, match="takes no tokenizer: only texts do"):
        opened("random:4", tokenizer)
    with pytest.raises(UsageError, match="takes no preprocessing"):
        onnxq.calibrate(reader(), data, tokenizer=tokenizer, preprocess="imagenet")


def test_the_missing_package_is_named(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match="need the package tokenizers") as caught:
        opened(write(tmp_path / "x.txt"), tokenizer)
    assert caught.value.hint.startswith("pip install tokenizers; ")


def test_files_that_are_no_tokenizer_are_refused(tmp_path):
    data = write(tmp_path / "x.txt")
    with pytest.raises(UsageError, match=r"cannot read the tokenizer .*none.json: No such file"):
        opened(data, tmp_path / "none.json")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match=r"config.json is no tokenizer.json"):
        opened(data, tmp_path / "config.json")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([IDS, spec("pixel_values", "N", 3, 8, 8)], "the model has input 'pixel_values'"),
        ([MASK], "the model has no input 'input_ids'"),
        ([spec("input_ids", "N", "T", 4)], "'input_ids' is not samples × tokens"),
    ],
)
def test_inputs_that_a_tokenizer_does_not_fill_are_refused(tmp_path, tokenizer, inputs, message):
    with pytest.raises(DataError, match=message):
        opened(write(tmp_path / "x.txt"), tokenizer, *inputs)


def test_a_batch_that_texts_cannot_fill_is_refused(tmp_path, tokenizer):
    data = write(tmp_path / "x.txt", SENTENCES[:4])
    inputs = [spec(name, 2, "T") for name in ("input_ids", "attention_mask")]
    with pytest.raises(DataError, match="a fixed number of samples at once"):
        opened(data, tokenizer, *inputs)
    fixed = [spec(name, 2, 6) for name in ("input_ids", "attention_mask")]
    assert [len(b) for b in opened(data, tokenizer, *fixed).batches(8)] == [2, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"\n\n", "holds no texts"),
        ("x.txt", b"\xff\xfe\x00", "no UTF-8 text"),
        ("x.jsonl", b"the cat\n", r"x.jsonl:1 is no JSON"),
        ("x.jsonl", b"[1]\n", r"x.jsonl:1 is a list, an object expected"),
        ("x.jsonl", b'{"txt": "a"}\n', r"x.jsonl:1 has no field 'text'"),
        ("x.jsonl", b'\n{"text": 3}\n', r"x.jsonl:2: 'text' is 3, a text expected"),
        ("x.jsonl", b'{"text": ' + b"[" * 100_000, r"x.jsonl:1 is no JSON"),
        ("x.jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}", r"x.jsonl:1 is no JSON"),
        ("x.jsonl", b'{"text": "\\ud800"}', r"x.jsonl:1: 'text' is no Unicode text"),
        ("x.jsonl", b'{"text": "a", "label": %d}' % 2**64, rf"the label {2**64} is no class index"),
        ("x.parquet", b"PAR1", "cannot read .*x.parquet"),
    ],
)
def test_damaged_files_are_named_with_the_line(tmp_path, tokenizer, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        samples(opened(path, tokenizer))


def test_a_text_without_tokens_is_named(tmp_path):
    tokenizer = trained(tmp_path / "t.json")
    plain = tokenizers.Tokenizer.from_file(str(tokenizer))
    plain.post_processor = None
    plain.save(str(tokenizer))
    path = tmp_path / "x.txt"
    path.write_text("the cat\n\u200b\u3000\u200b\n", encoding="utf-8")
    found = tokenizers.Tokenizer.from_file(str(tokenizer)).encode("\u200b\u3000\u200b").ids
    if found:
        assert len(samples(opened(path, tokenizer))) == 2
    else:
        with pytest.raises(DataError, match="makes no token"):
            samples(opened(path, tokenizer))


def test_missing_files_suggest_their_neighbours(tmp_path, tokenizer):
    write(tmp_path / "sentences.txt")
    with pytest.raises(DataError, match="there are no data at") as caught:
        opened(str(tmp_path / "sentence.txt"), tokenizer)
    assert "sentences.txt" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "tokenized", "found"),
    [
        ("a.txt", False, ("a.txt", "text")), ("a.jsonl:body", False, ("a.jsonl", "body")),
        ("a.parquet", False, None), ("a.parquet", True, ("a.parquet", "text")),
        ("a.parquet:q", False, ("a.parquet", "q")), ("a.npz", True, None), ("a.py:f", True, None),
    ],
)  # fmt: skip
def test_a_table_holds_texts_where_a_tokenizer_or_a_column_says_so(text, tokenized, found):
    result = parse_texts(text, tokenized=tokenized)
    assert (result and (str(result[0]), result[1])) == found


def test_the_report_shows_the_worst_samples_as_texts(tokenizer, tmp_path):
    errors = np.full(len(SENTENCES), np.inf)
    errors[[2, 0]] = 10.0, 20.0
    for name in ("texts.txt", "texts.jsonl"):
        write(tmp_path / name)
        source = opened(str(tmp_path / name), tokenizer)
        found = worst_samples(source, [BySample(errors, (), ())])
        assert [each.text for each in found] == [SENTENCES[2], SENTENCES[0]]
