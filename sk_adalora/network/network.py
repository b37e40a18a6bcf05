"""An adapted encoder with pooling and a head: from batches to outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sk_adalora.adalora import AdaLoraConfig, get_peft_model
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.pretrained.read import skip_pooler
from sk_adalora.tokens.batches import Batch

from .head import LinearHead


class TextNetwork(nn.Module):
    """An adapted encoder, pooling over tokens, and a linear head in float32.

    Parameters
    ----------
    backbone : Backbone
        The frozen encoder.
    config : AdaLoraConfig
        What to adapt, and how.
    n_outputs : int
        Outputs of the head.
    pooling : {"mean", "cls", "last", "max", "model"}
        How the tokens of a text become one vector; "model" is for the subclass.
    generator : torch.Generator or None, default=None
        Source of randomness for triplets, head and dropout.
    """

    # Dimensions: n = texts, t = tokens, w = width, k = outputs.

    def __init__(
        self,
        backbone: Backbone,
        config: AdaLoraConfig,
        n_outputs: int,
        pooling: str,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.pooling, self.n_outputs = pooling, n_outputs
        module = backbone.copy()
        self._prepare(module, config, backbone)
        self.encoder = get_peft_model(module, config, generator=generator)
        self.head = self._make_head(backbone, generator)

    def _prepare(
        self, module: nn.Module, config: AdaLoraConfig, backbone: Backbone
    ) -> None:
        """Change the model and the configuration before the model is adapted."""
        skip_pooler(module)

    def _make_head(self, backbone: Backbone, generator: torch.Generator | None) -> Any:
        """Make what turns a text's vector into outputs."""
        width = backbone.width
        # skip_init: nn.Linear would draw from the global generator.
        head = nn.utils.skip_init(LinearHead, width, self.n_outputs)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.uniform_(-(width**-0.5), width**-0.5, generator=generator)
        return head.to(next(self.encoder.triplets.parameters()).device)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are trained beside the triplets."""
        return list(self.head.parameters())

    def head_state(self) -> dict[str, Tensor]:
        """Return the tensors of the head to store beside the adapter's, on the CPU."""
        return self.head.plain_state()

    def load_head_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`head_state` returned."""
        self.head.load_plain_state(state)

    def train(self, mode: bool = True) -> TextNetwork:
        """Switch the dropout of the updates; the frozen part never uses dropout."""
        super().train(False)
        for layer in self.encoder.adapted.values():
            layer.dropout.train(mode)
        return self

    def forward(self, batch: Batch) -> Tensor:
        """Compute the outputs of the head, of shape (n, k)."""
        return self.head(self.features(batch))

    def features(self, batch: Batch) -> Tensor:
        """Compute the input of the head: one vector per text, of shape (n, w)."""
        hidden = self._encode(batch).last_hidden_state  # (n, t, w)
        return pool(hidden.float(), batch.attention_mask, self.pooling)

    def of_vectors(self, embedded: Tensor, types: Tensor | None) -> Tensor:
        """Compute the outputs (n, k) of vectors of tokens (n, t, w), without padding.

        `types`, of shape (t,), tells the texts of a pair apart.
        """
        inputs: dict[str, Tensor] = {"inputs_embeds": embedded}
        inputs["attention_mask"] = embedded.new_ones(embedded.shape[:2]).long()
        if types is not None:
            inputs["token_type_ids"] = types.expand(embedded.shape[:2])
        return self._outputs_of(self.encoder(**inputs), None)

    def _outputs_of(self, encoded: Any, mask: Tensor | None) -> Tensor:
        hidden = encoded.last_hidden_state.float()  # (n, t, w)
        outputs: Tensor = self.head(pool(hidden, mask, self.pooling))
        return outputs

    def _encode(self, batch: Batch) -> Any:
        """Run the adapted encoder."""
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
        }
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        return self.encoder(**inputs)


class ModelHeadNetwork(TextNetwork):
    """An adapted model with the classification head of its own architecture.

    The head is a private copy in float32, trained in full and kept with the adapter
    under PEFT's names.
    """

    def _prepare(
        self, module: nn.Module, config: AdaLoraConfig, backbone: Backbone
    ) -> None:
        config.modules_to_save = own_head(module, backbone.pretrained.drawn)

    def _make_head(self, backbone: Backbone, generator: torch.Generator | None) -> Any:
        model, dtype = self.encoder.model, backbone.compute.dtype
        for name in self.encoder.peft_config.modules_to_save or ():
            part = model.get_submodule(name).float()
            part.register_forward_pre_hook(
                lambda _, inputs: _converted(inputs, torch.float32)
            )
            # A head reads a pooler, which stays exact; frozen modules read all others.
            is_inside = name.startswith(f"{model.base_model_prefix}.")
            if is_inside and ".pooler." not in f"{name}.":
                part.register_forward_hook(lambda _, __, out: _converted(out, dtype))
        return nn.Identity()  # the model has its own

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are trained beside the triplets."""
        adapter = {id(p) for p in self.encoder.triplets.parameters()}
        trained = self.encoder.trainable_parameters()
        return [p for _, p in trained if id(p) not in adapter]

    def head_state(self) -> dict[str, Tensor]:
        """Return nothing: the head is kept with the adapter."""
        return {}

    def load_head_state(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing: the head is loaded with the adapter."""

    def forward(self, batch: Batch) -> Tensor:
        """Compute the outputs of the model's head, of shape (n, k)."""
        return self._outputs_of(self._encode(batch), batch.attention_mask)

    def _outputs_of(self, encoded: Any, mask: Tensor | None) -> Tensor:
        outputs: Tensor = encoded.logits.float()
        return outputs


def own_head(module: nn.Module, drawn: Iterable[str]) -> list[str]:
    """Name the modules to train in full.

    These are the head, and parts of the body whose weights the files lack.
    """
    body = module.base_model_prefix
    head = [
        name
        for name, part in module.named_children()
        if name != body and any(True for _ in part.parameters())
    ]
    # Such as a pooler that the files lack: it must be stored with the adapter, because
    # other programs would initialise it differently.
    inside = [n.rpartition(".")[0] for n in drawn if n.startswith(f"{body}.")]
    return head + list(dict.fromkeys(inside))


def _converted(values: Any, dtype: torch.dtype) -> Any:
    """Convert vectors, but not ids, of which an embedding makes vectors."""
    if type(values) is tuple:
        return tuple(_converted(value, dtype) for value in values)
    is_vectors = isinstance(values, Tensor) and values.is_floating_point()
    return values.to(dtype) if is_vectors else values


def build_network(
    backbone: Backbone,
    config: AdaLoraConfig,
    n_outputs: int,
    pooling: str,
    generator: torch.Generator,
) -> TextNetwork:
    """Build the network that `pooling` asks for.

    For ``pooling="model"``, the backbone is one that was loaded with its own head.
    """
    kind = ModelHeadNetwork if pooling == "model" else TextNetwork
    network = kind(backbone, config, n_outputs, pooling, generator)
    # Dropout gets a generator of its own: how often it draws depends on the parts that
    # a batch is cut into, and the order of the rows must not depend on that.
    own = torch.Generator().manual_seed(generator.initial_seed() + 1)
    for layer in network.encoder.adapted.values():
        layer.generator = own
    return network


def pool(hidden: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Turn the tokens of each text into one vector.

    Parameters
    ----------
    hidden : torch.Tensor of shape (n, t, w)
        Hidden states.
    mask : torch.Tensor of shape (n, t) or None
        1 for tokens, 0 for padding; None where nothing is padded.
    pooling : {"mean", "cls", "last", "max"}
        Mean or maximum over the tokens, or the first or the last of them.

    Returns
    -------
    torch.Tensor of shape (n, w)
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        if mask is None:
            return hidden[:, -1]
        ends = mask.sum(dim=1) - 1  # (n,)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), ends]
    if pooling == "max":
        if mask is not None:
            hidden = hidden.masked_fill(~mask.bool().unsqueeze(2), -torch.inf)
        return hidden.amax(dim=1)
    if pooling == "mean":
        if mask is None:
            return hidden.mean(dim=1)
        weights = mask.to(hidden.dtype)
        weights = weights / weights.sum(dim=1, keepdim=True)  # (n, t)
        return torch.einsum("ntw,nt->nw", hidden, weights)
    # Of a file of a later version: to pool otherwise would predict wrongly.
    raise ValueError(
        f"`pooling` must be one that this version knows. Got {pooling!r}. Install a "
        "newer sk-adalora."
    )
