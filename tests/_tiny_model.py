"""The folder of a tiny model, as a user would have one of a real model."""

import string

import torch
import transformers
from _tiny import build

from sk_adalora.pretrained.weights import weight_names

# Of it, and of other architectures beside it, by the names that most configs have.
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
COMMON_WORDS = """
    the a an and or but not no in on at of to from for with by is are was were be it
    this that good bad great poor best worst news sport business music film game
    market price team win loss new old world day year man woman people city color
    red green blue one two three zero missing name title body
""".split()
WORD_ENDINGS = ["##s", "##ed", "##er", "##ing", "##ly", "##tion"]


def write_tiny_model(folder, n_layers=2):
    """Save the tiny model into `folder` and return the folder."""
    vocabulary = _vocabulary()
    sizes = {**SIZES, "num_hidden_layers": n_layers, "max_position_embeddings": 512}
    config = transformers.BertConfig(vocab_size=len(vocabulary), **sizes)
    model = build(lambda: transformers.BertModel(config))
    model.save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(
        vocab=vocabulary, do_lower_case=True, model_max_length=512
    )
    tokenizer.save_pretrained(folder)
    return folder


def _vocabulary():
    """About 200 pieces: every text of ASCII letters, digits and signs has tokens."""
    letters = [*string.ascii_lowercase, *string.digits]
    pieces = [
        *SPECIAL_TOKENS,
        *letters,
        *(f"##{letter}" for letter in letters),
        *string.punctuation,
        *WORD_ENDINGS,
        *COMMON_WORDS,
    ]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def write_model(folder, module):
    """Save a random module beside the tokenizer in `folder`."""
    for name in weight_names(folder):
        (folder / name).unlink()
    module.save_pretrained(folder)


def random_bert(folder, seed):
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return transformers.BertModel(config)
