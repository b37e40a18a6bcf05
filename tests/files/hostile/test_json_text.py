"""Texts in place of the JSON files of a folder: a clear error each."""

import pytest
from _hostile import CONFIG, STATE, assert_refused

from sk_adalora import AdaLoraClassifier

TEXTS = {
    "nothing": "",
    "no JSON": "not JSON",
    "a list": "[]",
    "null": "null",
    "nested deeply": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "just too deep": '{"format": ' + "[" * 60 + "]" * 60 + "}",
    "NaN": '{"format": NaN}',
    "too large": '{"format": 1e999}',
    "very many digits": '{"format": ' + "1" * 10_000 + "}",
    "a key twice": '{"format": 1, "format": 1}',
    "a mark before": '\ufeff{"format": 1}',
    "no UTF-8": b'{"format": "\xff"}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "zeros": b"\0" * 1000,
    "cut off": '{"format": ',
    "more behind": '{"format": 1} {}',
    "empty": "{}",
}


@pytest.mark.parametrize("name", [STATE, CONFIG])
@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_are_no_settings(folder, name, text):
    data = TEXTS[text]
    data = data.encode("utf8") if isinstance(data, str) else data
    (folder / name).write_bytes(data)

    assert_refused(folder)


def test_a_file_that_is_too_long(folder):
    with (folder / STATE).open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(ValueError, match="must be at most 16777216 bytes long"):
        AdaLoraClassifier.from_pretrained(folder)
