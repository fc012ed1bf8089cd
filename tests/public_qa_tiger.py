"""QA-TIGER as published, written plainly from the description of its checkpoint.

Nothing of `nets` is used: this is what converted weights are compared with. Attention is `nn.MultiheadAttention`;
experts, segments and ranks are looped over; modules and parameters carry the names of public checkpoints.
"""

import torch
from torch import nn
from torch.nn import functional as F


def attention(dim, heads):
    return nn.MultiheadAttention(dim, heads, dropout=0.1, batch_first=True)


def mlp(dim):
    return nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))


class Projection(nn.Module):
    def __init__(self, width, dim):
        super().__init__()
        self.proj = nn.Linear(width, dim)

    def forward(self, x):
        return self.proj(x)


class CrossAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.qst_attn, self.crs_attn, self.slf_attn = (attention(dim, heads) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def one(self, x, other, words):
        read = [self.slf_attn(x, x, x)[0], self.crs_attn(x, other, other)[0], self.qst_attn(x, words, words)[0]]
        x = self.norm1(x + sum(self.dropout(each) for each in read))
        return self.norm2(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))

    def forward(self, audio, video, words):
        return self.one(audio, video, words), self.one(video, audio, words)


class PatchSelecter(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.vnorm, self.anorm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.slf_attn, self.crs_attn = attention(dim, heads), attention(dim, heads)
        self.mlp = mlp(dim)
        self.dropout = nn.Dropout(0.1)

    def second(self, patch, audio, video):
        """Patches (B, S, D) of a second, its audio and video (B, D)."""
        patch = patch + self.slf_attn(patch, patch, patch)[0]
        found, weights = self.crs_attn(torch.stack([video, audio], dim=1), patch, patch)
        found = self.mlp(self.dropout(found))
        return self.anorm(found[:, 1]), self.vnorm(found[:, 0]), weights[:, 1]

    def forward(self, patch, audio, video):
        seconds = [self.second(patch[:, t], audio[:, t], video[:, t]) for t in range(patch.shape[1])]
        return [torch.stack(each, dim=1) for each in zip(*seconds, strict=True)]


class TempMoE(nn.Module):
    def __init__(self, dim, heads, top, experts, mixed, visual):
        super().__init__()
        self.top, self.mixed, self.visual = top, mixed, visual
        self.qst_attn = attention(dim, heads)
        self.gauss_pred = nn.Sequential(nn.Linear(dim, 2 * experts))
        self.router = nn.Sequential(nn.Linear(dim, experts))
        self.experts = nn.ModuleList(mlp(dim) for _ in range(experts))
        for name in ("anorm", "vnorm") if visual else ("norm",):
            setattr(self, name, nn.LayerNorm(dim))
        self.centers = torch.linspace(1 / (2 * experts), 1 - 1 / (2 * experts), experts)

    def output(self, x, gaussians, ranking, shares):
        batch, seconds, _ = x.shape
        answers = []
        for b in range(batch):
            answer = 0
            for k in range(self.top):
                told = 0
                for t in range(seconds):
                    whose = (b * seconds + t) % batch if self.mixed else b
                    told = told + gaussians[b, k, t] * self.experts[ranking[whose, k]](x[b, t])
                answer = answer + shares[b, k] * told
            answers.append(answer)
        return torch.stack(answers)

    def forward(self, question, x, patches=()):
        batch, seconds, _ = x.shape
        found = self.qst_attn(question[:, None], x, x)[0][:, 0]
        shares, ranking = self.router(found).softmax(dim=-1).topk(self.top)
        shares = shares / shares.sum(dim=-1, keepdim=True)
        predicted = self.gauss_pred(found).view(batch, -1, 2)
        time = torch.linspace(0, 1, seconds)
        gaussians = torch.zeros(batch, self.top, seconds)
        for b in range(batch):
            for k in range(self.top):
                expert = ranking[b, k]
                margin = 1 / (2 * len(self.centers))
                center = (self.centers[expert] + predicted[b, expert, 0].tanh() * margin).clamp(0, 1)
                width = predicted[b, expert, 1].sigmoid().clamp(min=0.09) / 9
                bell = 0.3989422804014327 / width * torch.exp(-((time - center) ** 2) / (2 * width**2))
                gaussians[b, k] = bell / bell.max()
        weights = (shares[..., None] * gaussians).sum(dim=1)
        if self.visual:
            outputs = [self.output(x + patch, gaussians, ranking, shares) for patch in patches]
            return self.anorm(outputs[0]), self.vnorm(outputs[1]), weights
        return self.norm(self.output(x, gaussians, ranking, shares)), weights


class Grounding(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = attention(dim, heads)
        self.mlp = mlp(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, question, *given):
        given = torch.stack(given, dim=1)
        found = self.attn(question[:, None], given, given)[0][:, 0]
        return self.norm(given.mean(dim=1) + self.dropout(self.mlp(found)))


class PublicQATiger(nn.Module):
    """One video per question; gives logits (B, 42), weights of seconds (B, T), of the audio's patches (B, T, S)."""

    def __init__(
        self, mixed, audio=128, video=768, patch=1024, words=768, quest=768, dim=512, heads=8, top=7, experts=7
    ):
        super().__init__()
        self.audio_proj, self.video_proj = Projection(audio, dim), Projection(video, dim)
        self.patch_proj, self.words_proj = Projection(patch, dim), Projection(words, dim)
        self.quest_proj = Projection(quest, dim)
        self.crs_attn = CrossAttention(dim, heads)
        self.patch_selecter = PatchSelecter(dim, heads)
        self.quest_grounding = Grounding(dim, heads)
        self.at_aggregator = TempMoE(dim, heads, top, experts, mixed, visual=False)
        self.vt_aggregator = TempMoE(dim, heads, top, experts, mixed, visual=True)
        self.head = nn.Linear(dim, 42)

    def forward(self, audio, video, patch, words, quest):
        audio, video, patch = self.audio_proj(audio), self.video_proj(video), self.patch_proj(patch)
        words, quest = self.words_proj(words), self.quest_proj(quest)
        audio, video = self.crs_attn(audio, video, words)
        *patches, on_patches = self.patch_selecter(patch, audio, video)
        heard, when_heard = self.at_aggregator(quest, audio)
        by_audio, by_video, when_seen = self.vt_aggregator(quest, video, patches)
        fused = self.quest_grounding(quest, self.quest_grounding(quest, by_audio, by_video), heard)
        return self.head(F.relu(fused)), when_heard + when_seen, on_patches


def public_state_dict(network):
    """The weights as public checkpoints hold them, beside those of CLIP's text encoder."""
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    return state | {"module.quest_encoder.text_projection": torch.zeros(2, 2)}
