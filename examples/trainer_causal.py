"""Train a causal language model with AdaLoRA and the `Trainer` of transformers.

The model is small and has random weights, and the texts are counted numbers, so that
nothing is downloaded. With a pretrained model and texts of your own, the lines about
AdaLoRA stay the same: `get_peft_model` and `AdaLoraCallback`. Install with
``pip install sk-adalora accelerate``.
"""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from sk_adalora import AdaLoraCallback, AdaLoraConfig, get_peft_model

LENGTH, N_ROWS, N_STEPS = 12, 256, 120

config = LlamaConfig(
    vocab_size=40,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    bos_token_id=None,
    eos_token_id=None,
)
torch.manual_seed(0)
base = LlamaForCausalLM(config)
adalora = AdaLoraConfig(
    init_r=6, target_r=4, tinit=20, tfinal=50, total_step=N_STEPS, lora_alpha=24,
    target_modules="all-linear", modules_to_save=["lm_head"], task_type="CAUSAL_LM",
)  # fmt: skip
model = get_peft_model(base, adalora)

# Rows count by ones: 7 8 9 10 ...
starts = torch.randint(0, config.vocab_size, (N_ROWS, 1))
ids = (starts + torch.arange(LENGTH)) % config.vocab_size  # (N_ROWS, LENGTH)
rows = [{"input_ids": row, "labels": row} for row in ids]

with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, max_steps=N_STEPS, save_steps=60, learning_rate=1e-2,
        use_cpu=True, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, train_dataset=rows, eval_dataset=rows[:64],
        callbacks=[AdaLoraCallback()],
    )  # fmt: skip
    print(f"loss before: {trainer.evaluate()['eval_loss']:.3f}")
    trainer.train()
    print(f"loss after:  {trainer.evaluate()['eval_loss']:.3f}")

for path, rank in model.ranks.items():
    print(f"{rank}  {path}")
start = torch.tensor([[21, 22, 23]])
print(model.generate(start, max_new_tokens=8, do_sample=False, pad_token_id=0).tolist())
