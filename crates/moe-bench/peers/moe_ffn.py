"""The MoE-LoRA feed-forward network of one layer, in as few passes as PyTorch allows, with its gradient by hand.

Two experts, j = 0 shared, j = 1 of the task; N = batch * len tokens; projections in the order gate, up.
  h     [N, d]                                 w_gu  the frozen gate and up [2 ff, d]
  g     [N, 2]         weights of the experts  w_dn  the frozen down [d, ff]
  a_gu  [2 * 2, r, d]  (expert, projection)    a_dn  [2, r, ff]
  b_gu  [2 * 2, ff, r] times alpha / r         b_dn  [d, 2 r] (columns: expert, r), times alpha / r
  share [batch, 1, len] each token's share of its row's mean
Frozen matrices are `Frozen`: torch's own, or packed for oneDNN.

The frozen down matrix is linear, so it runs once on the weighted sum of the experts' hidden states; the mean that the task
classifier sees is taken before it, [batch, ff] instead of [N, ff].
"""

import math

import numpy
import torch
import torch.nn.functional as F

try:
    PACK, LINEAR = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
except (AttributeError, RuntimeError):
    PACK = LINEAR = None


class Frozen:
    """A matrix [out, in] that is not trained. In f32 packed once for oneDNN, which is faster than MKL on most machines."""

    def __init__(self, weight, rows):
        self.out, self.inner = weight.shape
        self.packed = weight.dtype == torch.float32 and PACK is not None
        if self.packed:
            self.weight, self.turned = PACK(weight, rows), PACK(weight.t().contiguous(), rows)
        else:
            self.weight = weight

    def forward(self, x):
        """[.., in] -> [.., out]"""
        return LINEAR(x, self.weight, None, "none", [], "") if self.packed else F.linear(x, self.weight)

    def backward(self, g):
        """[.., out] -> [.., in]"""
        return LINEAR(g, self.turned, None, "none", [], "") if self.packed else g @ self.weight

    def __call__(self, x):
        return FrozenProduct.apply(x.contiguous(), self)


class FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, frozen):
        ctx.frozen = frozen
        return frozen.forward(x)

    @staticmethod
    def backward(ctx, g):
        return ctx.frozen.backward(g.contiguous()), None


