"""What the benchmark compares with: the network and its reading of features, written plainly as in published code,
and an attention layer by torch's fused operator.

The network is that of the paper's section 3, with `nn.MultiheadAttention` throughout. The tokens of all T segments are
projected before those of the selected ones are picked, in one of two ways: segment by segment in Python loops, or by
one gather. Its parameters carry the names of public checkpoints, so scripts.convert_public gives our model the same
weights; with them all three give the same logits.

B batch, T segments, K selected segments, M tokens per frame, D hidden width, N sequences of L keys.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from dataset.features import PUBLIC_FOLDERS
from nets.layers import SingleHeadAttention
from nets.tspm.model import Perception

Select = Callable[[Tensor, Tensor], Tensor]


def copy_segments(x: Tensor, index: Tensor) -> Tensor:
    """Copy segments `index` (B, K) of x (B, T, ...) to (B, K, ...), one after the other."""
    selected = x.new_zeros(*index.shape, *x.shape[2:])
    for row, segments in enumerate(index.tolist()):
        for k, segment in enumerate(segments):
            selected[row, k] = x[row, segment]
    return selected


def gather_segments(x: Tensor, index: Tensor) -> Tensor:
    """Gather segments `index` (B, K) of x (B, T, ...) to (B, K, ...) at once."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]


class SelfAttention(nn.Module):
    """Post-norm layer of token self-attention, N x (L, D) -> the same."""

    def __init__(self, dim: int):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, 1, dropout=0.1, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the tokens of a frame."""
        return self._feed_forward(self.norm1(x + self.dropout(self.self_attn(x, x, x)[0])))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.norm2(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class CrossModalAttention(SelfAttention):
    """The audio-visual layer: a stream (B, T, D) reads itself and the other."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.cm_attn = nn.MultiheadAttention(dim, 1, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Attend within x and from x to the other stream."""
        own, cross = self.self_attn(x, x, x)[0], self.cm_attn(x, other, other)[0]
        return self._feed_forward(self.norm1(x + self.dropout(own) + self.dropout(cross)))


class Query(nn.Module):
    """A query attends to keys, with its feed-forward network."""

    def __init__(self, dim: int):
        super().__init__()
        self.attn_qst_query = nn.MultiheadAttention(dim, 4, dropout=0.1, batch_first=True)
        self.qst_query_linear1, self.qst_query_linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.qst_query_visual_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Query (N, D) over keys (N, L, D) -> (N, D)."""
        attended = self.attn_qst_query(query[:, None], keys, keys)[0][:, 0]
        inner = self.dropout(F.relu(self.qst_query_linear1(attended)))
        return self.qst_query_visual_norm(attended + self.dropout(self.qst_query_linear2(inner)))


class TokenQuery(Query):
    """The tokens of a frame attend to each other, then the segment's audio to them."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.TokensAttn = SelfAttention(dim)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Audio (N, D) over tokens (N, M, D) -> (N, D)."""
        return super().forward(query, self.TokensAttn(keys))


class Temporal(nn.Module):
    """The prompt attends to the frames; K segments are selected."""

    def __init__(self, dim: int, top_k: int):
        super().__init__()
        self.attn_qst_query = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.top_k = top_k

    def forward(self, prompt: Tensor, frame: Tensor) -> Tensor:
        """Prompt (B, D) over frames (B, T, D) -> segments (B, K), in time order."""
        weights = self.attn_qst_query(prompt[:, None], frame, frame)[1][:, 0]
        return weights.topk(self.top_k).indices.sort().values


