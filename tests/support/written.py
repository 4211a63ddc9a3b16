"""A tokenizer trained on a few sentences, and what it is to fill."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxq.model.model import Model

SENTENCES = [
    "the cat sat on the mat", "a dog barked at the cat", "rain fell on the roof all night",
    "the roof of the house is red", "a red cat", "dogs and cats and rain",
]  # fmt: skip
VOCABULARY = 80


def trained(path, *, padding=None, truncation=None):
    """A WordPiece tokenizer that puts [CLS] and [SEP] around a text, saved."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    found = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=special, show_progress=False
    )
    found.train_from_iterator(SENTENCES, trainer)
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    if padding:
        found.enable_padding(length=padding, pad_id=3, pad_token="[PAD]")
    if truncation:
        found.enable_truncation(truncation)
    found.save(str(path))
    return path


def reader(*, tokens="T", batch="N"):
    """input_ids and attention_mask → a product of each token's embedding, and their mean."""
    rng = np.random.default_rng(0)
    arrays = {
        "table": rng.standard_normal((VOCABULARY, 8)).astype(np.float32),
        "w": rng.standard_normal((8, 8)).astype(np.float32), "axis": np.array([2], np.int64),
        "tokens": np.array([1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["e"], name="e"),
        helper.make_node("MatMul", ["e", "w"], ["y"], name="y"),
        helper.make_node("Cast", ["attention_mask"], ["m"], name="m", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "axis"], ["m1"], name="m1"),
        helper.make_node("Mul", ["y", "m1"], ["kept"], name="kept"),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], name="sum", keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [batch, tokens])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [batch, 8])]
    graph = helper.make_graph(
        nodes, "reader", inputs, outputs,
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )  # fmt: skip
    opset = helper.make_opsetid("", 17)
    return Model(onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[opset], ir_version=8)
    ))  # fmt: skip


def write(path, texts=SENTENCES, field="text", **more):
    """The texts as a .txt or .jsonl file; `more` are further fields of each row."""
    if path.suffix == ".jsonl":
        rows = [{field: text} | {k: v[i] for k, v in more.items()} for i, text in enumerate(texts)]
        texts = [json.dumps(row) for row in rows]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path
