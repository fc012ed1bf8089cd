"""The network of the published implementation, written plainly from the description of its checkpoint.

Nothing of `nets` is used: this is what converted weights are compared with. Attention is `nn.MultiheadAttention`;
modules and parameters carry the names of public checkpoints, those that never reach the output included.
"""

import torch
from torch import nn
from torch.nn import functional as F


class AVLayer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, 1, dropout=0.1, batch_first=True)
        self.cm_attn = nn.MultiheadAttention(dim, 1, dropout=0.1, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout, self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(0.1) for _ in range(4))

    def forward(self, x, other):
        own = self.self_attn(x, x, x)[0]
        cross = self.cm_attn(x, other, other)[0]
        x = self.norm1(x + self.dropout1(cross) + self.dropout2(own))
        return self.norm2(x + self.dropout3(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class AVAttn(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.layers = nn.ModuleList([AVLayer(dim)])
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)  # never used

    def forward(self, audio, visual):
        return self.layers[0](audio, visual), self.layers[0](visual, audio)


class TokenLayer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, 1, dropout=0.1, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout, self.dropout1, self.dropout2 = (nn.Dropout(0.1) for _ in range(3))

    def forward(self, x):
        x = self.norm1(x + self.dropout1(self.self_attn(x, x, x)[0]))
        return self.norm2(x + self.dropout2(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class Query(nn.Module):
    """The attention of a query, with its feed-forward network and norm."""

    def __init__(self, dim):
        super().__init__()
        self.attn_qst_query = nn.MultiheadAttention(dim, 4, dropout=0.1, batch_first=True)
        self.qst_query_linear1, self.qst_query_linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.qst_query_visual_norm = nn.LayerNorm(dim)
        self.dropout1, self.dropout2 = nn.Dropout(0.1), nn.Dropout(0.1)

    def forward(self, query, keys):
        """(N, D) over (N, L, D) -> (N, D), (N, L)."""
        attended, weights = self.attn_qst_query(query[:, None], keys, keys)
        attended = attended[:, 0]
        inner = self.dropout1(F.relu(self.qst_query_linear1(attended)))
        return self.qst_query_visual_norm(attended + self.dropout2(self.qst_query_linear2(inner))), weights[:, 0]


class Spatial(Query):
    def __init__(self, dim):
        super().__init__(dim)
        self.TokensAttn = TokenLayer(dim)


class PublicNetwork(nn.Module):
    """One video per question; takes batches of features and returns logits (B, 42) and selected indices (B, K)."""

    def __init__(self, audio=128, frame=768, token=1024, text=768, dim=512, top_k=10, answers=42):
        super().__init__()
        self.top_k = top_k
        self.input_a, self.input_v = nn.Linear(audio, dim), nn.Linear(frame, dim)
        self.input_v_patch = nn.Linear(token, dim)
        self.input_qst, self.input_qst_prompt = nn.Linear(text, dim), nn.Linear(text, dim)
        self.AV_Attn = AVAttn(dim)
        self.TemporalPerception = Query(dim)
        self.SpatioPerception = Spatial(dim)
        self.QstTempGrd_Module = Query(dim)
        self.av_fusion_fc = nn.Linear(6 * dim, dim)
        self.answer_pred_fc = nn.Linear(dim, answers)

    def forward(self, audio, frame, token, question, prompt):
        audio, frame, patch = self.input_a(audio), self.input_v(frame), self.input_v_patch(token)
        question, prompt = self.input_qst(question), self.input_qst_prompt(prompt)
        audio_context, frame_context = self.AV_Attn(audio, frame)

        _, weights = self.TemporalPerception(prompt, frame)
        index = weights.topk(self.top_k).indices.sort().values
        batch = range(len(index))
        audio_top = torch.stack([audio[b, index[b]] for b in batch])
        first = patch[:, : self.top_k]  # the tokens of the first K frames, whatever was selected

        spatial = torch.stack(
            [
                torch.stack(
                    [
                        self.SpatioPerception(
                            audio_top[b, k][None], self.SpatioPerception.TokensAttn(first[b, k][None])
                        )[0][0]
                        for k in range(self.top_k)
                    ]
                )
                for b in batch
            ]
        )
        audio_grounded, _ = self.QstTempGrd_Module(question, audio_top)
        visual_grounded, _ = self.QstTempGrd_Module(question, spatial)
        streams = [
            *(audio_grounded, audio_context.mean(1), audio_top.mean(1)),
            *(visual_grounded, frame_context.mean(1), spatial.mean(1)),
        ]
        fused = self.av_fusion_fc(torch.cat(streams, dim=-1).tanh())
        return self.answer_pred_fc((fused * question).tanh()), index


def public_state_dict(network: PublicNetwork) -> dict[str, torch.Tensor]:
    """The weights as public checkpoints hold them, saved from `nn.DataParallel`."""
    return {f"module.{key}": value for key, value in network.state_dict().items()}
