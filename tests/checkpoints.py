"""Tiny checkpoints of real architectures, made on the spot: random weights, real tokenizers, real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = "the film was good bad dull fine story actor end a and very not plot review i liked hated it"


def words_tokenizer(types: bool = False) -> Any:
    """Words are tokens, as BERT closes texts and pairs: [CLS] … [SEP] … [SEP], with `types` of first and second."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, model_input_names=inputs, **names)


def bytes_tokenizer(closed: bool = False, **names: str) -> Any:
    """Bytes are tokens, as in GPT-2 without its merges; no padding token unless `names` say so. `closed` ends every
    text with </s>, as T5 does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = names or {"eos_token": "</s>", "bos_token": "</s>", "unk_token": "</s>"}
    special = list(dict.fromkeys(names.values()))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if closed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", special.index("</s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)


def save(folder: Path, model_class: str, config: Any, tokenizer: Any) -> Path:
    """As `save_pretrained` writes it."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def distilbert(folder: Path, model_class: str = "DistilBertForMaskedLM", **changes: Any) -> Path:
    from transformers import DistilBertConfig

    tokenizer = words_tokenizer()
    sizes = {"dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 512}
    config = DistilBertConfig(**{"vocab_size": len(tokenizer), **sizes, **changes})
    return save(folder, model_class, config, tokenizer)


def bert(folder: Path, **changes: Any) -> Path:
    from transformers import BertConfig

    tokenizer = words_tokenizer(types=True)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, **changes}
    return save(folder, "BertModel", BertConfig(vocab_size=len(tokenizer), **sizes), tokenizer)


def roberta(folder: Path, positions: int = 514) -> Path:
    from transformers import RobertaConfig

    tokenizer = bytes_tokenizer(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=positions,
        type_vocab_size=1,
    )
    return save(folder, "RobertaForMaskedLM", config, tokenizer)


def gpt2(folder: Path, positions: int = 512, **changes: Any) -> Path:
    """Its tokenizer has no padding token, as GPT-2's own."""
    from transformers import GPT2Config

    tokenizer = bytes_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_positions=positions,
        bos_token_id=0,
        eos_token_id=0,
        **changes,
    )
    return save(folder, "GPT2LMHeadModel", config, tokenizer)


CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def llama(folder: Path, **changes: Any) -> Path:
    """With a chat template, and grouped-query attention."""
    from transformers import LlamaConfig

    tokenizer = bytes_tokenizer(eos_token="</s>", bos_token="<s>")
    tokenizer.chat_template = CHAT
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "max_position_embeddings": 512}
    sizes["vocab_size"] = len(tokenizer)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(**{**sizes, **heads, **ids, **changes})
    return save(folder, "LlamaForCausalLM", config, tokenizer)


def t5(folder: Path) -> Path:
    from transformers import T5Config

    tokenizer = bytes_tokenizer(closed=True, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return save(folder, "T5ForConditionalGeneration", config, tokenizer)
