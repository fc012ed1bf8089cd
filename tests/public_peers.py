"""PSTP-Net and ST-AVQA, written plainly from descriptions of their published code, with its names of parameters.

Nothing of `nets` is used. Attention is `nn.MultiheadAttention`, and questions, spans and seconds are looped over.
Parameters that never reach the published output are there too. The dictionaries map what is used to our names.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.public_network import AVLayer, Query

PSTP_LAYERS = {  # a weight and a bias each
    "fc_a": "audio",
    "fc_v": "frame",
    "fc_p": "perceive.token",
    "fc_word": "words",
    "fc_q": "question",
    "TempSegsSelect_Module.clip_fc": "temporal.span",
    "AudioGuidedVisualAttn.audio_query_linear1": "perceive.audio_query.ffn.0",
    "AudioGuidedVisualAttn.audio_query_linear2": "perceive.audio_query.ffn.3",
    "AudioGuidedVisualAttn.audio_query_visual_norm": "perceive.audio_query.norm",
    "GlobalLocal_Module.layers.0.linear1": "perceive.context.ffn.0",
    "GlobalLocal_Module.layers.0.linear2": "perceive.context.ffn.3",
    "GlobalLocal_Module.layers.0.norm1": "perceive.context.norm1",
    "GlobalLocal_Module.layers.0.norm2": "perceive.context.norm2",
    "GlobalSelf_Module.layers.0.linear1": "mix.ffn.0",
    "GlobalSelf_Module.layers.0.linear2": "mix.ffn.3",
    "GlobalSelf_Module.layers.0.norm1": "mix.norm1",
    "GlobalSelf_Module.layers.0.norm2": "mix.norm2",
    "fc_answer_pred": "classifier",
}
PSTP_ATTENTIONS = {  # nn.MultiheadAttention, whose parameters ours are
    "AudioGuidedVisualAttn.attn_audio_query": "perceive.audio_query.attention",
    "GlobalLocal_Module.layers.0.self_attn": "perceive.context.self_attention",
    "GlobalLocal_Module.layers.0.cm_attn": "perceive.context.cross_attention",
    "GlobalSelf_Module.layers.0.self_attn": "mix.attention",
}
PSTP_SELECTIONS = {  # nn.MultiheadAttention, of which only the weights are used: no values, no output
    "TempSegsSelect_Module.attn_qst_query": "temporal.attend",
    "SpatRegsSelect_Module.attn_qst_query": "perceive.attend",
}
ST_AVQA_LAYERS = {
    "fc_a1": "audio",
    "fc_a2": "hear.1",
    "fc_gl": "spatial.fuse",
    "fc1": "match.head.0",
    "fc2": "match.head.2",
    "fc3": "match.head.4",
    "fc4": "match.head.6",
    "linear11": "visual_query.ffn.0",
    "linear12": "visual_query.ffn.3",
    "norm1": "visual_query.norm",
    "linear21": "audio_query.ffn.0",
    "linear22": "audio_query.ffn.3",
    "norm2": "audio_query.norm",
    "fc_fusion": "fusion.fuse",
    "fc_ans": "fusion.classifier",
}
ST_AVQA_ATTENTIONS = {"attn_v": "visual_query.attention", "attn_a": "audio_query.attention"}


def renamed(
    public: nn.Module, layers: dict[str, str], attentions: dict[str, str], selections: dict[str, str] | None = None
) -> tuple[dict[str, Tensor], set[str]]:
    """The weights of a public network by our names, and the names that no dictionary holds."""
    left = dict(public.state_dict())
    ours = {f"{to}.{part}": left.pop(f"{key}.{part}") for key, to in layers.items() for part in ("weight", "bias")}
    parts = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    ours |= {f"{to}.{part}": left.pop(f"{key}.{part}") for key, to in attentions.items() for part in parts}
    for key, to in (selections or {}).items():
        weight, bias, *_ = (left.pop(f"{key}.{part}") for part in parts)
        query, keys, _ = weight.chunk(3)
        ours |= {f"{to}.query.weight": query, f"{to}.query.bias": bias.chunk(3)[0], f"{to}.key.weight": keys}
    return ours, set(left)


def with_biases(network: nn.Module) -> nn.Module:
    """The network with biases that are not zero, as they are at first, so that a wrong one shows."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


