"""The temporary memory of a training step: what autograd keeps, the loss, and temporaries of backward; in bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sweep.memory.closed_form.static_terms import Bytes, Step

_RNG_BYTES = 5056  # the state of PyTorch's CPU generator, which checkpointing keeps for each layer


class TrainingStep(Step):
    """A step with its activations. "Kept" means held by autograd from forward to backward."""

    def kept(self, layers: int, recomputed: bool = False) -> Bytes:
        """What autograd keeps of `layers` layers. With checkpointing, that is their inputs alone, and everything of the
        layer that is being `recomputed`."""
        found = Bytes()
        if self.checkpointing:
            found["activations"] = layers * (self.tokens * self.model.hidden * self.a + _RNG_BYTES)
            if recomputed:
                found += self.layer()
                if self.a == 4:  # its first norm keeps the input itself, which is counted; from 16 bits, a cast of it
                    found["activations"] -= 4 * self.tokens * self.model.hidden
            return found
        for _ in range(layers):
            found += self.layer()
        if self.lora is not None and layers == self.model.layers:
            found -= self.not_kept_by_the_first()
        return found

    def layer(self) -> Bytes:
        """One decoder layer."""
        m, tokens, c = self.model, self.tokens, self.c
        norm = tokens * m.hidden * (4 + (self.a if self.lora is None else 0)) + 4 * tokens
        queries, keys = m.heads * m.head_width, m.key_heads * m.head_width
        if self.longest.padded:  # transformers repeats grouped keys and values where there is a mask
            keys = queries
        attention = tokens * (c * (2 * queries + 2 * keys) + 4 * m.heads)
        if self.longest.padded:
            attention += c * self.longest.micro_batch_size * self.longest.length**2  # the mask, made additive
        activation = 4 if self.quantized else c  # what a 4-bit layer returns has its input's type
        gated = 3 * tokens * m.intermediate * activation  # gate, silu(gate), up
        found = Bytes(activations=2 * norm + attention + gated + sum(self.inputs()))
        if self.autocast and self.w == 4 and self.quantized is None:
            found["temporaries"] = 2 * m.linear_per_layer  # weights cast for the product, kept for its backward
        if self.autocast:
            found["temporaries"] += 2 * self.adapter_elements
        return found

    def inputs(self) -> Iterator[int]:
        """The inputs that the matrices of one layer keep.

        A trained matrix keeps its input: matrices that share an input share the tensor, but under autocast from fp32
        each keeps a cast of its own. A frozen matrix keeps nothing. Its adapter keeps a copy, cast to fp32 for the
        adapter and under autocast back to 16 bits.
        """
        m, tokens = self.model, self.tokens
        cast = self.autocast and self.a == 4
        groups = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
        for names in groups:
            width = m.linear[names[0]][0]
            adapted = [name for name in names if name in self.targets]
            if self.lora is None:
                if names != ("o_proj",):  # attention's output is kept by attention already
                    yield tokens * width * self.c * (len(names) if cast and names != ("down_proj",) else 1)
                continue
            if not adapted:
                continue
            yield len(adapted) * tokens * self.lora.r * (2 if self.autocast else 4)
            if self.autocast:
                yield len(adapted) * tokens * width * 2
            elif self.a == 4:
                yield 0 if names == ("o_proj",) else tokens * width * 4
            else:
                yield len(adapted) * tokens * width * 4

    def not_kept_by_the_first(self) -> Bytes:
        """What the first layer does not keep: the embeddings are frozen, so its first norm and the matrices after it
        have no backward for their input."""
        model, first = self.model, ("q_proj", "k_proj", "v_proj")
        found = Bytes(activations=4 * self.tokens * (model.hidden + 1))
        if self.autocast and self.w == 4 and self.quantized is None:
            found["temporaries"] = 2 * sum(math.prod(model.linear[name]) for name in first)
        if self.autocast and self.lora is not None:
            found["temporaries"] += 2 * self.lora.r * model.hidden * len(set(first) & set(self.targets))
        return found

    def loss(self) -> Bytes:
        """The head and the loss, at the end of the loss's backward: log-probabilities, their gradient and the gradient
        of the logits, each in fp32 (`ForCausalLMLoss` casts, and the Trainer drops the logits): 12·T·V bytes."""
        m, tokens = self.model, self.tokens
        found = Bytes(logits_and_loss=12 * tokens * m.vocabulary)
        norm = 4 * tokens * (m.hidden + 1)
        if self.lora is None:
            norm += tokens * m.hidden * (self.a + self.c)
        found["activations"] = norm
        if self.autocast and self.a == 4:
            found["temporaries"] = 2 * m.vocabulary * m.hidden  # the head's weight, cast
        return found

    def logits(self) -> Bytes:
        """Under autocast, at the end of forward: log-probabilities, the logits in 16 bits, and the logits in fp32,
        which accelerate returns: 10·T·V bytes. Autocast also keeps its casts of trained weights until then."""
        found = self.loss()
        found["logits_and_loss"] = 10 * self.tokens * self.model.vocabulary
        found["activations"] += self.a * self.tokens * self.model.hidden  # the head's input
        cast = self.model.linear_per_layer if self.lora is None and self.w == 4 else self.adapter_elements
        if self.checkpointing:
            found["temporaries"] += 2 * self.model.layers * cast
        return found

    def norm_backward(self) -> Bytes:
        """The last norm, which is computed in fp32: what it keeps, and five temporaries of its backward."""
        return Bytes(temporaries=6 * 4 * self.tokens * self.model.hidden)

    def layer_backward(self) -> Bytes:
        """In addition to what the layer keeps: the gated product's gradients, and that of the residual stream."""
        m, tokens = self.model, self.tokens
        stream = self.a  # the gradient of the residual stream
        if self.lora is None:
            grown = 2 * self.c  # d(gate·up), d gate, d up are added; the product that the last matrix kept is freed
        elif self.quantized is not None or (not self.autocast and self.a == 4):
            grown = 12 - (2 if self.autocast else 4)  # the same three in fp32, less the kept input of the last matrix
        else:  # still in forward: the product, its cast to fp32 for the adapter; norms' outputs, the stream, its sum
            grown, stream = 6 if self.autocast else 4, 14 if self.a == 4 else 10
        found = Bytes(temporaries=grown * tokens * m.intermediate + tokens * m.hidden * stream)
        if self.lora is None:
            found["gradients"] = self.w * math.prod(m.linear["down_proj"])
        return found
