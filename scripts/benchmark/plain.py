"""What the benchmark compares with: the network and its reading of features, written plainly as in published code.

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

from dataset.kinds import KINDS, PUBLIC_PROMPTS, TEXT
from nets.network import Perception


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


class Attention(nn.Module):
    """Post-norm layer in which x (N, L, D) attends to itself and, if `cross`, to another stream of its shape."""

    def __init__(self, dim: int, cross: bool = False):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, 1, dropout=0.1, batch_first=True)
        self.cm_attn = nn.MultiheadAttention(dim, 1, dropout=0.1, batch_first=True) if cross else None
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Attend, then the feed-forward network: (N, L, D)."""
        attended = x + self.dropout(self.self_attn(x, x, x)[0])
        if self.cm_attn:
            attended = attended + self.dropout(self.cm_attn(x, other, other)[0])
        x = self.norm1(attended)
        return self.norm2(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class Query(nn.Module):
    """A query attends to keys, which if they are `tokens` attend to each other first; then a feed-forward network."""

    def __init__(self, dim: int, tokens: bool = False):
        super().__init__()
        self.TokensAttn = Attention(dim) if tokens else nn.Identity()
        self.attn_qst_query = nn.MultiheadAttention(dim, 4, dropout=0.1, batch_first=True)
        self.qst_query_linear1, self.qst_query_linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.qst_query_visual_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Query (N, D) over keys (N, L, D) -> (N, D)."""
        keys = self.TokensAttn(keys)
        attended = self.attn_qst_query(query[:, None], keys, keys)[0][:, 0]
        inner = self.dropout(F.relu(self.qst_query_linear1(attended)))
        return self.qst_query_visual_norm(attended + self.dropout(self.qst_query_linear2(inner)))


class PlainTSPM(nn.Module):
    """The network, batched by question: a video asked about twice is there twice. `select` picks the segments."""

    def __init__(
        self, select: Callable, audio: int, frame: int, token: int, text: int, dim: int, top_k: int, answers: int
    ):
        super().__init__()
        self.select, self.top_k = select, top_k
        self.input_a, self.input_v = nn.Linear(audio, dim), nn.Linear(frame, dim)
        self.input_v_patch = nn.Linear(token, dim)
        self.input_qst, self.input_qst_prompt = nn.Linear(text, dim), nn.Linear(text, dim)
        self.AV_Attn = nn.ModuleDict({"layers": nn.ModuleList([Attention(dim, cross=True)])})
        self.TemporalPerception = nn.ModuleDict({"attn_qst_query": nn.MultiheadAttention(dim, 4, batch_first=True)})
        self.SpatioPerception = Query(dim, tokens=True)
        self.QstTempGrd_Module = Query(dim)
        self.av_fusion_fc = nn.Linear(6 * dim, dim)
        self.answer_pred_fc = nn.Linear(dim, answers)

    def forward(self, audio: Tensor, frame: Tensor, token: Tensor, question: Tensor, prompt: Tensor) -> Perception:
        """Audio (B, T, Da), frames (B, T, Df), tokens (B, T, M, Dt) and two sentences (B, Dq) -> logits (B, C)."""
        audio, frame, token = self.input_a(audio), self.input_v(frame), self.input_v_patch(token)
        question, prompt = self.input_qst(question), self.input_qst_prompt(prompt)
        attend = self.AV_Attn["layers"][0]
        audio_context, frame_context = attend(audio, frame), attend(frame, audio)  # (B, T, D)

        weights = self.TemporalPerception["attn_qst_query"](prompt[:, None], frame, frame)[1][:, 0]  # (B, T)
        index = weights.topk(self.top_k).indices.sort().values  # (B, K), in time order
        audio, token = self.select(audio, index), self.select(token, index)  # (B, K, D), (B, K, M, D)
        spatial = self.SpatioPerception(audio.flatten(0, 1), token.flatten(0, 1)).view_as(audio)  # (B, K, D)
        audio_grounded, frame_grounded = (self.QstTempGrd_Module(question, x) for x in (audio, spatial))  # (B, D)
        streams = [
            *(audio_grounded, audio_context.mean(1), audio.mean(1)),
            *(frame_grounded, frame_context.mean(1), spatial.mean(1)),
        ]
        fused = self.av_fusion_fc(torch.cat(streams, dim=-1).tanh())
        return Perception(self.answer_pred_fc((fused * question).tanh()), selected=index)


class PlainReader(Dataset):
    """Question i reads its six float32 files in the public layout, for `torch.utils.data.DataLoader` to stack.

    Published code reads the audio's folder twice, the second time as "audio patches".
    """

    def __init__(self, root: Path, video_of: list[str], tokens: int):
        folders = {kind: each.public for kind, each in KINDS.items()} | {
            "question": TEXT.public,
            "prompt": PUBLIC_PROMPTS,
        }
        self.folders = {kind: root / folder.format(tokens=tokens) for kind, folder in folders.items()}
        self.video_of = video_of  # the video of each question

    def __len__(self) -> int:
        return len(self.video_of)

    def files(self, row: int) -> dict[str, Path]:
        """The files of a question."""
        names = dict.fromkeys(("audio", "frame", "token"), self.video_of[row]) | {"question": row, "prompt": row}
        files = {kind: self.folders[kind] / f"{name}.npy" for kind, name in names.items()}
        return files | {"audio_patch": files["audio"]}

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        return {kind: np.load(file) for kind, file in self.files(row).items()}