class PlainTSPM(nn.Module):
    """The network, batched by question: a video asked about twice is there twice. `select` picks the segments."""

    def __init__(
        self,
        select: Select,
        audio: int = 128,
        frame: int = 768,
        token: int = 1024,
        text: int = 768,
        dim: int = 512,
        top_k: int = 10,
        answers: int = 42,
    ):
        super().__init__()
        self.select = select
        self.input_a, self.input_v = nn.Linear(audio, dim), nn.Linear(frame, dim)
        self.input_v_patch = nn.Linear(token, dim)
        self.input_qst, self.input_qst_prompt = nn.Linear(text, dim), nn.Linear(text, dim)
        self.AV_Attn = nn.ModuleDict({"layers": nn.ModuleList([CrossModalAttention(dim)])})
        self.TemporalPerception = Temporal(dim, top_k)
        self.SpatioPerception = TokenQuery(dim)
        self.QstTempGrd_Module = Query(dim)
        self.av_fusion_fc = nn.Linear(6 * dim, dim)
        self.answer_pred_fc = nn.Linear(dim, answers)

    def forward(self, audio: Tensor, frame: Tensor, token: Tensor, question: Tensor, prompt: Tensor) -> Perception:
        """Audio (B, T, Da), frames (B, T, Df), tokens (B, T, M, Dt) and two sentences (B, Dq) -> logits (B, C)."""
        audio, frame, token = self.input_a(audio), self.input_v(frame), self.input_v_patch(token)
        question, prompt = self.input_qst(question), self.input_qst_prompt(prompt)
        attend = self.AV_Attn["layers"][0]
        audio_context, frame_context = attend(audio, frame), attend(frame, audio)  # (B, T, D)

        index = self.TemporalPerception(prompt, frame)  # (B, K)
        audio, token = self.select(audio, index), self.select(token, index)  # (B, K, D), (B, K, M, D)
        spatial = self.SpatioPerception(audio.flatten(0, 1), token.flatten(0, 1)).view_as(audio)  # (B, K, D)
        audio_grounded, frame_grounded = (self.QstTempGrd_Module(question, x) for x in (audio, spatial))  # (B, D)
        streams = [
            *(audio_grounded, audio_context.mean(1), audio.mean(1)),
            *(frame_grounded, frame_context.mean(1), spatial.mean(1)),
        ]
        fused = self.av_fusion_fc(torch.cat(streams, dim=-1).tanh())
        return Perception(self.answer_pred_fc((fused * question).tanh()), selected=index)


class FusedAttention(SingleHeadAttention):
    """The same function with torch's fused operator at its heart.

    That does not tell the sum of the weights, which dropout makes other than 1, so the values are projected before it
    and not after: as many rows here, where there are as many keys as queries.
    """

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Query (N, Q, D) attends to keys (N, L, D)."""
        wq, wk, wv = self.in_proj_weight.chunk(3)
        bq, _, bv = self.in_proj_bias.chunk(3)
        wo, bo = self.out_proj.weight, self.out_proj.bias

        probe = F.linear(query, wk.T @ wq, wk.T @ bq)[:, None]  # (N, 1, Q, D): fused only where heads are told
        values = F.linear(keys, wo @ wv, wo @ bv)[:, None]
        dropout = self.dropout.rate if self.training else 0.0
        return F.scaled_dot_product_attention(probe, keys[:, None], values, dropout_p=dropout)[:, 0] + bo


class PlainReader(Dataset):
    """Question i reads its six float32 files in the public layout, for `torch.utils.data.DataLoader` to stack.

    Published code reads the audio's folder twice, the second time as "audio patches".
    """

    def __init__(self, root: Path, video_of: list[str], tokens: int):
        self.folders = {kind: root / folder.format(tokens=tokens) for kind, folder in PUBLIC_FOLDERS.items()}
        self.video_of = video_of  # the video of each question

    def __len__(self) -> int:
        return len(self.video_of)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        name = f"{self.video_of[row]}.npy"
        video = {kind: np.load(self.folders[kind] / name) for kind in ("audio", "frame", "token")}
        text = {kind: np.load(self.folders[kind] / f"{row}.npy") for kind in ("question", "prompt")}
        return video | text | {"audio_patch": np.load(self.folders["audio"] / name)}