class AudioGuided(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.attn_audio_query = nn.MultiheadAttention(dim, 4, dropout=0.1, batch_first=True)
        self.audio_query_linear1, self.audio_query_linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.audio_query_visual_norm = nn.LayerNorm(dim)

    def forward(self, sound, patches):
        """(D,) over (m, D) -> (D,), (m,)."""
        attended, weights = self.attn_audio_query(sound[None, None], patches[None], patches[None])
        attended = attended[0, 0]
        inner = self.audio_query_linear2(F.relu(self.audio_query_linear1(attended)))
        return self.audio_query_visual_norm(attended + inner), weights[0, 0]


class PublicPSTPNet(nn.Module):
    """`fused` is "perceived", as its paper has it, or "projections", as its code does."""

    def __init__(
        self, audio=128, frame=512, token=512, text=512, words=512, dim=512, spans=12, top=2, kept=20, answers=42
    ):
        super().__init__()
        self.spans, self.top, self.kept = spans, top, kept
        self.fc_a, self.fc_v, self.fc_p = nn.Linear(audio, dim), nn.Linear(frame, dim), nn.Linear(token, dim)
        self.fc_word, self.fc_q, self.fc_spat_q = nn.Linear(words, dim), nn.Linear(text, dim), nn.Linear(text, dim)
        self.TempSegsSelect_Module = Query(dim)
        self.TempSegsSelect_Module.clip_attn = AVLayer(dim)
        self.TempSegsSelect_Module.clip_fc = nn.Linear(2 * dim, dim)
        self.SpatRegsSelect_Module = Query(dim)
        self.SpatRegsSelect_Module.patch_fc = nn.Linear(dim, dim)
        self.AudioGuidedVisualAttn = AudioGuided(dim)
        self.GlobalLocal_Module = nn.Module()
        self.GlobalLocal_Module.layers = nn.ModuleList([AVLayer(dim)])
        self.GlobalLocal_Module.norm1, self.GlobalLocal_Module.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.GlobalSelf_Module = nn.Module()
        self.GlobalSelf_Module.layers = nn.ModuleList([AVLayer(dim)])  # its cross-attention is never called
        self.GlobalSelf_Module.norm2 = nn.LayerNorm(dim)
        self.audio_fusion, self.visual_fusion = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.SM_fusion, self.fc_av_fusion = nn.Linear(2 * dim, dim), nn.Linear(2 * dim, dim)
        self.fc_answer_pred = nn.Linear(dim, answers)

    def forward(self, audio, frame, token, question, words, fused):
        """A video per question -> logits (B, C), selected seconds (B, K), the audio's weights (B, K, S)."""
        asked = zip(audio, frame, token, question, words, strict=True)
        logits, seconds, weights = zip(*(self.answer(*one, fused) for one in asked), strict=True)
        return torch.stack(logits), torch.tensor(seconds), torch.stack(weights)

    def answer(self, audio, frame, token, question, words, fused):
        audio, frame, token = self.fc_a(audio), self.fc_v(frame), self.fc_p(token)
        question, words = self.fc_q(question), self.fc_word(words)

        length = len(audio) // self.spans
        clips = []
        for start in range(0, len(audio), length):
            both = torch.cat([audio[start : start + length].mean(0), frame[start : start + length].mean(0)])
            clips.append(self.TempSegsSelect_Module.clip_fc(both.tanh()))
        _, clip_weights = self.TempSegsSelect_Module(question[None], torch.stack(clips)[None])
        chosen = sorted(clip_weights[0].argsort()[-self.top :].tolist())
        seconds = [clip * length + i for clip in chosen for i in range(length)]

        patches, guided, weights = [], [], []
        for second in seconds:
            _, patch_weights = self.SpatRegsSelect_Module(question[None], token[second][None])
            best = sorted(patch_weights[0].argsort()[-self.kept :].tolist())
            patches.append(token[second][best])
            attended, heard = self.AudioGuidedVisualAttn(audio[second], token[second][best])
            guided.append(attended)
            weights.append(torch.zeros(len(token[second])))
            weights[-1][best] = heard

        layer = self.GlobalLocal_Module.layers[0]
        audio_global = layer(audio[None], frame[None])[0]
        frame_global = layer(frame[None], audio_global[None])[0]

        visual = torch.cat([frame[seconds], *patches, torch.stack(guided), frame_global, frame])
        sounds = torch.cat([audio[seconds], audio_global, audio])
        parts = [sounds, visual, words] if fused == "perceived" else [audio, frame, words]
        x = torch.cat(parts)[None]
        last = self.GlobalSelf_Module.layers[0]
        x = last.norm1(x + last.self_attn(x, x, x)[0])
        x = last.norm2(x + last.linear2(F.relu(last.linear1(x))))
        answer = self.fc_answer_pred((x[0].mean(0) * question).tanh())
        return answer, seconds, torch.stack(weights)


class PublicSTAVQA(nn.Module):
    """What follows the question's vector and the visual map; beside that the published network has others, unused."""

    def __init__(self, audio=128, dim=512):
        super().__init__()
        self.fc_a1, self.fc_a2, self.fc_gl = nn.Linear(audio, dim), nn.Linear(dim, dim), nn.Linear(2 * dim, dim)
        self.fc1, self.fc2 = nn.Linear(2 * dim, dim), nn.Linear(dim, dim // 2)
        self.fc3, self.fc4 = nn.Linear(dim // 2, dim // 4), nn.Linear(dim // 4, 2)
        self.attn_v = nn.MultiheadAttention(dim, 4, dropout=0.1, batch_first=True)
        self.attn_a = nn.MultiheadAttention(dim, 4, dropout=0.1, batch_first=True)
        self.linear11, self.linear12, self.norm1 = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.linear21, self.linear22, self.norm2 = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.fc_fusion, self.fc_ans = nn.Linear(2 * dim, dim), nn.Linear(dim, 42)

    def forward(self, audio, maps, pooled, question):
        """Audio (L, 128), maps (L, S, D), pooled maps (L, D), question (D,) -> logits (C,), weights (L,), (L, S)."""
        sounds = [self.hear(second) for second in audio]
        pictures, cells = zip(*(self.ground(*one) for one in zip(sounds, maps, pooled, strict=True)), strict=True)
        sounds, pictures = torch.stack(sounds), torch.stack(pictures)
        seen, weights = self.attn_v(question[None, None], pictures[None], pictures[None])
        seen = self.norm1(seen[0, 0] + self.linear12(F.relu(self.linear11(seen[0, 0]))))
        heard, _ = self.attn_a(question[None, None], sounds[None], sounds[None])
        heard = self.norm2(heard[0, 0] + self.linear22(F.relu(self.linear21(heard[0, 0]))))
        both = self.fc_fusion(torch.cat([heard + sounds.mean(0), seen + pictures.mean(0)]).tanh())
        return self.fc_ans((both * question).tanh()), weights[0, 0], torch.stack(cells)

    def hear(self, audio):
        return self.fc_a2(F.relu(self.fc_a1(audio)))

    def ground(self, sound, cells, pooled):
        cells = torch.stack([cell / cell.norm() for cell in cells])
        weights = (cells @ (sound / sound.norm())).softmax(0)
        return self.fc_gl(torch.cat([pooled, weights @ cells]).tanh()), weights

    def match(self, sound, picture):
        """The logits of "another's" and "its own" (2,) of a sound and a picture."""
        x = torch.cat([sound, picture])
        for layer in (self.fc1, self.fc2, self.fc3):
            x = F.relu(layer(x))
        return self.fc4(x)