class Dropout:
    """Masks from raw 16-bit draws: much cheaper than torch's bernoulli_. P(drop) = round(65536 p) / 65536."""

    def __init__(self, p, seed=0):
        self.draw = numpy.random.SFC64(seed)
        self.below = round(65536 * p)
        self.factor = 65536 / (65536 - self.below)

    def keep(self, *shape):
        count = math.prod(shape)
        draws = self.draw.random_raw(-(-count // 4)).view(numpy.int16)
        return torch.from_numpy(draws)[:count].view(shape) >= self.below - 32768


class MoeFfn(torch.autograd.Function):
    """-> y [N, d]; the shared expert's mean hidden state [batch, ff] and mean down code [batch, r]."""

    @staticmethod
    def forward(ctx, h, g, a_gu, b_gu, a_dn, b_dn, w_gu, w_dn, share, dropout):
        (n, d), (_, ff, r), (batch, _, length) = h.shape, b_gu.shape, share.shape
        zero = h.new_zeros(())
        if dropout:
            # A mask per LoRA; the factor goes into the small A.
            keep_h, keep_hid = dropout.keep(4, n, d), dropout.keep(2, n, ff)
            a_gu, a_dn = a_gu * dropout.factor, a_dn * dropout.factor
            x = torch.where(keep_h, h, zero)
            code = torch.bmm(x, a_gu.transpose(1, 2))  # [4, N, r]
        else:
            keep_h = keep_hid = None
            x = h
            code = F.linear(h, a_gu.view(4 * r, d)).view(n, 4, r).transpose(0, 1).contiguous()
        pre = h.new_empty(2, 2, n, ff)  # (expert, projection)
        pre.copy_(w_gu.forward(h).view(n, 2, ff).transpose(0, 1))
        pre.view(4, n, ff).baddbmm_(code, b_gu.transpose(1, 2))
        act = F.silu(pre[:, 0])
        hid = act * pre[:, 1]  # [2, N, ff]
        hid_in = torch.where(keep_hid, hid, zero) if dropout else hid
        code_dn = torch.bmm(hid_in, a_dn.transpose(1, 2))  # [2, N, r]
        mix = torch.addcmul(hid[0] * g[:, :1], hid[1], g[:, 1:])
        code_mix = (code_dn * g.t().unsqueeze(2)).transpose(0, 1).reshape(n, 2 * r)
        y = w_dn.forward(mix).addmm_(code_mix, b_dn.t())
        mean_hid = torch.bmm(share, hid[0].view(batch, length, ff)).squeeze(1)
        mean_code = torch.bmm(share, code_dn[0].view(batch, length, r)).squeeze(1)
        ctx.save_for_backward(x, g, a_gu, b_gu, a_dn, b_dn, code, pre, act, hid, hid_in, code_dn, code_mix, share)
        ctx.rest = w_gu, w_dn, dropout, keep_h, keep_hid
        return y, mean_hid, mean_code

    @staticmethod
    def backward(ctx, d_y, d_mean_hid, d_mean_code):
        x, g, a_gu, b_gu, a_dn, b_dn, code, pre, act, hid, hid_in, code_dn, code_mix, share = ctx.saved_tensors
        w_gu, w_dn, dropout, keep_h, keep_hid = ctx.rest
        (_, ff, r), (batch, _, length), d_y = b_gu.shape, share.shape, d_y.contiguous()
        n, d = d_y.shape
        zero, factor, share = d_y.new_zeros(()), dropout.factor if dropout else 1.0, share.transpose(1, 2)

        d_b_dn = d_y.t() @ code_mix
        d_mix = w_dn.backward(d_y)  # [N, ff]
        d_code_mix = (d_y @ b_dn).view(n, 2, r).transpose(0, 1)  # [2, N, r]
        d_g = torch.stack([(d_mix * hid[0]).sum(1), (d_mix * hid[1]).sum(1)], 1) + (d_code_mix * code_dn).sum(2).t()

        d_code_dn = d_code_mix * g.t().unsqueeze(2)
        d_code_dn[0].view(batch, length, r).addcmul_(share, d_mean_code.unsqueeze(1))
        d_a_dn = torch.bmm(d_code_dn.transpose(1, 2), hid_in) * factor
        d_hid = torch.bmm(d_code_dn, a_dn)
        if dropout:
            d_hid = torch.where(keep_hid, d_hid, zero)
        d_hid[0].addcmul_(d_mix, g[:, :1]).view(batch, length, ff).addcmul_(share, d_mean_hid.unsqueeze(1))
        d_hid[1].addcmul_(d_mix, g[:, 1:])

        d_pre = torch.empty_like(pre)
        torch.mul(d_hid, act, out=d_pre[:, 1])
        torch.ops.aten.silu_backward(d_hid.mul_(pre[:, 1]), pre[:, 0], grad_input=d_pre[:, 0])
        d_pre4 = d_pre.view(4, n, ff)
        d_code = torch.bmm(d_pre4, b_gu)  # [4, N, r]
        d_b_gu = torch.bmm(d_pre4.transpose(1, 2), code)
        if dropout:
            d_a_gu = torch.bmm(d_code.transpose(1, 2), x) * factor
        else:
            d_code = d_code.transpose(0, 1).reshape(n, 4 * r)
            d_a_gu = (d_code.t() @ x).view(4, r, d)
        d_h = None
        if ctx.needs_input_grad[0]:  # not in the lowest layer
            d_base = d_y.new_empty(n, 2, ff)
            torch.add(d_pre[0], d_pre[1], out=d_base.transpose(0, 1))
            d_h = w_gu.backward(d_base.view(n, 2 * ff))
            if dropout:
                d_h += torch.where(keep_h, torch.bmm(d_code, a_gu), zero).sum(0)
            else:
                d_h.addmm_(d_code, a_gu.view(4 * r, d))
        return d_h, d_g, d_a_gu, d_b_gu, d_a_dn, d_b_dn, None, None, None, None


def moe_ffn_eval(h, g, a_gu, b_gu, a_dn, b_dn, w_gu, w_dn):
    """y alone, and nothing kept."""
    (n, d), (_, ff, r) = h.shape, b_gu.shape
    code = F.linear(h, a_gu.view(4 * r, d)).view(n, 4, r).transpose(0, 1)
    base = w_gu.forward(h).view(n, 2, ff).transpose(0, 1)
    pre = torch.baddbmm(base.expand(2, 2, n, ff).reshape(4, n, ff), code, b_gu.transpose(1, 2)).view(2, 2, n, ff)
    hid = F.silu(pre[:, 0]).mul_(pre[:, 1])
    code_dn = torch.bmm(hid, a_dn.transpose(1, 2)).mul_(g.t().unsqueeze(2))
    mix = hid[0].mul_(g[:, :1]).addcmul_(hid[1], g[:, 1:])
    return w_dn.forward(mix).addmm_(code_dn.transpose(0, 1).reshape(n, 2 * r), b_dn.t())
