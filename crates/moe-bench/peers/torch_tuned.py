"""A training step, or a forward pass, of MoE-CL (arXiv 2509.18133) in PyTorch on a CPU, as fast as we could make it.

The method as its authors publish it: a shared expert and one per task on gate, up and down of every layer, a gate per token, a
task classifier per layer on the shared expert's mean output whose loss (a softmax of a softmax) is subtracted while it descends
on it itself. Frozen weights get no gradient, nothing runs backward below the first expert, adapters are f32.

--dump FILE writes one step without dropout, on a padded batch, with B drawn at random, in the names of this project's fixtures:
param.* and grad.* of layers.I.mlp.{gate,up,down}_proj.expertE.{A,B} (A [r, in], B [out, r]), layers.I.moe.{gate,task_classifier}
and head.task; tokens, attention_mask, labels; loss.task, loss.aux. Gradients are those of loss.task - weight * loss.aux, with the
sign of the task classifiers' turned.
"""

import json
import os

import program
import torch
import torch.nn as nn
import torch.nn.functional as F
from moe_ffn import Dropout, Frozen, MoeFfn, moe_ffn_eval
from safetensors.torch import load_file, save_file


class Adapters(nn.Module):
    """What one layer trains."""

    def __init__(self, d, ff, experts, rank, draw):
        super().__init__()

        def kaiming(*shape):
            return nn.Parameter((2 * torch.rand(shape, generator=draw) - 1) / shape[-1] ** 0.5)

        def normal(*shape):
            return nn.Parameter(0.02 * torch.randn(shape, generator=draw))

        self.a_gu = nn.ParameterList(kaiming(2, rank, d) for _ in range(experts))
        self.a_dn = nn.ParameterList(kaiming(rank, ff) for _ in range(experts))
        self.b_gu = nn.ParameterList(nn.Parameter(torch.zeros(2, ff, rank)) for _ in range(experts))
        self.b_dn = nn.ParameterList(nn.Parameter(torch.zeros(d, rank)) for _ in range(experts))
        self.gate, self.task_classifier = normal(2, d), normal(experts - 1, d)

    def active(self, task, scaling, dtype):
        """The shared expert and that of `task` (from 1), side by side, as MoeFfn wants them."""
        a_gu, b_gu, a_dn, b_dn = ([p[0], p[task]] for p in (self.a_gu, self.b_gu, self.a_dn, self.b_dn))
        return (torch.cat(a_gu).to(dtype), (torch.cat(b_gu) * scaling).to(dtype),
                torch.stack(a_dn).to(dtype), (torch.cat(b_dn, 1) * scaling).to(dtype))


class MoeCl(nn.Module):
    def __init__(self, chosen):
        super().__init__()
        with open(os.path.join(chosen.base, "config.json"), encoding="utf8") as file:
            c = json.load(file)
        stored = load_file(os.path.join(chosen.base, "model.safetensors"))
        rows, self.dtype, self.vocabulary = chosen.batch * chosen.len, chosen.dtype, c["vocab_size"]
        self.d, self.ff, self.eps = c["hidden_size"], c["intermediate_size"], c["rms_norm_eps"]
        self.queries, self.keys = c["num_attention_heads"], c["num_key_value_heads"]
        self.head_dim = c.get("head_dim") or self.d // self.queries
        self.task, self.scaling, self.weight = chosen.tasks, chosen.alpha / chosen.rank, chosen.weight
        self.dropout = Dropout(chosen.dropout) if chosen.dropout > 0 else None

        def read(*names):
            return torch.cat([stored[f"model.{name}.weight"] for name in names]).to(self.dtype)

        self.embedding, self.norm, self.base = read("embed_tokens"), read("norm"), []
        for i in range(c["num_hidden_layers"]):
            l = f"layers.{i}"
            self.base.append(dict(
                norm1=read(f"{l}.input_layernorm"), norm2=read(f"{l}.post_attention_layernorm"),
                qkv=Frozen(read(*(f"{l}.self_attn.{x}_proj" for x in "qkv")), rows),
                out=Frozen(read(f"{l}.self_attn.o_proj"), rows),
                gate_up=Frozen(read(f"{l}.mlp.gate_proj", f"{l}.mlp.up_proj"), rows),
                down=Frozen(read(f"{l}.mlp.down_proj"), rows)))
        turns = torch.arange(0, self.head_dim, 2) / self.head_dim
        angles = torch.outer(torch.arange(chosen.len), c["rope_theta"] ** -turns).repeat(1, 2)
        self.cos, self.sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        draw = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList(
            Adapters(self.d, self.ff, chosen.tasks + 1, chosen.rank, draw) for _ in self.base)
        self.head = nn.Parameter((2 * torch.rand(chosen.classes, self.d, generator=draw) - 1) / self.d ** 0.5)

    def attention(self, x, base):
        batch, length, _ = x.shape
        h = F.rms_norm(x, (self.d,), base["norm1"], self.eps)
        qkv = base["qkv"](h).view(batch, length, -1, self.head_dim).transpose(1, 2)
        qk, v = qkv.split([self.queries + self.keys, self.keys], 1)
        half = self.head_dim // 2
        qk = qk * self.cos + torch.cat([-qk[..., half:], qk[..., :half]], 3) * self.sin
        k, v = (y.repeat_interleave(self.queries // self.keys, 1) for y in (qk[:, self.queries:], v))
        # Padding is on the right, where no real token looks.
        out = F.scaled_dot_product_attention(qk[:, :self.queries], k, v, is_causal=True)
        return x + base["out"](out.transpose(1, 2).reshape(batch, length, -1))

    def forward(self, ids, mask):
        """-> class scores [batch, classes] and, in training, per-layer task probabilities [layers * batch, tasks]."""
        batch, length = ids.shape
        share = (mask / mask.sum(1, keepdim=True)).to(self.dtype).unsqueeze(1)
        x, guesses = F.embedding(ids, self.embedding), []
        for base, own in zip(self.base, self.layers):
            x = self.attention(x, base)
            h = F.rms_norm(x, (self.d,), base["norm2"], self.eps).view(-1, self.d)
            g = F.linear(h, own.gate.to(self.dtype)).float().softmax(1).to(self.dtype)
            active, w_gu, w_dn = own.active(self.task, self.scaling, self.dtype), base["gate_up"], base["down"]
            if self.training:
                y, hid, code = MoeFfn.apply(h, g, *active, w_gu, w_dn, share, self.dropout)
                rank = code.shape[1]
                pooled = w_dn(hid) + F.linear(code, active[3][:, :rank])
                guesses.append(F.linear(pooled.float(), own.task_classifier).softmax(1))
            else:
                y = moe_ffn_eval(h, g, *active, w_gu, w_dn)
            x = x + y.view(batch, length, self.d)
        last = x[torch.arange(batch), mask.sum(1) - 1]
        scores = F.linear(F.rms_norm(last, (self.d,), self.norm, self.eps).float(), self.head)
        return scores, torch.cat(guesses) if guesses else None

    def backward(self, ids, mask, labels):
        """Gradients into the parameters -> the two losses."""
        scores, guesses = self(ids, mask)
        loss = F.cross_entropy(scores, labels)
        aux = F.cross_entropy(guesses, torch.full(guesses.shape[:1], self.task - 1))
        (loss - self.weight * aux).backward()
        for layer in self.layers:
            layer.task_classifier.grad.neg_()
        return loss.item(), aux.item()

    def adapters(self):
        """(name, parameter, its gradient or None), as the fixtures have them."""
        def part(name, p, index=...):
            return name, p.detach()[index], None if p.grad is None else p.grad[index]

        for i, own in enumerate(self.layers):
            for e in range(len(own.a_gu)):
                for side, gu, down in (("A", own.a_gu, own.a_dn), ("B", own.b_gu, own.b_dn)):
                    for k, projection in enumerate(("gate", "up")):
                        yield part(f"layers.{i}.mlp.{projection}_proj.expert{e}.{side}", gu[e], k)
                    yield part(f"layers.{i}.mlp.down_proj.expert{e}.{side}", down[e])
            yield part(f"layers.{i}.moe.gate", own.gate)
            yield part(f"layers.{i}.moe.task_classifier", own.task_classifier)
        yield part("head.task", self.head)

    def products(self, chosen):
        """The frozen products of layer 0 as a step runs them, with their floating-point operations."""
        rows, found = chosen.batch * chosen.len, []
        for name in ("qkv", "out", "gate_up", "down"):
            w = self.base[0][name]
            x, g = torch.randn(rows, w.inner).to(self.dtype), torch.randn(rows, w.out).to(self.dtype)
            found.append((lambda w=w, x=x: w.forward(x), 2 * rows * w.inner * w.out))
            if chosen.mode == "train":
                found.append((lambda w=w, g=g: w.backward(g), 2 * rows * w.inner * w.out))
        return found


def dump(path, model, ids, mask, labels):
    draw = torch.Generator().manual_seed(2)
    model.dropout = None
    for own in model.layers:
        for b in (*own.b_gu, *own.b_dn):
            # B starts at zero, where most gradients are zero too.
            b.data.normal_(0, 0.02, generator=draw)
    loss, aux = model.backward(ids, mask, labels)
    numbers = {"tokens": ids, "attention_mask": mask, "labels": labels,
               "loss.task": torch.tensor([loss]), "loss.aux": torch.tensor([aux])}
    for name, value, gradient in model.adapters():
        numbers[f"param.{name}"] = value
        if gradient is not None:
            numbers[f"grad.{name}"] = gradient
    save_file({name: value.clone().contiguous() for name, value in numbers.items()}, path)


def main():
    chosen = program.arguments(__doc__.splitlines()[0])
    model = MoeCl(chosen)
    given = program.batch(chosen, model.vocabulary, padded=bool(chosen.dump))
    if chosen.dump:
        return dump(chosen.dump, model.train(), *given)
    if chosen.mode == "train":
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.rate, weight_decay=0.01, fused=True)

        def step():
            model.backward(*given)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    else:
        model.eval()

        def step():
            with torch.inference_mode():
                model(*given[:2])
    program.serve(step, model.products(chosen))


if __name__ == "__main__":
    main()
